//! The driver's state in one process, and helpers that all its functions use.

mod taking;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kerf_standin_card::card::Card;

use crate::object::User;

pub type Status = c_int;
pub const SUCCESS: Status = 0;
pub const INVALID_VALUE: Status = 1;
pub const OUT_OF_MEMORY: Status = 2;
pub const NOT_INITIALIZED: Status = 3;
pub const INVALID_DEVICE: Status = 101;
pub const INVALID_CONTEXT: Status = 201;
pub const INVALID_HANDLE: Status = 400;
pub const ILLEGAL_STATE: Status = 401;
pub const NOT_FOUND: Status = 500;
pub const NOT_READY: Status = 600;
pub const ILLEGAL_ADDRESS: Status = 700;
pub const NOT_SUPPORTED: Status = 801;

/// All handles are numbers; 1 and 2 are the driver's special streams.
pub type Handle = usize;

pub struct Linear {
    pub bytes: u64,
    pub context: Handle,
    /// 0 for none.
    pub pool: Handle,
    /// The piece of the card that several processes have; 0 for none.
    pub piece: u64,
    /// How often memory of another process was opened; 0 for memory of this one.
    pub opens: u32,
    /// Its addresses are the host's as well.
    pub managed: bool,
}

impl Linear {
    pub fn new(bytes: u64, context: Handle, pool: Handle) -> Self {
        Self { bytes, context, pool, piece: 0, opens: 0, managed: false }
    }
}

pub struct Object {
    pub bytes: u64,
    pub handles: u32,
    pub maps: u32,
    /// Of the host: takes none of the card.
    pub host: bool,
    /// As of [`Linear`].
    pub piece: u64,
}

/// The card's memory is taken in pages of this many bytes.
pub const PAGE: u64 = 2 << 20;
/// Allocations from this size on have pages of their own; smaller ones of a context share pages.
pub const LARGE: u64 = 1 << 20;

#[derive(Default)]
pub struct Pool {
    pub reserved: u64,
    pub used: u64,
    pub threshold: u64,
    /// Of the host: takes none of the card.
    pub host: bool,
}

impl Pool {
    pub fn alloc(&mut self, bytes: u64) -> Result<(), Status> {
        let growth = (self.used + bytes).saturating_sub(self.reserved).next_multiple_of(GRAIN);
        if growth > 0 && !self.host && !card().take(growth) {
            return Err(OUT_OF_MEMORY);
        }
        self.reserved += growth;
        self.used += bytes;
        Ok(())
    }

    pub fn freed(&mut self, bytes: u64) {
        self.used -= bytes;
    }

    pub fn trim(&mut self, keep: u64) {
        let keep = self.used.max(keep).next_multiple_of(GRAIN).min(self.reserved);
        if !self.host {
            card().give(self.reserved - keep);
        }
        self.reserved = keep;
    }

    pub fn settled(&mut self) {
        self.trim(self.threshold.min(self.reserved));
    }
}

#[derive(Clone, Default)]
pub struct Graph {
    pub kernels: Vec<u64>,
    /// Bytes that the graph allocates.
    pub memory: u64,
    /// What it keeps alive, a reference each.
    pub users: Vec<(Handle, Arc<User>)>,
}

pub struct Executable {
    pub graph: Graph,
}

/// A stream. Those that are not created have one of these for each context as well ([`Driver::stream`]).
pub struct Stream {
    pub context: Handle,
    /// Whether the legacy stream waits for it, and it for the legacy stream.
    pub blocking: bool,
    /// The number of the last work on it.
    pub last: Option<u64>,
    pub capture: Option<Capture>,
}

/// A capture that has begun on a stream and not ended.
pub struct Capture {
    /// The graph that the stream is captured into.
    pub graph: Handle,
    /// `CUstreamCaptureMode`.
    pub mode: c_int,
    /// The thread that has begun it.
    pub thread: u64,
    /// It ends without a graph.
    pub invalid: bool,
}

pub struct Event {
    pub context: Handle,
    /// Its number on the GPU.
    pub place: u32,
    /// The number of its work on the GPU.
    pub work: Option<u64>,
    /// It was last recorded in a capture.
    pub captured: bool,
}

#[derive(Default)]
pub struct Driver {
    pub next: usize,
    /// Created contexts, and the primary one while it is in use.
    pub contexts: HashMap<Handle, ()>,
    /// Users of a context, besides who created it.
    pub attached: HashMap<Handle, u32>,
    pub primary: Option<(Handle, u32)>,
    pub linear: BTreeMap<u64, Linear>,
    /// Memory that was freed on a stream, of no pool: it is given back when the stream is waited for.
    pub leaving: Vec<(Handle, Linear)>,
    pub arrays: HashMap<Handle, (u64, Handle)>,
    pub externals: HashMap<Handle, u64>,
    pub objects: HashMap<u64, Object>,
    pub ranges: BTreeMap<u64, (u64, u64)>,
    pub pools: HashMap<Handle, Pool>,
    pub pool_now: Handle,
    pub graphs: HashMap<Handle, Graph>,
    pub executables: HashMap<Handle, Executable>,
    pub graph_reserved: u64,
    /// Graphs with memory that may still run: the stream, the last work, the bytes.
    pub graphs_running: Vec<(Handle, u64, u64)>,
    pub libraries: HashSet<Handle>,
    /// Functions that were launched before.
    pub loaded: HashSet<Handle>,
    /// Contexts of green contexts.
    pub green: HashMap<Handle, Handle>,
    pub streams: HashMap<Handle, Stream>,
    pub events: HashMap<Handle, Event>,
    /// Objects of the host, by handle: the references that the program has.
    pub users: HashMap<Handle, Vec<Arc<User>>>,
    /// Memory of the host: addresses and bytes.
    pub host: HashMap<u64, usize>,
    pub heap: u64,
    /// Bytes of small allocations, by context.
    pub small: HashMap<Handle, u64>,
    /// How often this process has each shared piece of the card.
    pub pieces: HashMap<u64, u32>,
}

pub static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);
/// Set in a child of a process that has used the driver.
pub static FORKED: AtomicBool = AtomicBool::new(false);

/// Set once a kernel has failed: every later call does.
pub static FAULTED: AtomicBool = AtomicBool::new(false);

pub extern "C" fn forked() {
    FORKED.store(true, Relaxed);
}
pub static CARD: OnceLock<Card> = OnceLock::new();

thread_local! {
    pub static CURRENT: Cell<Handle> = const { Cell::new(0) };
    /// Contexts below the current one.
    pub static BELOW: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// Bytes by which a pool grows.
const GRAIN: u64 = 32 << 20;

pub const DEFAULT_POOL: Handle = 0x1000_0001;
/// `CU_STREAM_LEGACY`; 0 means it as well.
pub const STREAM_LEGACY: Handle = 1;
/// `CU_STREAM_PER_THREAD`.
pub const STREAM_PER_THREAD: Handle = 2;
/// Of memory that has outlived its pool.
pub const OF_NO_POOL: Handle = 3;

impl Driver {
    /// A handle that was never used before.
    pub fn handle(&mut self) -> Handle {
        self.next += 1;
        0x1000_0000 + self.next * 16
    }

    /// An address for an allocation of this many bytes.
    pub fn address(&mut self, bytes: u64) -> u64 {
        let at = 0x7000_0000_0000 + ((self.next as u64) << 21);
        self.next += (bytes >> 21) as usize + 1;
        at
    }

    /// Gives back memory that was freed on streams.
    pub fn waited(&mut self, which: impl Fn(&(Handle, Linear)) -> bool) {
        let gone: Vec<_> = self.leaving.extract_if(.., |left| which(left)).collect();
        gone.iter().for_each(|(_, linear)| self.free(linear));
    }

    pub fn context_gone(&mut self, context: Handle) {
        self.waited(|(_, linear)| linear.context == context);
        let gone: Vec<u64> = self.linear.iter().filter(|(_, l)| l.context == context).map(|(at, _)| *at).collect();
        for at in gone {
            if let Some(linear) = self.linear.remove(&at) {
                self.free(&linear);
            }
        }
        let arrays: Vec<Handle> = self.arrays.iter().filter(|(_, a)| a.1 == context).map(|(at, _)| *at).collect();
        for at in arrays {
            if let Some((bytes, context)) = self.arrays.remove(&at) {
                self.give(context, bytes);
            }
        }
        self.attached.remove(&context);
        if self.contexts.remove(&context).is_some() {
            card().give(context_bytes());
        }
        self.streams.retain(|_, stream| stream.context != context);
        self.events.retain(|_, event| event.context != context);
        if CURRENT.get() == context {
            CURRENT.set(0);
        }
    }

    /// The key of a stream that a call in the current context names. The special streams are of that context; handles
    /// are multiples of 16.
    pub fn stream(&mut self, stream: Handle) -> Result<Handle, Status> {
        if stream > STREAM_PER_THREAD {
            if !self.streams.contains_key(&stream) {
                // undefined in the real driver: a test sees it in the output
                eprintln!("stand-in: a stream that does not exist was used");
                return Err(INVALID_HANDLE);
            }
            return Ok(stream);
        }
        let context = CURRENT.get();
        if !self.contexts.contains_key(&context) {
            return Err(INVALID_CONTEXT);
        }
        let key = context + stream.max(STREAM_LEGACY);
        self.streams.entry(key).or_insert(Stream { context, blocking: true, last: None, capture: None });
        Ok(key)
    }
}

/// What a context takes of the card. The driver does not tell; on data centre GPUs it is some hundreds of MiB.
pub fn context_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    let given = || std::env::var("STANDIN_CONTEXT_MIB").ok().and_then(|text| text.parse::<u64>().ok());
    *BYTES.get_or_init(|| given().unwrap_or(400) << 20)
}

/// The GPU that this process uses.
pub fn card() -> &'static Card {
    CARD.get().expect("initialised")
}

/// Nanoseconds of the clock that kernels run by.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub fn sleep_until(moment: u64) {
    let time = libc::timespec {
        tv_sec: (moment / 1_000_000_000) as libc::time_t,
        tv_nsec: (moment % 1_000_000_000) as libc::c_long,
    };
    unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const time, ptr::null_mut());
    }
}

/// Whether kernels take no time.
pub fn instant() -> bool {
    static INSTANT: OnceLock<bool> = OnceLock::new();
    *INSTANT.get_or_init(|| std::env::var_os("STANDIN_INSTANT").is_some())
}

/// Calls that cost the calling thread time: variable, and nanoseconds unless it is set. Of the order that NVIDIA's
/// driver takes on a current machine.
#[derive(Clone, Copy)]
pub enum Cost {
    /// A launch.
    Launch,
    /// `cuEventRecord`.
    Record,
    /// `cuEventQuery`, `cuEventElapsedTime`, `cuStreamQuery`.
    Query,
}

/// Lets the time pass that a call costs. Called without the driver's lock.
pub fn spend(cost: Cost) {
    static COSTS: OnceLock<[u64; 3]> = OnceLock::new();
    static SIMULATED: OnceLock<bool> = OnceLock::new();
    let costs = COSTS.get_or_init(|| {
        [("STANDIN_LAUNCH_NS", 4000), ("STANDIN_RECORD_NS", 1500), ("STANDIN_QUERY_NS", 500)].map(
            |(name, usual)| {
                let set = std::env::var(name).ok().and_then(|text| text.parse().ok());
                set.unwrap_or(if instant() { 0 } else { usual })
            },
        )
    });
    let nanoseconds = costs[cost as usize];
    if nanoseconds == 0 {
        return;
    }
    let until = now() + nanoseconds;
    if *SIMULATED.get_or_init(|| std::env::var_os("STANDIN_CLOCK").is_some()) {
        sleep_until(until);
    }
    while now() < until {
        std::hint::spin_loop();
    }
}

/// The driver's state, for a call that needs nothing else.
pub fn with(body: impl FnOnce(&mut Driver) -> Result<(), Status>) -> Status {
    // a child of a process that has used the driver cannot use it
    if FORKED.load(Relaxed) {
        return NOT_INITIALIZED;
    }
    let mut guard: MutexGuard<'_, _> = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *guard {
        Some(_) if FAULTED.load(Relaxed) => ILLEGAL_ADDRESS,
        Some(driver) => body(driver).map_or_else(|status| status, |()| SUCCESS),
        None => NOT_INITIALIZED,
    }
}

/// Like [`with`], for a call that needs a context.
pub fn in_context(body: impl FnOnce(&mut Driver, Handle) -> Result<(), Status>) -> Status {
    with(|d| {
        let current = CURRENT.get();
        if !d.contexts.contains_key(&current) {
            return Err(INVALID_CONTEXT);
        }
        body(d, current)
    })
}

/// Writes an output of the driver.
pub fn put<T>(place: *mut T, value: T) -> Result<(), Status> {
    if place.is_null() {
        return Err(INVALID_VALUE);
    }
    unsafe { place.write(value) };
    Ok(())
}
