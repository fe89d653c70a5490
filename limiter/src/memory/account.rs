//! The container's account of one GPU's memory, shared by its processes.
//!
//! Each process writes one entry of its own. To reserve, it first writes the amount that it will hold (`taken`), then
//! adds up all entries, and takes the amount back where the sum is above the cap. Of two that ask at the same time the
//! later one sees the earlier, whatever the interleaving, so the cap holds to the byte; a process that is killed at
//! any point leaves only its entry, which the next process in need clears. There is no lock between processes.

use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Release, SeqCst};

use kerf_limiter_contract::state::{Device, Extra, Flags, MAX_PROCESSES};

use super::liveness::Liveness;
use super::sum::Book;
use crate::sync::{Mutex, MutexGuard, hint, thread};

/// Attempts while another process asks at the same moment; after that it is taken to have stopped.
const PATIENCE: u32 = 20_000;

/// This process' part of one GPU's account.
pub struct Account {
    book: Book,
    slot: AtomicUsize,
    /// This process' entry in the shared file is written under this lock only and must be equal.
    own: Mutex<Own>,
}

/// Bytes of this process.
#[derive(Clone, Copy, Default)]
struct Own {
    held: u64,
    /// The part of them that was estimated for contexts.
    context: u64,
    changes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl Account {
    /// `slot` is the entry of this process.
    pub fn new(book: Book, slot: usize) -> Self {
        Self { book, slot: AtomicUsize::new(slot), own: Mutex::default() }
    }

    /// What all processes of the container hold.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Reserves all of `bytes` for this process, or nothing.
    pub fn reserve(&self, bytes: u64, liveness: &Liveness) -> Result<(), Refused> {
        self.reserve_as(bytes, 0, liveness)
    }

    /// Reserves what a context and the driver's own memory are estimated to take.
    pub fn reserve_context(&self, bytes: u64, liveness: &Liveness) -> Result<(), Refused> {
        self.reserve_as(bytes, bytes, liveness)
    }

    fn reserve_as(&self, bytes: u64, context: u64, liveness: &Liveness) -> Result<(), Refused> {
        let mut own = self.own();
        self.mend(&own);
        let (Some((device, _)), true) = (self.entry(), bytes <= self.book.cap()) else { return Err(self.refuse()) };
        let slot = self.slot();
        let wanted = own.held.saturating_add(bytes);
        let mut reaped = false;
        for attempt in 1..=PATIENCE {
            device.taken[slot].store(wanted, SeqCst);
            if self.book.taken() <= self.book.cap() {
                own.context = own.context.saturating_add(context);
                self.write(&mut own, wanted);
                return Ok(());
            }
            device.taken[slot].store(own.held, SeqCst);
            if self.book.settled().saturating_add(bytes) > self.book.cap() {
                // no room, unless a process has ended, and another may have found that a moment ago
                if reaped {
                    return Err(self.refuse());
                }
                liveness.reap(self.book.state());
                reaped = true;
            } else {
                // there is room, but another process asks as well: the one with the lower entry asks again sooner
                if attempt % 256 == 0 {
                    liveness.reap(self.book.state());
                }
                for _ in 0..(attempt % 64) * (slot as u32 % 8 + 1) {
                    hint::spin_loop();
                }
                thread::yield_now();
            }
        }
        Err(self.refuse())
    }

    /// Adds bytes that the driver has taken already, whatever the cap is.
    pub fn force(&self, bytes: u64) {
        self.change(|own| own.held.saturating_add(bytes));
    }

    pub fn release(&self, bytes: u64) {
        if bytes > 0 {
            self.change(|own| own.held.saturating_sub(bytes));
        }
    }

    /// Gives back what was estimated for a context.
    pub fn release_context(&self, bytes: u64) {
        self.change(|own| {
            own.context = own.context.saturating_sub(bytes);
            own.held.saturating_sub(bytes)
        });
    }

    /// This process has another entry from now on: it has lost its own.
    pub fn move_to(&self, slot: usize) {
        let mut own = self.own();
        self.slot.store(slot, SeqCst);
        let held = own.held;
        self.write(&mut own, held);
    }

    fn change(&self, to: impl FnOnce(&mut Own) -> u64) {
        let mut own = self.own();
        self.mend(&own);
        let held = to(&mut own);
        self.write(&mut own, held);
    }

    /// Others see this at some moment, and each store after those before it. Only the amount that a process is about to hold has
    /// to be seen at once, and `reserve_as` has stored that; such a store costs as much as all of these.
    fn write(&self, own: &mut Own, held: u64) {
        own.held = held;
        own.changes = own.changes.wrapping_add(1);
        if let Some((device, extra)) = self.entry() {
            let slot = self.slot();
            extra.changes[slot].store(own.changes, Release);
            extra.context[slot].store(own.context, Release);
            device.held[slot].store(held, Release);
            device.taken[slot].store(held, Release);
        }
    }

    /// Corrects this process' entry where another process has changed it.
    fn mend(&self, own: &Own) {
        let (Some((device, extra)), slot) = (self.entry(), self.slot()) else { return };
        let high = &self.book.state().header.high;
        if high.load(SeqCst) <= slot as u32 {
            high.fetch_max(slot as u32 + 1, SeqCst);
        }
        if device.held[slot].load(SeqCst) != own.held || device.taken[slot].load(SeqCst) != own.held {
            self.book.state().header.flags.fetch_or(Flags::OVERWRITTEN.0, SeqCst);
            extra.context[slot].store(own.context, SeqCst);
            device.taken[slot].store(own.held, SeqCst);
            device.held[slot].store(own.held, SeqCst);
        }
    }

    fn refuse(&self) -> Refused {
        if let Some((device, _)) = self.entry() {
            device.refused.fetch_add(1, SeqCst);
        }
        Refused
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Below [`MAX_PROCESSES`].
    fn slot(&self) -> usize {
        self.slot.load(SeqCst).min(MAX_PROCESSES - 1)
    }

    fn entry(&self) -> Option<(&'static Device, &'static Extra)> {
        self.book.entry()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use proptest::prelude::*;

    use kerf_limiter_contract::state::State;

    use super::*;
    use crate::memory::blank::state;

    fn account(state: &'static State, cap: u64, slot: usize) -> Account {
        state.header.high.fetch_max(slot as u32 + 1, SeqCst);
        state.processes[slot].owner.store(slot as u64 + 1, SeqCst);
        Account::new(Book::new(state, 0, cap, None), slot)
    }

    #[test]
    fn the_cap_holds_to_the_byte() {
        let (state, alive) = (state(), Liveness::everybody());
        let (a, b) = (account(state, 1000, 0), account(state, 1000, 1));
        assert_eq!(a.reserve(600, &alive), Ok(()));
        assert_eq!(b.reserve(401, &alive), Err(Refused));
        assert_eq!(b.reserve(400, &alive), Ok(()));
        assert_eq!(a.reserve(1, &alive), Err(Refused));
        b.release(1);
        assert_eq!(a.reserve(1, &alive), Ok(()));
        assert_eq!((a.book().used(), state.devices[0].refused.load(SeqCst)), (1000, 2));
    }

    #[test]
    fn an_entry_that_was_overwritten_is_put_right_and_told() {
        let (state, alive) = (state(), Liveness::everybody());
        let a = account(state, 1000, 0);
        a.reserve(600, &alive).unwrap();
        state.devices[0].held[0].store(0, SeqCst);
        state.devices[0].taken[0].store(0, SeqCst);
        assert_eq!(a.reserve(401, &alive), Err(Refused));
        assert_eq!(a.book().used(), 600);
        assert_eq!(Flags(state.header.flags.load(SeqCst)), Flags::OVERWRITTEN);
    }

    #[test]
    fn what_was_estimated_is_told_beside_what_is_held() {
        let (state, alive) = (state(), Liveness::everybody());
        let a = account(state, 1000, 0);
        a.reserve_context(400, &alive).unwrap();
        a.reserve(100, &alive).unwrap();
        let told = || (state.devices[0].held[0].load(SeqCst), state.extras[0].context[0].load(SeqCst));
        assert_eq!(told(), (500, 400));
        assert_eq!(state.extras[0].changes[0].load(SeqCst), 2);
        a.release_context(400);
        assert_eq!(told(), (100, 0));
        assert_eq!(a.reserve_context(901, &alive), Err(Refused));
        a.move_to(5);
        assert_eq!(
            (told().0, state.devices[0].held[5].load(SeqCst)),
            (100, 100),
            "the other entry is somebody else's"
        );
    }

    #[test]
    fn eight_threads_as_eight_processes_never_exceed_the_cap_and_use_all_of_it() {
        let state = state();
        let cap = 8 * 50;
        // the bytes that the driver would have given out
        let given = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..8)
            .map(|slot| {
                let (account, given) = (account(state, cap, slot), given.clone());
                thread::spawn(move || {
                    let alive = Liveness::everybody();
                    for round in 0..2000_u64 {
                        let bytes = 1 + (round * 7 + slot as u64) % 120;
                        if account.reserve(bytes, &alive).is_ok() {
                            assert!(given.fetch_add(bytes, SeqCst) + bytes <= cap);
                            given.fetch_sub(bytes, SeqCst);
                            account.release(bytes);
                        }
                    }
                    // now each takes one at a time until nothing is left
                    let mut got = 0;
                    while account.reserve(1, &alive).is_ok() {
                        got += 1;
                    }
                    got
                })
            })
            .collect();
        let all: u64 = threads.into_iter().map(|t| t.join().unwrap()).sum();
        assert_eq!(all, cap);
    }

    proptest! {
        /// Compares with the obvious model: a number for each process.
        #[test]
        fn accounts_behave_as_numbers(steps in proptest::collection::vec((0..4_usize, 0..3_u8, 0..700_u64), 1..60)) {
            let (state, alive) = (state(), Liveness::everybody());
            let accounts: Vec<Account> = (0..4).map(|slot| account(state, 1000, slot)).collect();
            let mut model = [0_u64; 4];
            for (who, what, bytes) in steps {
                match what {
                    0 => {
                        let fits = model.iter().sum::<u64>() + bytes <= 1000;
                        prop_assert_eq!(accounts[who].reserve(bytes, &alive).is_ok(), fits);
                        model[who] += if fits { bytes } else { 0 };
                    }
                    1 => {
                        let bytes = bytes.min(model[who]);
                        accounts[who].release(bytes);
                        model[who] -= bytes;
                    }
                    _ => {
                        // ends and starts again
                        accounts[who].release(model[who]);
                        model[who] = 0;
                    }
                }
                prop_assert_eq!(accounts[who].book().used(), model.iter().sum::<u64>());
            }
        }
    }
}
