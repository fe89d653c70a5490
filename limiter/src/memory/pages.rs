//! Small allocations of a context, which the driver puts into pages of [`size::PAGE`] together.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::size;

/// Bytes of small allocations, by context.
#[derive(Default)]
pub struct Pages {
    small: Mutex<HashMap<usize, u64>>,
}

impl Pages {
    /// Adds a small allocation; `reserve` gets the bytes by which the pages grow, if they do, and `release` those that were
    /// reserved in vain. Nothing is locked meanwhile: to make room, other small allocations may be taken out.
    pub fn add<E>(
        &self,
        context: usize,
        bytes: u64,
        reserve: impl Fn(u64) -> Result<(), E>,
        release: impl Fn(u64),
    ) -> Result<(), E> {
        let (mut reserved, mut refused) = (0, None);
        loop {
            let mut small = self.small();
            let before = small.get(&context).copied().unwrap_or(0);
            let after = before.saturating_add(bytes);
            let growth = size::whole(after) - size::whole(before);
            if growth <= reserved {
                small.insert(context, after);
                drop(small);
                release(reserved - growth);
                return Ok(());
            }
            drop(small);
            if let Some(refused) = refused {
                release(reserved);
                return Err(refused);
            }
            match reserve(growth - reserved) {
                Ok(()) => reserved = growth,
                Err(error) => refused = Some(error),
            }
        }
    }

    /// Takes out a small allocation; returns the bytes by which the pages shrink.
    pub fn remove(&self, context: usize, bytes: u64) -> u64 {
        let mut small = self.small();
        let Some(sum) = small.get_mut(&context) else { return 0 };
        let before = *sum;
        *sum = before.saturating_sub(bytes);
        let after = *sum;
        if after == 0 {
            small.remove(&context);
        }
        size::whole(before) - size::whole(after)
    }

    fn small(&self) -> MutexGuard<'_, HashMap<usize, u64>> {
        self.small.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_page_counts_from_its_first_piece_to_its_last() {
        let pages = Pages::default();
        let add = |context, bytes| {
            let grown = Cell::new(0);
            let reserve = |more| {
                grown.set(more);
                Ok::<_, ()>(())
            };
            pages.add(context, bytes, reserve, |rest| assert_eq!(rest, 0)).unwrap();
            grown.get()
        };
        assert_eq!(
            (add(1, 512), add(1, size::PAGE - 512), add(1, 512), add(2, 512)),
            (size::PAGE, 0, size::PAGE, size::PAGE)
        );
        assert_eq!(
            (pages.remove(1, 512), pages.remove(1, size::PAGE - 512), pages.remove(1, 512)),
            (size::PAGE, 0, size::PAGE)
        );
        assert_eq!(pages.add(3, 1, |_| Err("no room"), |_| {}), Err("no room"));
        assert_eq!(pages.remove(3, 1), 0);
    }

    #[test]
    fn what_leaves_while_room_is_made_is_room() {
        let pages = Pages::default();
        let free = |_| Ok::<_, ()>(());
        (0..4).for_each(|_| pages.add(1, size::PAGE / 4, free, |_| {}).unwrap());
        let refuse = |_| {
            pages.remove(1, size::PAGE / 4);
            Err("no room")
        };
        assert_eq!(pages.add(1, size::PAGE / 4, refuse, |_| {}), Ok(()));
        let back = Cell::new(0);
        let reserve = |_| {
            pages.remove(1, size::PAGE / 4);
            Ok::<_, ()>(())
        };
        pages.add(1, size::PAGE / 4, reserve, |rest| back.set(rest)).unwrap();
        assert_eq!(back.get(), size::PAGE);
    }
}
