//! This process' use of GPUs: its limits, its entry in the shared file, and its allocations.

pub mod contexts;
pub mod leaving;

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use kerf_limiter_contract::state::Flags;

use crate::abi::{Device, Handle, OUT_OF_MEMORY, SUCCESS, SYSTEM_NOT_READY, Status};
use crate::cards::{Cards, View};
use crate::driver;
use crate::files::Unusable;
use crate::memory::account::Refused;
use crate::memory::allocations::{Allocation, Allocations};
use crate::memory::budget::Budget;
use crate::memory::graph::Graphs;
use crate::memory::mapping::{Freed, Mappings};
use crate::memory::pages::Pages;
use crate::memory::pool::Pools;
use crate::memory::sharing::{Opened, Sharing};
use crate::memory::size;
use crate::memory::sum::Book;
use crate::message::{self, Topic};
use crate::pace::events;
use crate::pace::streams::Key;
use contexts::Contexts;
use leaving::{Leaving, Left};

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
    /// Linear memory that other processes have as well.
    pub sharing: Sharing,
    /// Linear memory that is freed in the order of a stream.
    pub leaving: Leaving,
    pages: Pages,
    pub contexts: Contexts,
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

/// The account of the GPU with this uuid, also for a process that only asks; `None` for one that the limits do not name.
/// A process that does not use GPUs takes no entry of the shared file by it.
pub fn book(uuid: &str) -> Result<Option<&'static Book>, Status> {
    static VIEW: AtomicPtr<View> = AtomicPtr::new(ptr::null_mut());
    let process = CURRENT.load(Ordering::Acquire);
    if !process.is_null() {
        // SAFETY: it is only ever set to a leaked `Process`.
        return Ok(unsafe { &*process }.cards.of_uuid(uuid));
    }
    let mut view = VIEW.load(Ordering::Acquire);
    if view.is_null() {
        let opened = View::open().map_err(|reason| {
            closed(&reason);
            SYSTEM_NOT_READY
        })?;
        // of two threads the later one's stays; the other's is in use
        view = Box::into_raw(Box::new(opened));
        VIEW.store(view, Ordering::Release);
    }
    // SAFETY: it is only ever set to a leaked `View`.
    Ok(unsafe { &*view }.of_uuid(uuid))
}

fn closed(reason: &Unusable) {
    message::once(Topic::Closed, format_args!("{reason}; this container's GPUs cannot be used"));
}

#[cold]
fn make() -> Result<&'static Process, Status> {
    // before anything that a child must not inherit. Of threads that come here at once, each may register it
    static HANDLED: AtomicBool = AtomicBool::new(false);
    if !HANDLED.load(Ordering::Acquire) {
        // SAFETY: the handler only stores to atomics. A failure (no memory) leaves the child with its parent's entry, where
        // its allocations still count.
        unsafe { libc::pthread_atfork(None, None, Some(forked)) };
        HANDLED.store(true, Ordering::Release);
    }
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
            let process: &'static Process = Box::leak(Box::new(process));
            CURRENT.store(ptr::from_ref(process).cast_mut(), Ordering::Release);
            MAKING.store(IDLE, Ordering::Release);
            Ok(process)
        }
        Err(reason) => {
            closed(&reason);
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
            sharing: Sharing::default(),
            leaving: Leaving::default(),
            pages: Pages::default(),
            contexts: Contexts::default(),
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
        if bytes <= card.account.book().cap() && self.make_room(index) && self.cards.reserve(card, bytes).is_ok() {
            return Ok(index);
        }
        Err(OUT_OF_MEMORY)
    }

    /// Counts an allocation in a context, before the driver makes it.
    pub fn count(&self, card: Option<usize>, bytes: u64, context: usize) -> Result<Allocation, Status> {
        let device = card.ok_or(OUT_OF_MEMORY)?;
        let made = Allocation { device, bytes, context, pool: 0 };
        if bytes >= size::LARGE {
            let bytes = size::whole(bytes);
            return self.reserve(card, bytes).map(|device| Allocation { device, bytes, ..made });
        }
        let release = |rest| self.release(device, rest);
        self.pages.add(context, bytes, |more| self.reserve(card, more).map(drop), release)?;
        Ok(made)
    }

    /// Counts, makes the driver allocate, and gives back if that failed. `keep` remembers the allocation.
    pub fn allocate(
        &self,
        bytes: u64,
        call: impl FnOnce() -> Status,
        keep: impl FnOnce(Allocation),
    ) -> Result<(), Status> {
        let made = self.count(self.cards.here(), bytes, self.context())?;
        match call() {
            SUCCESS => {
                keep(made);
                Ok(())
            }
            error => {
                self.give_back(&made);
                Err(error)
            }
        }
    }

    /// Makes the driver free an allocation of a table, and gives back its counted bytes.
    pub fn free(&self, table: &Allocations, key: u64, call: impl FnOnce() -> Status) -> Status {
        let allocation = table.remove(key);
        let status = call();
        match allocation {
            Some(a) if status == SUCCESS => {
                if ptr::eq(table, &raw const self.pointers) {
                    self.unshare(key);
                }
                self.give_back(&a);
            }
            // not freed: it is still there
            Some(a) => drop(table.insert(key, a)),
            None => {}
        }
        status
    }

    /// Makes the driver free linear memory in the order of a stream.
    pub fn free_later(&self, pointer: u64, stream: Handle, call: impl FnOnce() -> Status) -> Status {
        let (key, on) = (Key::of(stream, || self.context()), events::context_of(stream));
        let allocation = self.pointers.remove(pointer);
        let status = call();
        match allocation {
            Some(allocation) if status == SUCCESS => {
                let ticket = self.sharing.freed(pointer);
                self.leaving.add(key, Left { allocation, ticket, on });
            }
            Some(allocation) => drop(self.pointers.insert(pointer, allocation)),
            None => {}
        }
        status
    }

    /// Gives back memory that was freed in the order of a stream.
    pub fn left(&self, gone: Vec<(Key, Left)>) {
        for (_, Left { allocation, ticket, .. }) in gone {
            ticket.into_iter().for_each(|ticket| self.cards.leave_to_others(ticket));
            self.give_back(&allocation);
        }
    }

    /// Gives back the counted bytes of a freed allocation.
    pub fn give_back(&self, allocation: &Allocation) {
        if allocation.pool != 0 {
            self.pools.freed(self, allocation);
        } else if allocation.bytes >= size::LARGE {
            self.release(allocation.device, allocation.bytes);
        } else {
            self.release(allocation.device, self.pages.remove(allocation.context, allocation.bytes));
        }
    }

    /// Memory that others may have open is freed, and about to be given back.
    pub fn unshare(&self, pointer: u64) {
        if let Some(ticket) = self.sharing.freed(pointer) {
            self.cards.leave_to_others(ticket);
        }
        // opened in a context that is gone
        self.closed(self.sharing.closed(pointer), None);
    }

    /// Memory of another process is closed.
    pub fn closed(&self, opened: Option<Opened>, allocation: Option<Allocation>) {
        if let Some(Opened { ticket: Some(ticket), pays, .. }) = opened {
            if pays { self.cards.leave_to_others(ticket) } else { self.cards.close_shared(ticket) }
        }
        allocation.iter().for_each(|allocation| self.give_back(allocation));
    }

    /// Gives back physical memory that this process no longer has.
    pub fn physical_freed(&self, freed: Freed) {
        for gone in freed {
            gone.offered.into_iter().for_each(|ticket| self.cards.leave_to_others(ticket));
            gone.opened.into_iter().for_each(|ticket| self.cards.close_shared(ticket));
            self.release(gone.card, gone.bytes);
        }
    }

    pub fn release(&self, card: usize, bytes: u64) {
        if let Some(card) = self.cards.get(card) {
            card.account.release(bytes);
        }
    }

    /// Makes the driver give back memory that it keeps for later; returns whether there was anything to try.
    pub fn make_room(&self, card: usize) -> bool {
        let pools = self.pools.trim(self, card);
        let graphs = self.graphs.trim(self, card);
        let (exported, left) = (self.mappings.sweep(), self.leaving.gone(|| self.context()));
        let any = !exported.is_empty() || !left.is_empty();
        self.physical_freed(exported);
        self.left(left);
        pools || graphs || any
    }

    /// The calling thread's context; 0 for none.
    pub fn context(&self) -> usize {
        let mut context: Handle = ptr::null_mut();
        // SAFETY: the pointer is to a local.
        unsafe { driver::cuCtxGetCurrent(&raw mut context) };
        context as usize
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
