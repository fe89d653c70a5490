//! A stand-in for NVIDIA's driver library `libcuda.so.1`, over a simulated GPU ([`kerf_standin_card`]).
//!
//! It behaves at its boundary as the driver does where the limiter looks: handles and error codes, contexts that take
//! their memory with them and take some for themselves, memory in pages of 2 MiB which small allocations share, pools that
//! grow by 32 MiB and keep memory until they are trimmed or waited for, graphs whose memory comes at the first launch and
//! stays, physical memory that lives until no handle or mapping refers to it, streams that run in order, and
//! `cuGetProcAddress` with versions and per-thread default streams. Events are reached some microseconds after they were
//! recorded, also on an idle GPU; streams and events belong to contexts (green ones as well) and cannot be mixed;
//! destroyed ones are refused; captures have the documented modes, and are invalidated by the calls that the documentation
//! prohibits meanwhile (`capture`).
//!
//! It has one device. Kernels compute nothing: those whose names begin with `spin` take as many nanoseconds of the GPU's time
//! as their only argument says, `fault` fails, and every call after it, and others take ten microseconds. Memory of the GPU
//! has no content; memory of the host, and managed memory, can be written to.
//!
//! NVIDIA's CUDA runtime (`libcudart`) does not get beyond its start on it: it asks for tables that are not documented
//! (`cuGetExportTable`), and tests the driver's validity (`cudaErrorSoftwareValidityNotEstablished`). This library does not
//! pass itself off as NVIDIA's.
//!
//! | variable | |
//! | --- | --- |
//! | `STANDIN_CARD` | the GPU's file |
//! | `STANDIN_CARD_MIB` | makes the file where it is missing, for a GPU with this much memory |
//! | `NVIDIA_VISIBLE_DEVICES` | a uuid in it becomes the uuid of the GPU |
//! | `STANDIN_CONTEXT_MIB` | what a context takes of the GPU for itself; 400 MiB without it |
//! | `STANDIN_CUDA_VERSION` | the version of CUDA that the driver says it has; 12090 without it |
//! | `STANDIN_INSTANT` | kernels take no time, and neither they nor linear memory are booked on the GPU: to measure the cost that others add to a call |
//! | `STANDIN_LAUNCH_NS`, `STANDIN_RECORD_NS`, `STANDIN_QUERY_NS` | what a launch (4000), recording an event (1500) and asking for one (500) cost the calling thread; with `STANDIN_INSTANT` nothing |
//! | `STANDIN_LOAD_NS` | what the first launch of a function costs in addition, as with lazy loading: 0 |

#![allow(missing_docs, clippy::missing_safety_doc, reason = "each function is the driver's of the same name")]
#![allow(non_snake_case, reason = "the driver's own names")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::not_unsafe_ptr_arg_deref,
    reason = "all are of one kind: outputs that the caller's contract makes valid"
)]

mod capture;
mod context;
mod copy;
mod device;
mod driver;
mod entry;
mod error;
mod event;
mod graph;
mod host;
mod memory;
mod module;
mod object;
mod pointer;
mod pool;
mod stream;
mod user;

use std::ffi::{c_char, c_int, c_uint};
use std::path::Path;
use std::ptr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use kerf_standin_card::card::Card;

use crate::driver::{
    CARD, DEFAULT_POOL, DRIVER, Driver, FORKED, INVALID_DEVICE, INVALID_VALUE, NOT_INITIALIZED, OUT_OF_MEMORY,
    PAGE, Pool, SUCCESS, Status, card, forked, in_context, now, put, with,
};

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
    driver.pools.insert(DEFAULT_POOL, Pool::default());
    *guard = Some(driver);
    unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Status {
    let set = std::env::var("STANDIN_CUDA_VERSION").ok().and_then(|text| text.parse().ok());
    put(version, set.unwrap_or(12090)).map_or_else(|e| e, |()| SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetCount(count: *mut c_int) -> Status {
    with(|_| put(count, 1))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> Status {
    with(|_| if ordinal == 0 { put(device, 0) } else { Err(INVALID_DEVICE) })
}

/// The uuid of the GPU that the container was given, if any: NVIDIA's runtime would show it that GPU.
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
pub extern "C" fn cuCtxSetLimit(limit: c_int, value: usize) -> Status {
    in_context(|d, _| {
        // the heap of kernels that call malloc is memory of the GPU
        if limit == 2 {
            let (before, bytes) = (d.heap, (value as u64).next_multiple_of(PAGE));
            card().give(before);
            d.heap = if card().take(bytes) { bytes } else { 0 };
            if d.heap != bytes {
                return Err(OUT_OF_MEMORY);
            }
        }
        Ok(())
    })
}
