//! What allocations take of the GPU: pages, and pieces that processes share.

use super::{Driver, Handle, LARGE, OUT_OF_MEMORY, PAGE, Status, card, instant};

impl Driver {
    /// Takes memory of the card for an allocation in a context.
    pub fn take(&mut self, context: Handle, bytes: u64) -> Result<(), Status> {
        if instant() {
            return Ok(());
        }
        let small = self.small.entry(context).or_default();
        let pages = if bytes >= LARGE {
            bytes.checked_next_multiple_of(PAGE).ok_or(OUT_OF_MEMORY)?
        } else {
            (*small + bytes).next_multiple_of(PAGE) - small.next_multiple_of(PAGE)
        };
        if pages > 0 && !card().take(pages) {
            return Err(OUT_OF_MEMORY);
        }
        *small += if bytes < LARGE { bytes } else { 0 };
        Ok(())
    }

    /// Gives back what [`Driver::take`] took.
    pub fn give(&mut self, context: Handle, bytes: u64) {
        if instant() {
            return;
        }
        if bytes >= LARGE {
            return card().give(bytes.next_multiple_of(PAGE));
        }
        let small = self.small.entry(context).or_default();
        let before = small.next_multiple_of(PAGE);
        *small -= bytes;
        card().give(before - small.next_multiple_of(PAGE));
    }

    /// This process has a shared piece once more.
    pub fn hold(&mut self, piece: u64) -> bool {
        let had = self.pieces.entry(piece).or_default();
        *had += 1;
        *had > 1 || card().hold(piece)
    }

    /// This process has a shared piece once less.
    pub fn drop_hold(&mut self, piece: u64) {
        if let Some(had) = self.pieces.get_mut(&piece) {
            *had -= 1;
            if *had == 0 {
                self.pieces.remove(&piece);
                card().drop_hold(piece);
            }
        }
    }
}
