//! Pools of stream-ordered memory: what they *reserve* counts, since memory that was freed into a pool stays with it.
//!
//! Only the driver knows how much a pool has. Before an allocation, the bytes by which it can make the pool grow are
//! reserved; afterwards the driver is asked, and the account is set to its answer. A pool with room reserves nothing.

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use super::allocations::{Allocation, Allocations};
use super::budget::Budget;
use super::size;
use crate::abi::{Handle, OUT_OF_MEMORY, POOL_RESERVED, POOL_USED, Pointer, SUCCESS, Status};
use crate::driver;
use crate::sync::{Mutex, MutexGuard};

/// This process' pools, by the driver's handle. The lock of all pools is never held while a pool's own is waited for: an
/// allocation that is refused looks for room in other pools while it holds its own.
#[derive(Default)]
pub struct Pools {
    all: Mutex<HashMap<usize, Arc<Pool>>>,
}

/// An allocation that a program asks for.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub pool: usize,
    pub bytes: u64,
    pub stream: Handle,
}

struct Pool {
    handle: usize,
    /// `None` for memory of the host, which does not count.
    card: Option<usize>,
    /// The handle is gone; memory that is handed out still counts. Changed under the lock of `amounts`.
    destroyed: AtomicBool,
    amounts: Mutex<Amounts>,
}

#[derive(Default)]
struct Amounts {
    /// Bytes counted for it.
    counted: u64,
    /// Bytes handed out of it.
    used: u64,
}

impl Pools {
    /// Notes a pool that was made on a GPU, or on the host, or was met for the first time.
    pub fn known(&self, handle: usize, card: Option<usize>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Pool { handle, card, destroyed: AtomicBool::new(false), amounts: Mutex::default() });
        match all.get_mut(&handle) {
            // a new pool has the handle of a destroyed one
            Some(old) if old.destroyed() => *old = new(),
            Some(_) => {}
            None => drop(all.insert(handle, new())),
        }
    }

    /// Allocates from a pool: `call` asks the driver, `pointer` returns the pointer that it gave.
    pub fn allocate(
        &self,
        budget: &dyn Budget,
        pointers: &Allocations,
        Wanted { pool, bytes, stream }: Wanted,
        call: impl FnOnce() -> Status,
        pointer: impl FnOnce() -> Pointer,
    ) -> Status {
        let pool = self.get(pool).or_else(|| {
            // a pool that this process did not make, such as a device's own
            self.known(pool, Some(budget.here()?));
            self.get(pool)
        });
        let Some(pool) = pool else { return OUT_OF_MEMORY };
        let Some(card) = pool.card else { return call() };
        let bytes = size::linear(bytes);
        let mut amounts = pool.lock();
        let mut growth = amounts.growth(bytes);
        if growth > 0 && budget.reserve(card, growth).is_err() {
            // memory that was freed meanwhile may suffice, or what is left of the pool when it is trimmed
            pool.settle(budget, &mut amounts);
            growth = amounts.growth(bytes);
            if growth > 0 && budget.reserve(card, growth).is_err() {
                // SAFETY: the pool is the program's and was not destroyed.
                unsafe { driver::cuMemPoolTrimTo(pool.handle as Handle, 0) };
                pool.settle(budget, &mut amounts);
                growth = amounts.growth(bytes);
                if growth > 0 && budget.reserve(card, growth).is_err() {
                    return OUT_OF_MEMORY;
                }
            }
        }
        amounts.counted = amounts.counted.saturating_add(growth);
        let status = call();
        if status == SUCCESS {
            amounts.used = amounts.used.saturating_add(bytes);
        } else if pool.ask(POOL_RESERVED).is_none() {
            // no pool of the driver's, or it is destroyed
            amounts.counted = amounts.counted.saturating_sub(growth);
            pool.release(budget, growth);
            return status;
        }
        if pool.settle(budget, &mut amounts) == Fit::Over && status == SUCCESS {
            // the pool was too fragmented for the memory that it had: undo
            amounts.used = amounts.used.saturating_sub(bytes);
            // SAFETY: the pointer was given a moment ago and no one else has seen it.
            unsafe {
                driver::cuMemFreeAsync(pointer(), stream);
                driver::cuMemPoolTrimTo(pool.handle as Handle, 0);
            }
            pool.settle(budget, &mut amounts);
            return OUT_OF_MEMORY;
        }
        if status == SUCCESS {
            let allocation = Allocation { device: card, bytes, context: 0, pool: pool.handle };
            pointers.insert(pointer(), allocation);
        }
        status
    }

    /// Notes that memory of a pool was freed.
    pub fn freed(&self, budget: &dyn Budget, allocation: &Allocation) {
        let Some(pool) = self.get(allocation.pool) else { return };
        let mut amounts = pool.lock();
        amounts.used = amounts.used.saturating_sub(allocation.bytes);
        if pool.destroyed() {
            let counted = amounts.counted;
            amounts.counted = amounts.used.min(counted);
            pool.release(budget, counted - amounts.counted);
        } else if allocation.bytes >= size::POOL_GRAIN {
            // the driver may have given it back at once
            pool.settle(budget, &mut amounts);
        }
    }

    /// A pool was trimmed, or a stream was waited for: pools may have shrunk.
    pub fn settle(&self, budget: &dyn Budget) {
        for pool in self.list() {
            let mut amounts = pool.lock();
            if amounts.used < amounts.counted && !pool.destroyed() {
                pool.settle(budget, &mut amounts);
            }
        }
    }

    /// Destroys a pool: memory that is handed out counts until it is freed.
    pub fn destroy(&self, budget: &dyn Budget, handle: usize, call: impl FnOnce() -> Status) -> Status {
        let Some(pool) = self.get(handle) else { return call() };
        // before the driver's call, since right after it another thread may get the same handle for a new pool
        let amounts = pool.lock();
        pool.destroyed.store(true, Ordering::Release);
        drop(amounts);
        let status = call();
        let mut amounts = pool.lock();
        if status == SUCCESS {
            let kept = amounts.used.min(amounts.counted);
            pool.release(budget, amounts.counted - kept);
            amounts.counted = kept;
        } else {
            pool.destroyed.store(false, Ordering::Release);
            pool.settle(budget, &mut amounts);
        }
        status
    }

    /// The primary context of a GPU was reset: the driver may have taken back what its pools had handed out.
    pub fn reset(&self, budget: &dyn Budget, card: usize) {
        for pool in self.list().into_iter().filter(|p| p.card == Some(card) && !p.destroyed()) {
            let mut amounts = pool.lock();
            if let Some(used) = pool.ask(POOL_USED) {
                amounts.used = used;
            }
            pool.settle(budget, &mut amounts);
        }
    }

    /// Makes the driver give back the memory that pools on a GPU keep for later; returns whether there is any.
    pub fn trim(&self, budget: &dyn Budget, card: usize) -> bool {
        let mut any = false;
        for pool in self.list().into_iter().filter(|p| p.card == Some(card)) {
            // a pool in use by another thread, or by the caller, is settled there
            let Ok(mut amounts) = pool.amounts.try_lock() else { continue };
            if pool.destroyed() || amounts.counted == 0 {
                continue;
            }
            // SAFETY: the pool is the program's and was not destroyed.
            unsafe { driver::cuMemPoolTrimTo(pool.handle as Handle, 0) };
            pool.settle(budget, &mut amounts);
            any = true;
        }
        any
    }

    fn get(&self, handle: usize) -> Option<Arc<Pool>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned()
    }

    fn list(&self) -> Vec<Arc<Pool>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// Whether the memory that the driver has taken is within the cap.
#[derive(PartialEq, Eq)]
pub enum Fit {
    Within,
    /// More was taken than could be reserved; it is counted all the same.
    Over,
}

/// Sets the counted bytes to the driver's figure.
pub fn settle(budget: &dyn Budget, card: usize, counted: &mut u64, reserved: u64) -> Fit {
    let before = *counted;
    *counted = reserved;
    if reserved <= before {
        budget.release(card, before - reserved);
        return Fit::Within;
    }
    if budget.reserve(card, reserved - before).is_ok() {
        return Fit::Within;
    }
    budget.force(card, reserved - before);
    Fit::Over
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Amounts> {
        self.amounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn destroyed(&self) -> bool {
        self.destroyed.load(Ordering::Acquire)
    }

    fn release(&self, budget: &dyn Budget, bytes: u64) {
        if let Some(card) = self.card {
            budget.release(card, bytes);
        }
    }

    fn settle(&self, budget: &dyn Budget, amounts: &mut Amounts) -> Fit {
        match (self.card, self.ask(POOL_RESERVED)) {
            (Some(card), Some(reserved)) => settle(budget, card, &mut amounts.counted, reserved),
            _ => Fit::Within,
        }
    }

    /// The driver's figure.
    fn ask(&self, attribute: c_int) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the pool is the program's, and the pointer is to a local of the attribute's type.
        let status = unsafe { driver::cuMemPoolGetAttribute(self.handle as Handle, attribute, &raw mut value) };
        (status == SUCCESS).then_some(value)
    }
}

impl Amounts {
    /// The bytes by which an allocation can make the pool grow.
    fn growth(&self, bytes: u64) -> u64 {
        size::pooled(self.used.saturating_add(bytes).saturating_sub(self.counted))
    }
}
