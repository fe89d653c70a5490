//! A stand-in for NVIDIA's driver library `libcuda.so.1`, over a simulated card ([`kerf_standin_card`]).
//!
//! It behaves at its boundary as the driver does where the limiter looks: handles and error codes, contexts that take
//! their memory with them, memory in multiples of 512 bytes, pools that grow by 32 MiB and keep memory until they are
//! trimmed or waited for, graphs whose memory comes at the first launch and stays, physical memory that lives until nothing
//! holds or maps it, streams that run in order, events, capture, and `cuGetProcAddress` with versions and per-thread default
//! streams. It knows one device, and one kernel, `spin`, which takes as many nanoseconds of the card's time as its only
//! argument says.
//!
//! | variable | |
//! | --- | --- |
//! | `STANDIN_CARD` | the card's file |
//! | `STANDIN_CARD_MIB` | makes the file where it is not there, for a card with so much memory |
//! | `NVIDIA_VISIBLE_DEVICES` | a uuid in it is the card's |
//! | `STANDIN_INSTANT` | kernels take no time, and neither they nor linear memory are booked on the card: for measuring what others add to a call |

#![allow(missing_docs, clippy::missing_safety_doc, reason = "each function is the driver's of the same name")]
#![allow(non_snake_case, reason = "the driver's own names")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::not_unsafe_ptr_arg_deref,
    reason = "all are of one kind: outputs that the caller's contract makes valid"
)]

mod entry;
mod graph;
mod memory;
mod pool;
mod stream;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{c_char, c_int, c_uint};
use std::path::Path;
use std::ptr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use kerf_standin_card::card::Card;

pub type Status = c_int;
pub const SUCCESS: Status = 0;
pub const INVALID_VALUE: Status = 1;
pub const OUT_OF_MEMORY: Status = 2;
pub const NOT_INITIALIZED: Status = 3;
pub const INVALID_DEVICE: Status = 101;
pub const INVALID_CONTEXT: Status = 201;
pub const INVALID_HANDLE: Status = 400;
pub const NOT_FOUND: Status = 500;
pub const NOT_READY: Status = 600;

/// All handles are numbers; 1 and 2 are the driver's special streams.
pub type Handle = usize;

/// The driver, in one process.
#[derive(Default)]
pub struct Driver {
    next: usize,
    /// Contexts that were made, and the primary one while it is in use.
    contexts: HashMap<Handle, ()>,
    primary: Option<(Handle, u32)>,
    pub linear: BTreeMap<u64, memory::Linear>,
    pub arrays: HashMap<Handle, (u64, Handle)>,
    pub externals: HashMap<Handle, u64>,
    pub objects: HashMap<u64, memory::Object>,
    pub ranges: BTreeMap<u64, (u64, u64)>,
    pub pools: HashMap<Handle, pool::Pool>,
    pub pool_now: Handle,
    pub graphs: HashMap<Handle, graph::Graph>,
    pub executables: HashMap<Handle, graph::Executable>,
    pub graph_reserved: u64,
    pub streams: HashMap<Handle, stream::Stream>,
    pub events: HashMap<Handle, stream::Event>,
    pub heap: u64,
}

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);
/// In a child of a process that has used the driver.
static FORKED: AtomicBool = AtomicBool::new(false);

extern "C" fn forked() {
    FORKED.store(true, Relaxed);
}
static CARD: OnceLock<Card> = OnceLock::new();

thread_local! {
    static CURRENT: Cell<Handle> = const { Cell::new(0) };
}

pub const DEFAULT_POOL: Handle = 0x1000_0001;

impl Driver {
    /// A handle that was never given before.
    pub fn handle(&mut self) -> Handle {
        self.next += 1;
        0x1000_0000 + self.next * 16
    }

    /// An address for so many bytes.
    pub fn address(&mut self, bytes: u64) -> u64 {
        let at = 0x7000_0000_0000 + ((self.next as u64) << 21);
        self.next += (bytes >> 21) as usize + 1;
        at
    }

    fn context_gone(&mut self, context: Handle) {
        let gone = |c: Handle| c == context;
        self.linear.retain(|_, l| {
            if gone(l.context) && !l.imported {
                card().give(l.bytes);
            }
            !gone(l.context)
        });
        self.arrays.retain(|_, (bytes, c)| {
            if gone(*c) {
                card().give(*bytes);
            }
            !gone(*c)
        });
        self.contexts.remove(&context);
        if CURRENT.get() == context {
            CURRENT.set(0);
        }
    }
}

/// The card that this process uses.
pub fn card() -> &'static Card {
    CARD.get().expect("initialised")
}

/// Nanoseconds of the clock that kernels run by.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Waits for a moment.
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

/// The driver's state, for a call that needs nothing else.
pub fn with(body: impl FnOnce(&mut Driver) -> Result<(), Status>) -> Status {
    // a child of a process that has used the driver cannot use it
    if FORKED.load(Relaxed) {
        return NOT_INITIALIZED;
    }
    let mut guard: MutexGuard<'_, _> = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *guard {
        Some(driver) => body(driver).map_or_else(|status| status, |()| SUCCESS),
        None => NOT_INITIALIZED,
    }
}

/// As [`with`], for a call that needs a context.
pub fn in_context(body: impl FnOnce(&mut Driver, Handle) -> Result<(), Status>) -> Status {
    with(|d| {
        let current = CURRENT.get();
        if !d.contexts.contains_key(&current) {
            return Err(INVALID_CONTEXT);
        }
        body(d, current)
    })
}

/// An output of the driver.
pub fn put<T>(place: *mut T, value: T) -> Result<(), Status> {
    if place.is_null() {
        return Err(INVALID_VALUE);
    }
    unsafe { place.write(value) };
    Ok(())
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> Status {
    if FORKED.load(Relaxed) {
        return NOT_INITIALIZED;
    }
    let mut guard = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    if guard.is_some() {
        return SUCCESS;
    }
    let Some(path) = std::env::var_os("STANDIN_CARD") else { return 100 };
    let path = Path::new(&path);
    let mib = std::env::var("STANDIN_CARD_MIB").ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(mib) = mib.filter(|_| !path.exists())
        && Card::create(path, mib << 20).is_err()
    {
        return 100;
    }
    let Ok(card) = Card::open(path) else { return 100 };
    let _ = CARD.set(card);
    let mut driver = Driver { pool_now: DEFAULT_POOL, ..Driver::default() };
    driver.pools.insert(DEFAULT_POOL, pool::Pool::default());
    *guard = Some(driver);
    unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Status {
    put(version, 12090).map_or_else(|e| e, |()| SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetCount(count: *mut c_int) -> Status {
    with(|_| put(count, 1))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> Status {
    with(|_| if ordinal == 0 { put(device, 0) } else { Err(INVALID_DEVICE) })
}

/// The card that the container was given, where it was: NVIDIA's runtime would show it that one.
fn visible() -> Option<[u8; 16]> {
    let text = std::env::var("NVIDIA_VISIBLE_DEVICES").ok()?;
    let digits: String = text.strip_prefix("GPU-")?.chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32).map(u128::to_be_bytes)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) -> Status {
    let value = visible().unwrap_or([0x53, 0xa1, 0xd0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    with(|_| if device == 0 { put(uuid, value) } else { Err(INVALID_DEVICE) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) -> Status {
    cuDeviceGetUuid(uuid, device)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, _device: c_int) -> Status {
    with(|_| {
        let text = b"Stand-in\0";
        if name.is_null() || (length as usize) < text.len() {
            return Err(INVALID_VALUE);
        }
        unsafe { ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> Status {
    with(|_| put(bytes, card().report(now()).total as usize))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Status {
    in_context(|_, _| {
        let report = card().report(now());
        put(free, (report.total - report.used) as usize)?;
        put(total, report.total as usize)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxCreate_v2(context: *mut Handle, _flags: c_uint, device: c_int) -> Status {
    with(|d| {
        if device != 0 {
            return Err(INVALID_DEVICE);
        }
        let handle = d.handle();
        d.contexts.insert(handle, ());
        CURRENT.set(handle);
        put(context, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxDestroy_v2(context: Handle) -> Status {
    with(|d| {
        if !d.contexts.contains_key(&context) {
            return Err(INVALID_CONTEXT);
        }
        d.context_gone(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetCurrent(context: *mut Handle) -> Status {
    with(|_| put(context, CURRENT.get()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: Handle) -> Status {
    with(|_| {
        CURRENT.set(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetDevice(device: *mut c_int) -> Status {
    in_context(|_, _| put(device, 0))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetLimit(limit: c_int, value: usize) -> Status {
    in_context(|d, _| {
        // the heap of kernels that call malloc is memory of the card
        if limit == 2 {
            let (before, bytes) = (d.heap, (value as u64).next_multiple_of(512));
            card().give(before);
            d.heap = if card().take(bytes) { bytes } else { 0 };
            if d.heap != bytes {
                return Err(OUT_OF_MEMORY);
            }
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) -> Status {
    with(|d| {
        if device != 0 {
            return Err(INVALID_DEVICE);
        }
        let (handle, users) = d.primary.unwrap_or_else(|| (d.handle(), 0));
        d.contexts.insert(handle, ());
        d.primary = Some((handle, users + 1));
        put(context, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> Status {
    with(|d| match d.primary {
        Some((handle, 1)) => {
            d.primary = None;
            d.context_gone(handle);
            Ok(())
        }
        Some((handle, users)) => {
            d.primary = Some((handle, users - 1));
            Ok(())
        }
        None => Err(INVALID_CONTEXT),
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxReset_v2(_device: c_int) -> Status {
    with(|d| {
        if let Some((handle, _)) = d.primary.take() {
            d.context_gone(handle);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxGetState(_device: c_int, flags: *mut c_uint, active: *mut c_int) -> Status {
    with(|d| {
        put(flags, 0)?;
        put(active, c_int::from(d.primary.is_some()))
    })
}
