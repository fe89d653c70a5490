//! Adding up what all processes of a container hold of one GPU. It needs no entry of one's own.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use kerf_limiter_contract::overhead;
use kerf_limiter_contract::state::{Device, Extra, MAX_PROCESSES, State};

use super::shared;

/// The account of one GPU, of all processes.
#[derive(Clone, Copy)]
pub struct Book {
    state: &'static State,
    device: usize,
    cap: u64,
    /// The host's measurements; `None` where they do not count.
    overhead: Option<&'static [AtomicU64]>,
}

impl Book {
    /// `device` is a position in the limits.
    pub fn new(state: &'static State, device: usize, cap: u64, overhead: Option<&'static [AtomicU64]>) -> Self {
        Self { state, device, cap, overhead }
    }

    pub fn state(&self) -> &'static State {
        self.state
    }

    pub fn cap(&self) -> u64 {
        self.cap
    }

    pub fn entry(&self) -> Option<(&'static Device, &'static Extra)> {
        Some((self.state.devices.get(self.device)?, self.state.extras.get(self.device)?))
    }

    /// Bytes that processes hold.
    pub fn used(&self) -> u64 {
        self.sum(|device, slot| device.held.get(slot).map_or(0, |bytes| bytes.load(SeqCst)))
    }

    /// Bytes that processes hold or ask for.
    pub fn taken(&self) -> u64 {
        self.sum(|device, slot| device.taken.get(slot).map_or(0, |bytes| bytes.load(SeqCst)))
    }

    /// Bytes that processes hold, read twice until they are the same: bytes that move from one process to another
    /// during the addition would otherwise count twice.
    pub fn settled(&self) -> u64 {
        let mut last = self.used();
        for _ in 0..16 {
            let again = self.used();
            if again == last {
                break;
            }
            last = again;
        }
        last
    }

    fn sum(&self, of: impl Fn(&Device, usize) -> u64) -> u64 {
        let Some((device, _)) = self.entry() else { return u64::MAX };
        let high = (self.state.header.high.load(SeqCst) as usize).min(MAX_PROCESSES);
        let sum = (0..high).fold(0_u64, |sum, slot| sum.saturating_add(of(device, slot)));
        // after the entries: what their owners leave to others counts here before it leaves the entry
        let sum = sum.saturating_add(shared::unpaid(self.state, self.device));
        sum.saturating_add_signed(self.corrections(high))
    }

    /// By how much the driver's own memory differs from what processes have estimated.
    fn corrections(&self, high: usize) -> i64 {
        let Some(words) = self.overhead else { return 0 };
        let word = |offset: usize| words.get(offset / 8).map_or(0, |word| word.load(Relaxed));
        let mut sum = 0_i64;
        for (slot, process) in self.state.processes.iter().enumerate().take(high) {
            let owner = word(overhead::owner_offset(self.device, slot));
            if owner != 0 && owner == process.owner.load(Relaxed) {
                sum = sum.saturating_add(word(overhead::offset(self.device, slot)) as i64);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::blank::state;

    #[test]
    fn the_hosts_measurement_counts_for_the_process_that_it_is_of() {
        let state = state();
        let words: &'static [AtomicU64] = Box::leak((0..overhead::BYTES / 8).map(|_| AtomicU64::new(0)).collect());
        let put = |slot: usize, bytes: i64, owner: u64| {
            words[overhead::offset(1, slot) / 8].store(bytes as u64, Relaxed);
            words[overhead::owner_offset(1, slot) / 8].store(owner, Relaxed);
        };
        let book = Book::new(state, 1, 1000, Some(words));
        for (slot, owner, held) in [(0, 77, 500), (1, 78, 400), (2, 0, 0)] {
            state.processes[slot].owner.store(owner, SeqCst);
            state.devices[1].held[slot].store(held, SeqCst);
        }
        state.header.high.store(3, SeqCst);
        assert_eq!(book.used(), 900);
        put(0, 50, 77);
        put(1, -100, 78);
        assert_eq!(book.used(), 850);
        // of a process that has ended, and of a free entry
        put(0, 50, 76);
        put(2, 50, 0);
        assert_eq!(book.used(), 800);
        put(1, -2000, 78);
        assert_eq!(book.used(), 0);
    }
}
