//! Streams, and kernels on them.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::driver::{
    Cost, Driver, FAULTED, Handle, INVALID_HANDLE, NOT_READY, Pool, STREAM_PER_THREAD, SUCCESS, Status, Stream,
    card, in_context, instant, now, put, sleep_until, spend, with,
};
use crate::module::{self, nanoseconds};

/// Counts kernels that took no time.
pub static INSTANT: AtomicU64 = AtomicU64::new(0);

/// Queues kernels on the GPU or in a graph.
pub fn queue(stream: Handle, kernels: &[u64]) -> Status {
    spend(Cost::Launch);
    for nanoseconds in kernels {
        let status = push(stream, *nanoseconds);
        if status != SUCCESS {
            return status;
        }
    }
    SUCCESS
}

fn push(stream: Handle, nanoseconds: u64) -> Status {
    if instant() {
        INSTANT.fetch_add(1, Relaxed);
        return SUCCESS;
    }
    loop {
        let mut full = None;
        let status = in_context(|d, _| {
            let key = d.stream(stream)?;
            d.not_implicit(key)?;
            if let Some(graph) = d.captured_into(key)? {
                d.graphs.get_mut(&graph).ok_or(INVALID_HANDLE)?.kernels.push(nanoseconds);
                return Ok(());
            }
            let at = now();
            match card().queue(at, nanoseconds) {
                Some(work) => d.streams.get_mut(&key).ok_or(INVALID_HANDLE)?.last = Some(work),
                // as long as the GPU's queue is full the program waits
                None => full = Some(card().room(at)),
            }
            Ok(())
        });
        match full {
            None => return status,
            Some(moment) => sleep_until(moment),
        }
    }
}

/// Blocks until work is done; streams that are waited for let pools shrink.
pub fn wait(work: impl Fn(&Driver) -> Option<u64>) -> Status {
    loop {
        let mut until = None;
        let status = with(|d| {
            if let Some(work) = work(d)
                && let Err(moment) = card().finished(now(), work)
            {
                until = Some(moment);
                return Ok(());
            }
            d.pools.values_mut().for_each(Pool::settled);
            Ok(())
        });
        match until {
            None => return status,
            Some(moment) => sleep_until(moment),
        }
    }
}

/// Waits for all work of the calling thread's context.
pub fn wait_for_all() -> Status {
    wait(|d| d.streams.values().filter_map(|s| s.last).max())
}

/// `CU_STREAM_NON_BLOCKING` is 1.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreate(stream: *mut Handle, flags: c_uint) -> Status {
    in_context(|d, context| {
        let handle = d.handle();
        d.streams.insert(handle, Stream { context, blocking: flags & 1 == 0, last: None, capture: None });
        put(stream, handle)
    })
}

/// All have the same priority here.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreateWithPriority(stream: *mut Handle, flags: c_uint, _priority: c_int) -> Status {
    cuStreamCreate(stream, flags)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetPriority(stream: Handle, priority: *mut c_int) -> Status {
    with(|d| d.stream(stream).and_then(|_| put(priority, 0)))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetFlags(stream: Handle, flags: *mut c_uint) -> Status {
    with(|d| {
        let key = d.stream(stream)?;
        let blocking = d.streams.get(&key).is_none_or(|s| s.blocking);
        put(flags, c_uint::from(!blocking))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: Handle) -> Status {
    with(|d| {
        d.stream(stream)?;
        let gone = d.streams.remove(&stream).ok_or(INVALID_HANDLE)?;
        if gone.last.is_none_or(|work| card().finished(now(), work).is_ok()) {
            d.waited(|(on, _)| *on == stream);
        }
        Ok(())
    })
}

/// The stream's key, for a call that is prohibited during captures.
fn asked(d: &mut Driver, stream: Handle) -> Result<Handle, Status> {
    let key = d.stream(stream)?;
    d.not_captured(key)?;
    d.not_implicit(key)?;
    d.unsafe_call()?;
    Ok(key)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: Handle) -> Status {
    spend(Cost::Query);
    with(|d| {
        let key = asked(d, stream)?;
        match d.streams.get(&key).and_then(|s| s.last) {
            Some(work) if card().finished(now(), work).is_err() => Err(NOT_READY),
            _ => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: Handle) -> Status {
    let mut key = 0;
    let status = with(|d| {
        key = asked(d, stream)?;
        Ok(())
    });
    let status = if status != SUCCESS { status } else { wait(|d| d.streams.get(&key).and_then(|s| s.last)) };
    if status == SUCCESS {
        with(|d| {
            d.waited(|(stream, _)| *stream == key);
            Ok(())
        });
    }
    status
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize_ptsz(stream: Handle) -> Status {
    cuStreamSynchronize(if stream == 0 { STREAM_PER_THREAD } else { stream })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> Status {
    let status = in_context(|d, _| d.unsafe_call());
    let status = if status != SUCCESS { status } else { wait_for_all() };
    if status == SUCCESS {
        with(|d| {
            d.waited(|_| true);
            Ok(())
        });
    }
    status
}

/// Launches a function.
fn launch(function: Handle, stream: Handle, nanoseconds: u64) -> Status {
    load(function);
    let status = queue(stream, &[nanoseconds]);
    if module::fails(function) {
        FAULTED.store(true, Relaxed);
    }
    status
}

/// The first launch of a function loads its code.
fn load(function: Handle) {
    static COST: OnceLock<Option<u64>> = OnceLock::new();
    let Some(cost) = COST.get_or_init(|| std::env::var("STANDIN_LOAD_NS").ok()?.parse().ok()) else { return };
    let mut first = false;
    with(|d| {
        first = d.loaded.insert(function);
        Ok(())
    });
    if first {
        sleep_until(now() + cost);
    }
}

macro_rules! launches {
    ($($name:ident($own:expr)),*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(
                function: Handle, _: c_uint, _: c_uint, _: c_uint, _: c_uint, _: c_uint, _: c_uint, _: c_uint,
                stream: Handle, parameters: *mut *mut u64, _extra: *mut *mut c_void,
            ) -> Status {
                launch(function, if stream == 0 { $own } else { stream }, unsafe { nanoseconds(function, parameters) })
            }
        )*
    };
}

// the cooperative function has no last argument; it is not looked at
launches!(
    cuLaunchKernel(0),
    cuLaunchKernel_ptsz(STREAM_PER_THREAD),
    cuLaunchCooperativeKernel(0),
    cuLaunchCooperativeKernel_ptsz(STREAM_PER_THREAD)
);

/// The first fields of `CUlaunchConfig`.
#[repr(C)]
pub struct LaunchConfig {
    sizes: [c_uint; 7],
    stream: Handle,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernelEx(
    configuration: *const LaunchConfig,
    function: Handle,
    parameters: *mut *mut u64,
    _extra: *mut *mut c_void,
) -> Status {
    unsafe { launch(function, (*configuration).stream, nanoseconds(function, parameters)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernelEx_ptsz(
    configuration: *const LaunchConfig,
    function: Handle,
    parameters: *mut *mut u64,
    _extra: *mut *mut c_void,
) -> Status {
    let stream = match unsafe { (*configuration).stream } {
        0 => STREAM_PER_THREAD,
        stream => stream,
    };
    launch(function, stream, unsafe { nanoseconds(function, parameters) })
}

/// Runs on the host, when all work before it is done; before this call returns, in the stand-in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(
    stream: Handle,
    function: unsafe extern "C" fn(*mut c_void),
    data: *mut c_void,
) -> Status {
    let mut key = 0;
    let status = with(|d| {
        key = d.stream(stream)?;
        d.not_captured(key)
    });
    if status != SUCCESS {
        return status;
    }
    let status = wait(|d| d.streams.get(&key).and_then(|s| s.last));
    unsafe { function(data) };
    status
}
