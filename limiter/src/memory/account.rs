//! The container's account of one GPU's memory, shared by its processes.
//!
//! Each process writes one entry of its own. To reserve, it first writes the amount that it will hold (`taken`), then
//! adds up all entries, and takes the amount back where the sum is above the cap. Of two that ask at the same time the
//! later one sees the earlier, whatever the interleaving, so the cap holds to the byte; a process that is killed at
//! any point leaves only its entry, which the next process in need clears. There is no lock between processes.

use std::hint;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, PoisonError};
use std::thread;

use kerf_limiter_contract::state::{Device, Flags, MAX_PROCESSES, State};

use super::liveness::Liveness;

/// Attempts while another process asks at the same moment; after that it is taken to have stopped.
const PATIENCE: u32 = 20_000;

/// This process' part of one GPU's account.
pub struct Account {
    state: &'static State,
    device: usize,
    cap: u64,
    slot: usize,
    /// Bytes that this process holds. Its entry in the shared file is written under this lock only and must be equal.
    held: Mutex<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl Account {
    /// `slot` is the entry of this process.
    pub fn new(state: &'static State, device: usize, cap: u64, slot: usize) -> Self {
        Self { state, device, cap, slot, held: Mutex::new(0) }
    }

    pub fn cap(&self) -> u64 {
        self.cap
    }

    /// Bytes that all processes of the container hold.
    pub fn used(&self) -> u64 {
        self.sum(|device, slot| device.held[slot].load(SeqCst))
    }

    /// Reserves all of `bytes` for this process, or nothing.
    pub fn reserve(&self, bytes: u64, liveness: &Liveness) -> Result<(), Refused> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.mend(*held);
        let (Some(device), true) = (self.device(), bytes <= self.cap) else { return Err(self.refuse()) };
        let wanted = held.saturating_add(bytes);
        let mut reaped = false;
        for attempt in 1..=PATIENCE {
            device.taken[self.slot].store(wanted, SeqCst);
            if self.sum(|device, slot| device.taken[slot].load(SeqCst)) <= self.cap {
                device.held[self.slot].store(wanted, SeqCst);
                *held = wanted;
                return Ok(());
            }
            device.taken[self.slot].store(*held, SeqCst);
            if self.settled().saturating_add(bytes) > self.cap {
                // no room, unless a process has ended
                if reaped || !liveness.reap(self.state) {
                    return Err(self.refuse());
                }
                reaped = true;
            } else {
                // there is room, but another process asks as well: the one with the lower entry asks again sooner
                if attempt % 256 == 0 {
                    liveness.reap(self.state);
                }
                for _ in 0..(attempt % 64) * (self.slot as u32 % 8 + 1) {
                    hint::spin_loop();
                }
                thread::yield_now();
            }
        }
        Err(self.refuse())
    }

    /// Adds bytes that the driver has taken already, whatever the cap is.
    pub fn force(&self, bytes: u64) {
        self.change(|held| held.saturating_add(bytes));
    }

    pub fn release(&self, bytes: u64) {
        self.change(|held| held.saturating_sub(bytes));
    }

    fn change(&self, to: impl FnOnce(u64) -> u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.mend(*held);
        *held = to(*held);
        if let Some(device) = self.device() {
            device.held[self.slot].store(*held, SeqCst);
            device.taken[self.slot].store(*held, SeqCst);
        }
    }

    /// Corrects this process' entry where another process has changed it.
    fn mend(&self, held: u64) {
        let Some(device) = self.device() else { return };
        if device.held[self.slot].load(SeqCst) != held || device.taken[self.slot].load(SeqCst) != held {
            self.state.header.flags.fetch_or(Flags::OVERWRITTEN.0, SeqCst);
            device.taken[self.slot].store(held, SeqCst);
            device.held[self.slot].store(held, SeqCst);
        }
    }

    fn refuse(&self) -> Refused {
        if let Some(device) = self.device() {
            device.refused.fetch_add(1, SeqCst);
        }
        Refused
    }

    /// The sum of all entries, read twice until it is the same: bytes that move from one process to another during
    /// the addition would otherwise count twice.
    fn settled(&self) -> u64 {
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
        let high = (self.state.header.high.load(SeqCst) as usize).clamp(self.slot + 1, MAX_PROCESSES);
        let Some(device) = self.device() else { return u64::MAX };
        (0..high).fold(0_u64, |sum, slot| sum.saturating_add(of(device, slot)))
    }

    fn device(&self) -> Option<&'static Device> {
        self.state.devices.get(self.device)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use proptest::prelude::*;

    use super::*;
    use crate::memory::liveness::Liveness;

    /// A separate state, as a mapped file would be.
    pub fn state() -> &'static State {
        // SAFETY: all of it is atomic integers, for which zero bytes are a value. Boxed zeroed, since it is large.
        unsafe { Box::leak(Box::<State>::new_zeroed().assume_init()) }
    }

    fn account(state: &'static State, cap: u64, slot: usize) -> Account {
        state.header.high.fetch_max(slot as u32 + 1, SeqCst);
        state.processes[slot].owner.store(slot as u64 + 1, SeqCst);
        Account::new(state, 0, cap, slot)
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
        assert_eq!((a.used(), state.devices[0].refused.load(SeqCst)), (1000, 2));
    }

    #[test]
    fn an_entry_that_was_overwritten_is_put_right_and_told() {
        let (state, alive) = (state(), Liveness::everybody());
        let a = account(state, 1000, 0);
        a.reserve(600, &alive).unwrap();
        state.devices[0].held[0].store(0, SeqCst);
        state.devices[0].taken[0].store(0, SeqCst);
        assert_eq!(a.reserve(401, &alive), Err(Refused));
        assert_eq!(a.used(), 600);
        assert_eq!(Flags(state.header.flags.load(SeqCst)), Flags::OVERWRITTEN);
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
                prop_assert_eq!(accounts[who].used(), model.iter().sum::<u64>());
            }
        }
    }
}
