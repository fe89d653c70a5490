//! What processes and threads do at the same time, and what must hold then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::abi::Device;
use crate::memory::account::{Account, Refused};
use crate::memory::allocations::Allocations;
use crate::memory::budget::Budget;
use crate::memory::liveness::Liveness;
use crate::memory::pool::{Pools, Wanted};
use crate::memory::shared;
use crate::memory::sum::Book;
use crate::schedule::{Actor, Scenario};
use crate::state::State;
use crate::{blank, driver, memory};

fn account(state: &'static State, cap: u64, slot: usize) -> Account {
    state.header.high.fetch_max(slot as u32 + 1, Ordering::SeqCst);
    state.processes[slot].owner.store(slot as u64 + 1, Ordering::SeqCst);
    Account::new(Book::new(state, 0, cap, None), slot)
}

/// Processes that each reserve once; the check gets which of them got it.
fn reservations(cap: u64, each: Vec<u64>, check: impl FnOnce(&[bool]) + 'static) -> Scenario {
    let state = blank();
    let got: Arc<Vec<AtomicU64>> = Arc::new(each.iter().map(|_| AtomicU64::new(0)).collect());
    // what the driver would have given out at any time
    let given = Arc::new(AtomicU64::new(0));
    let actors = each.into_iter().enumerate().map(|(slot, bytes)| {
        let (account, got, given) = (account(state, cap, slot), got.clone(), given.clone());
        Actor::new(move || {
            if account.reserve(bytes, &Liveness::default()).is_ok() {
                assert!(given.fetch_add(bytes, Ordering::SeqCst) + bytes <= cap, "above the cap");
                got[slot].store(1, Ordering::SeqCst);
            }
        })
    });
    let actors = actors.collect();
    let check = move || {
        let got: Vec<bool> = got.iter().map(|got| got.load(Ordering::SeqCst) == 1).collect();
        assert_eq!(Book::new(state, 0, cap, None).used(), given.load(Ordering::SeqCst));
        check(&got);
    };
    Scenario { actors, check: Box::new(check) }
}

/// Two processes reserve what only one of them can have.
pub fn two_that_fit_one() -> Scenario {
    reservations(100, vec![60, 70], |got| assert_ne!(got[0], got[1], "none, or both"))
}

/// Three processes reserve what two of them can have.
pub fn three_of_which_two_fit() -> Scenario {
    let two = |got: &[bool]| assert_eq!(got.iter().filter(|got| **got).count(), 2);
    reservations(100, vec![40, 40, 40], two)
}

/// A process releases what another one waits for.
pub fn a_release_beside_a_reservation() -> Scenario {
    let state = blank();
    let (a, b) = (account(state, 100, 0), account(state, 100, 1));
    a.reserve(60, &Liveness::default()).unwrap();
    let b = Arc::new(b);
    let other = b.clone();
    let reserve = move || {
        let fits = other.reserve(60, &Liveness::default()).is_ok();
        let used = other.book().used();
        assert!(if fits { (60..=120).contains(&used) } else { used <= 60 }, "{fits} {used}");
    };
    let actors = vec![Actor::new(move || a.release(60)), Actor::new(reserve)];
    let check = move || {
        // whatever the answer was: now there is room for one more or for two
        let used = b.book().used();
        assert_eq!(b.reserve(100 - used, &Liveness::default()), Ok(()));
    };
    Scenario { actors, check: Box::new(check) }
}

/// A process is killed anywhere in a reservation.
pub fn a_kill_in_a_reservation() -> Scenario {
    /// Tells who asks that the process is gone.
    struct Life(Liveness);

    impl Drop for Life {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.end();
            }
        }
    }

    let state = blank();
    let (victim, other) = (account(state, 100, 0), Arc::new(account(state, 100, 1)));
    let liveness = Liveness::of_one_that_may_end(0);
    let (beside, life, known) = (other.clone(), Life(liveness.clone()), liveness.clone());
    let die = move || {
        let _life = life;
        let _ = victim.reserve(80, &Liveness::default());
    };
    let reserve = move || {
        let _ = beside.reserve(50, &known);
    };
    let actors = vec![Actor::mortal(die), Actor::new(reserve)];
    let check = move || {
        // killed there or ended afterwards: the next in need gives back what it has left
        liveness.end();
        let had = other.book().state().devices[0].held[1].load(Ordering::SeqCst);
        assert_eq!(other.reserve(100 - had, &liveness), Ok(()));
    };
    Scenario { actors, check: Box::new(check) }
}

const KEY: u64 = 7;

/// The process of slot 0 has 60 of 100 bytes, which that of slot 1 has open.
fn exported() -> (&'static State, Account, shared::Ticket) {
    let state = blank();
    let exporter = account(state, 100, 0);
    state.header.high.fetch_max(3, Ordering::SeqCst);
    exporter.reserve(60, &Liveness::default()).unwrap();
    let ticket = shared::offer(state, 0, 0, KEY, 60).unwrap();
    shared::open(state, 1, 0, KEY).unwrap();
    (state, exporter, ticket)
}

/// At no moment there is room for 50 more.
fn never_room(state: &'static State, liveness: Liveness, does: impl FnOnce() + Send + 'static) -> Scenario {
    let third = account(state, 100, 2);
    let reserve = move || assert_eq!(third.reserve(50, &liveness), Err(Refused));
    let check = move || assert_eq!(Book::new(state, 0, 100, None).used(), 60);
    Scenario { actors: vec![Actor::new(does), Actor::new(reserve)], check: Box::new(check) }
}

/// An exporter frees memory that another process has open.
pub fn an_exporter_that_frees() -> Scenario {
    let (state, exporter, ticket) = exported();
    never_room(state, Liveness::default(), move || {
        shared::leave_to_others(state, 0, ticket);
        exporter.release(60);
    })
}

/// An exporter has ended, and is cleared while others ask.
pub fn an_exporter_that_ended() -> Scenario {
    let (state, ..) = exported();
    never_room(state, Liveness::default(), move || {
        Liveness::of_the_dead(0).reap(state);
    })
}

/// A process whose pools the driver gives nothing back of.
struct Process {
    account: Account,
    pools: Pools,
}

impl Budget for Process {
    fn here(&self) -> Option<usize> {
        Some(0)
    }

    fn device_of(&self, _: usize) -> Option<Device> {
        Some(0)
    }

    fn reserve(&self, card: usize, bytes: u64) -> Result<(), Refused> {
        let reserve = || self.account.reserve(bytes, &Liveness::default());
        reserve().or_else(|refused| if self.pools.trim(self, card) { reserve() } else { Err(refused) })
    }

    fn release(&self, _: usize, bytes: u64) {
        self.account.release(bytes);
    }

    fn force(&self, _: usize, bytes: u64) {
        self.account.force(bytes);
    }
}

/// Two threads allocate from pools, pieces of the given number, where one fits into the cap.
fn pools(of: [usize; 2], pieces: u64) -> Scenario {
    let piece = memory::size::POOL_GRAIN;
    let process = Arc::new(Process { account: account(blank(), piece, 0), pools: Pools::default() });
    driver::reset();
    let actors = of.map(|pool| {
        let process = process.clone();
        Actor::new(move || {
            let wanted = Wanted { pool, bytes: pieces * piece, stream: std::ptr::null_mut() };
            let allocate = || driver::grow(pool, pieces * piece);
            process.pools.allocate(&*process, &Allocations::default(), wanted, allocate, || pool as u64);
        })
    });
    let check = move || assert_eq!(process.account.book().used(), driver::reserved(1) + driver::reserved(2));
    Scenario { actors: actors.into(), check: Box::new(check) }
}

/// Two threads meet a pool each for the first time, and there is room for one.
pub fn pools_near_the_cap() -> Scenario {
    pools([1, 2], 1)
}

/// Two threads meet one pool for the first time, and neither gets what it wants.
pub fn a_pool_beyond_the_cap() -> Scenario {
    pools([1, 1], 2)
}
