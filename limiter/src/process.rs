//! This process' use of GPUs: its limits, its entry in the shared file, and its allocations.

use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use kerf_limiter_contract::state::Flags;

use crate::abi::{Device, Handle, OUT_OF_MEMORY, SUCCESS, SYSTEM_NOT_READY, Status};
use crate::cards::Cards;
use crate::driver;
use crate::files::Unusable;
use crate::memory::account::Refused;
use crate::memory::allocations::{Allocation, Allocations};
use crate::memory::budget::Budget;
use crate::memory::graph::Graphs;
use crate::memory::mapping::Mappings;
use crate::memory::pool::Pools;
use crate::message::{self, Topic};

/// A process that has used the driver. Made once and never freed, since threads may use it until the very end.
pub struct Process {
    pub cards: Cards,
    /// Linear memory, by pointer.
    pub pointers: Allocations,
    /// Arrays, mipmapped ones as well, by handle.
    pub arrays: Allocations,
    /// Heaps of kernels that call `malloc`, by context.
    pub heaps: Allocations,
    /// Imported memory of other interfaces, by handle.
    pub externals: Allocations,
    pub mappings: Mappings,
    pub pools: Pools,
    /// Memory that graphs allocate when they run.
    pub graphs: Graphs,
    contexts: Mutex<HashMap<usize, Context>>,
}

#[derive(Clone, Copy)]
struct Context {
    device: Device,
    card: usize,
    primary: bool,
}

static CURRENT: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());
/// State of making [`CURRENT`]. 0: not being made; 1: being made; 2: cannot be made.
static MAKING: AtomicU32 = AtomicU32::new(0);

const IDLE: u32 = 0;
const BUSY: u32 = 1;
const FAILED: u32 = 2;

/// This process; made at the first call. It needs usable limits: without them every replaced function fails with
/// `CUDA_ERROR_SYSTEM_NOT_READY`.
pub fn current() -> Result<&'static Process, Status> {
    let known = CURRENT.load(Ordering::Acquire);
    if known.is_null() {
        return make();
    }
    // SAFETY: it is only ever set to a leaked `Process`.
    Ok(unsafe { &*known })
}

#[cold]
fn make() -> Result<&'static Process, Status> {
    loop {
        match MAKING.compare_exchange(IDLE, BUSY, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break,
            Err(FAILED) => return Err(SYSTEM_NOT_READY),
            Err(_) => std::thread::yield_now(),
        }
        let known = CURRENT.load(Ordering::Acquire);
        if !known.is_null() {
            // SAFETY: it is only ever set to a leaked `Process`.
            return Ok(unsafe { &*known });
        }
    }
    let known = CURRENT.load(Ordering::Acquire);
    if !known.is_null() {
        MAKING.store(IDLE, Ordering::Release);
        // SAFETY: it is only ever set to a leaked `Process`.
        return Ok(unsafe { &*known });
    }
    match Process::open() {
        Ok(process) => {
            static HANDLER: OnceLock<()> = OnceLock::new();
            HANDLER.get_or_init(|| {
                // SAFETY: the handler only stores to atomics. A failure (no memory) leaves the child with its parent's
                // entry, where its allocations still count.
                unsafe { libc::pthread_atfork(None, None, Some(forked)) };
            });
            let process: &'static Process = Box::leak(Box::new(process));
            CURRENT.store(ptr::from_ref(process).cast_mut(), Ordering::Release);
            MAKING.store(IDLE, Ordering::Release);
            Ok(process)
        }
        Err(reason) => {
            message::once(Topic::Closed, format_args!("{reason}; this container's GPUs cannot be used"));
            MAKING.store(FAILED, Ordering::Release);
            Err(SYSTEM_NOT_READY)
        }
    }
}

/// In a child: the entry and the allocations belong to the parent. Leaked memory stays leaked, since a thread that
/// does not exist in the child may have held a lock in it.
extern "C" fn forked() {
    CURRENT.store(ptr::null_mut(), Ordering::Release);
    MAKING.store(IDLE, Ordering::Release);
    message::forget();
}

impl Process {
    fn open() -> Result<Self, Unusable> {
        Ok(Self {
            cards: Cards::open()?,
            pointers: Allocations::default(),
            arrays: Allocations::default(),
            heaps: Allocations::default(),
            externals: Allocations::default(),
            mappings: Mappings::default(),
            pools: Pools::default(),
            graphs: Graphs::default(),
            contexts: Mutex::default(),
        })
    }

    /// Reserves bytes on a GPU, after making room where that is needed and possible.
    pub fn reserve(&self, card: Option<usize>, bytes: u64) -> Result<usize, Status> {
        let index = card.ok_or(OUT_OF_MEMORY)?;
        let card = self.cards.get(index).ok_or(OUT_OF_MEMORY)?;
        if self.cards.reserve(card, bytes).is_ok() {
            return Ok(index);
        }
        self.cards.seen();
        // the driver would do the same before it returns out of memory
        if bytes <= card.account.cap() && self.make_room(index) && self.cards.reserve(card, bytes).is_ok() {
            return Ok(index);
        }
        Err(OUT_OF_MEMORY)
    }

    /// Reserves, makes the driver allocate, and gives back if that failed. `keep` remembers the allocation.
    pub fn allocate(
        &self,
        bytes: u64,
        call: impl FnOnce() -> Status,
        keep: impl FnOnce(Allocation),
    ) -> Result<(), Status> {
        let device = self.reserve(self.cards.here(), bytes)?;
        match call() {
            SUCCESS => {
                keep(Allocation { device, bytes, context: self.context(), pool: 0 });
                Ok(())
            }
            error => {
                self.release(device, bytes);
                Err(error)
            }
        }
    }

    /// Makes the driver free an allocation of a table, and gives back its counted bytes.
    pub fn free(&self, table: &Allocations, key: u64, call: impl FnOnce() -> Status) -> Status {
        let allocation = table.remove(key);
        let status = call();
        match allocation {
            Some(a) if status == SUCCESS => self.give_back(&a),
            // not freed: it is still there
            Some(a) => drop(table.insert(key, a)),
            None => {}
        }
        status
    }

    /// Gives back the counted bytes of a freed allocation.
    pub fn give_back(&self, allocation: &Allocation) {
        if allocation.pool == 0 {
            self.release(allocation.device, allocation.bytes);
        } else {
            self.pools.freed(self, allocation);
        }
    }

    pub fn release(&self, card: usize, bytes: u64) {
        if let Some(card) = self.cards.get(card) {
            card.account.release(bytes);
        }
    }

    /// Makes the driver give back memory that it keeps for later; returns whether there was anything to try.
    fn make_room(&self, card: usize) -> bool {
        let pools = self.pools.trim(self, card);
        let graphs = self.graphs.trim(self, card);
        pools || graphs
    }

    /// The calling thread's context; 0 for none.
    pub fn context(&self) -> usize {
        let mut context: Handle = ptr::null_mut();
        // SAFETY: the pointer is to a local.
        unsafe { driver::cuCtxGetCurrent(&raw mut context) };
        context as usize
    }

    /// Before a context is made on a device: counts the memory of contexts, once for this process.
    pub fn before_context(&self, device: Device) -> Result<(), Status> {
        let Some(card) = self.cards.of_device(device) else { return Ok(()) };
        let contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.cards.get(card).map_or(0, |c| c.context_bytes);
        if bytes == 0 || contexts.values().any(|c| c.card == card) {
            return Ok(());
        }
        drop(contexts);
        self.reserve(Some(card), bytes).map(drop)
    }

    /// After that: remembers the context, or gives back.
    pub fn after_context(&self, device: Device, made: Option<usize>, primary: bool) {
        let Some(card) = self.cards.of_device(device) else { return };
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        let others = contexts.values().any(|c| c.card == card);
        if let Some(context) = made {
            contexts.insert(context, Context { device, card, primary });
        } else if !others {
            self.release(card, self.cards.get(card).map_or(0, |c| c.context_bytes));
        }
    }

    /// A context is gone, with its allocations.
    pub fn context_gone(&self, context: usize) {
        for gone in [&self.pointers, &self.arrays, &self.heaps].map(|table| table.remove_context(context)).concat()
        {
            self.give_back(&gone);
        }
        for card in self.cards.all() {
            card.pacer.forget_context(context);
        }
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gone) = contexts.remove(&context)
            && !contexts.values().any(|c| c.card == gone.card)
        {
            self.release(gone.card, self.cards.get(gone.card).map_or(0, |c| c.context_bytes));
        }
    }

    /// A device's primary context was reset, or its last user has released it.
    pub fn primary_gone(&self, device: Device) {
        let (mut flags, mut active) = (0, 1);
        // SAFETY: the pointers are to locals.
        let status = unsafe { driver::cuDevicePrimaryCtxGetState(device, &raw mut flags, &raw mut active) };
        if status != SUCCESS || active != 0 {
            return;
        }
        let contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        let primary = contexts.iter().find(|(_, c)| c.device == device && c.primary).map(|(context, _)| *context);
        drop(contexts);
        if let Some(context) = primary {
            self.context_gone(context);
        }
    }
}

impl Budget for Process {
    fn here(&self) -> Option<usize> {
        self.cards.here()
    }

    fn device_of(&self, card: usize) -> Option<Device> {
        self.cards.device_of(card)
    }

    fn reserve(&self, card: usize, bytes: u64) -> Result<(), Refused> {
        self.reserve(Some(card), bytes).map(drop).map_err(|_| Refused)
    }

    fn release(&self, card: usize, bytes: u64) {
        self.release(card, bytes);
    }

    fn force(&self, card: usize, bytes: u64) {
        if let Some(card) = self.cards.get(card) {
            card.account.force(bytes);
        }
        self.cards.flag(Flags::OVER);
    }
}
