//! Memory that several processes have.

use super::{Card, Piece};

impl Card {
    /// Makes `bytes` that this process has taken a piece that others can have as well; returns its number.
    pub fn share(&self, bytes: u64) -> Option<u64> {
        let locked = self.lock();
        let contents = locked.contents();
        let free = contents.pieces.iter().position(|piece| piece.holders == 0)?;
        contents.pieces[free] = Piece { bytes, holders: 1 << self.seat };
        contents.processes[self.seat].memory -= bytes;
        Some(free as u64 + 1)
    }

    /// This process has the piece as well, which takes no more memory; false where nobody has it any more.
    pub fn hold(&self, piece: u64) -> bool {
        let locked = self.lock();
        let contents = locked.contents();
        self.reap(contents);
        let piece = &mut contents.pieces[piece as usize - 1];
        let there = piece.holders != 0;
        if there {
            piece.holders |= 1 << self.seat;
        }
        there
    }

    /// This process has the piece no longer.
    pub fn drop_hold(&self, piece: u64) {
        let locked = self.lock();
        let contents = locked.contents();
        contents.leave(piece as usize - 1, self.seat);
    }
}
