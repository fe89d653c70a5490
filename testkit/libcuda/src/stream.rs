//! Streams, events, kernels, capture.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use kerf_standin_card::card::EVENTS;

use crate::driver::{
    Driver, Event, Graph, Handle, INVALID_HANDLE, INVALID_VALUE, NOT_READY, Pool, SUCCESS, Status, Stream, card,
    in_context, instant, now, put, sleep_until, with,
};

/// Counts kernels that took no time.
static INSTANT: AtomicU64 = AtomicU64::new(0);

/// The argument of `spin`, in nanoseconds.
pub unsafe fn duration(parameters: *mut *mut u64) -> u64 {
    if parameters.is_null() { 0 } else { unsafe { **parameters } }
}

/// Queues a kernel on the GPU or in a graph.
pub fn queue(stream: Handle, nanoseconds: u64) -> Status {
    if instant() {
        INSTANT.fetch_add(1, Relaxed);
        return SUCCESS;
    }
    loop {
        let mut full = None;
        let status = in_context(|d, _| {
            let at = now();
            let of = d.streams.entry(stream).or_default();
            if let Some(graph) = of.capturing {
                d.graphs.get_mut(&graph).ok_or(INVALID_HANDLE)?.kernels.push(nanoseconds);
                return Ok(());
            }
            match card().queue(at, nanoseconds) {
                Some(work) => of.last = Some(work),
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
fn wait(work: impl Fn(&Driver) -> Option<u64>) -> Status {
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

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreate(stream: *mut Handle, _flags: c_uint) -> Status {
    in_context(|d, _| {
        let handle = d.handle();
        d.streams.insert(handle, Stream::default());
        put(stream, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: Handle) -> Status {
    with(|d| d.streams.remove(&stream).map(drop).ok_or(INVALID_HANDLE))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: Handle) -> Status {
    wait(|d| d.streams.get(&stream).and_then(|s| s.last))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize_ptsz(stream: Handle) -> Status {
    cuStreamSynchronize(stream)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> Status {
    wait(|d| d.streams.values().filter_map(|s| s.last).max())
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: Handle, _mode: c_int) -> Status {
    with(|d| {
        let graph = d.handle();
        d.graphs.insert(graph, Graph::default());
        d.streams.get_mut(&stream).ok_or(INVALID_HANDLE)?.capturing = Some(graph);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) -> Status {
    with(|d| {
        let captured = d.streams.get_mut(&stream).ok_or(INVALID_HANDLE)?.capturing.take();
        put(graph, captured.ok_or(901)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamIsCapturing(stream: Handle, status: *mut c_int) -> Status {
    let capturing = |d: &Driver| d.streams.get(&stream).is_some_and(|s| s.capturing.is_some());
    with(|d| put(status, c_int::from(capturing(d))))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetCaptureInfo_v2(
    stream: Handle,
    status: *mut c_int,
    id: *mut u64,
    graph: *mut Handle,
    _nodes: *mut c_void,
    _count: *mut usize,
) -> Status {
    with(|d| {
        let capturing = d.streams.get(&stream).and_then(|s| s.capturing);
        put(status, c_int::from(capturing.is_some()))?;
        if !id.is_null() {
            put(id, 1)?;
        }
        if !graph.is_null() {
            put(graph, capturing.unwrap_or(0))?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuThreadExchangeStreamCaptureMode(_mode: *mut c_int) -> Status {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventCreate(event: *mut Handle, _flags: c_uint) -> Status {
    in_context(|d, _| {
        let place = d.events.values().map(|e| e.place + 1).max().unwrap_or(0);
        if place as usize >= EVENTS {
            return Err(INVALID_VALUE);
        }
        let handle = d.handle();
        d.events.insert(handle, Event { place, work: None });
        put(event, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: Handle) -> Status {
    with(|d| d.events.remove(&event).map(drop).ok_or(INVALID_HANDLE))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> Status {
    if instant() {
        return with(|d| {
            d.events.get_mut(&event).ok_or(INVALID_HANDLE)?.work = Some(INSTANT.load(Relaxed));
            Ok(())
        });
    }
    in_context(|d, _| {
        let of = d.streams.entry(stream).or_default();
        if of.capturing.is_some() {
            // a captured event cannot be queried
            return Err(907);
        }
        let event = d.events.get_mut(&event).ok_or(INVALID_HANDLE)?;
        event.work = loop {
            match card().record(now(), event.place) {
                Some(work) => break Some(work),
                None => sleep_until(card().room(now())),
            }
        };
        of.last = event.work;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: Handle) -> Status {
    if instant() {
        return SUCCESS;
    }
    with(|d| {
        let event = d.events.get(&event).ok_or(INVALID_HANDLE)?;
        match event.work {
            Some(_) if card().reached(now(), event.place).is_none() => Err(NOT_READY),
            _ => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: Handle) -> Status {
    if instant() {
        return SUCCESS;
    }
    wait(|d| d.events.get(&event).and_then(|e| e.work))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) -> Status {
    if instant() {
        // four nanoseconds for each kernel in between
        return with(|d| {
            let at = |event| d.events.get(&event).and_then(|e| e.work).ok_or(INVALID_HANDLE);
            put(milliseconds, (at(end)? - at(start)?) as f32 * 4e-6)
        });
    }
    with(|d| {
        let at = |event| {
            let event: &Event = d.events.get(&event).ok_or(INVALID_HANDLE)?;
            card().reached(now(), event.place).ok_or(NOT_READY)
        };
        // the real one has half a microsecond of resolution
        let nanoseconds = (at(end)? as i64 - at(start)? as i64) / 500 * 500;
        put(milliseconds, nanoseconds as f32 / 1e6)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleLoadData(module: *mut Handle, _image: *const c_void) -> Status {
    in_context(|d, _| put(module, d.handle()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleGetFunction(function: *mut Handle, _module: Handle, _name: *const c_char) -> Status {
    in_context(|d, _| put(function, d.handle()))
}

macro_rules! launches {
    ($($name:ident),*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(
                _function: Handle, _: c_uint, _: c_uint, _: c_uint, _: c_uint, _: c_uint, _: c_uint, _: c_uint,
                stream: Handle, parameters: *mut *mut u64, _extra: *mut *mut c_void,
            ) -> Status {
                queue(stream, unsafe { duration(parameters) })
            }
        )*
    };
}

// the cooperative function has no last argument; it is not looked at
launches!(cuLaunchKernel, cuLaunchKernel_ptsz, cuLaunchCooperativeKernel);

/// The first fields of `CUlaunchConfig`.
#[repr(C)]
pub struct LaunchConfig {
    sizes: [c_uint; 7],
    stream: Handle,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernelEx(
    configuration: *const LaunchConfig,
    _function: Handle,
    parameters: *mut *mut u64,
    _extra: *mut *mut c_void,
) -> Status {
    unsafe { queue((*configuration).stream, duration(parameters)) }
}
