//! Captures of streams, and which calls they prohibit, as NVIDIA documents them for `cuStreamBeginCapture` and
//! `cuThreadExchangeStreamCaptureMode`.
//!
//! Some calls are "potentially unsafe" while a stream is captured: they wait, or ask whether work is done. A thread may
//! not make them while it has begun a capture that is not relaxed, or while any thread has begun one in global mode; what
//! the thread's own mode excepts. Such a call fails and invalidates the captures, whose end then fails too.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::driver::{
    Capture, Driver, Graph, Handle, ILLEGAL_STATE, INVALID_VALUE, STREAM_LEGACY, SUCCESS, Status, instant, put,
    with,
};

const GLOBAL: c_int = 0;
const THREAD_LOCAL: c_int = 1;
const RELAXED: c_int = 2;

/// `CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED`
pub const UNSUPPORTED: Status = 900;
/// `CUDA_ERROR_STREAM_CAPTURE_INVALIDATED`
const INVALIDATED: Status = 901;
/// `CUDA_ERROR_STREAM_CAPTURE_IMPLICIT`
const IMPLICIT: Status = 906;
/// `CUDA_ERROR_CAPTURED_EVENT`
pub const CAPTURED_EVENT: Status = 907;
/// `CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD`
const WRONG_THREAD: Status = 908;

thread_local! {
    static MODE: Cell<c_int> = const { Cell::new(GLOBAL) };
    static THREAD: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Relaxed)
    };
}

impl Driver {
    /// A potentially unsafe call of this thread.
    pub fn unsafe_call(&mut self) -> Result<(), Status> {
        let (mode, thread) = (MODE.get(), THREAD.with(|thread| *thread));
        let prohibits = |c: &Capture| {
            let own = c.thread == thread && c.mode != RELAXED;
            match mode {
                GLOBAL => own || (c.thread != thread && c.mode == GLOBAL),
                THREAD_LOCAL => own,
                _ => false,
            }
        };
        let captures = self.streams.values_mut().filter_map(|s| s.capture.as_mut());
        let mut any = false;
        for capture in captures.filter(|c| prohibits(c)) {
            capture.invalid = true;
            any = true;
        }
        if any { Err(UNSUPPORTED) } else { Ok(()) }
    }

    /// A call that waits for a stream, or asks for its work: in any mode it cannot be done on one that is captured.
    pub fn not_captured(&mut self, key: Handle) -> Result<(), Status> {
        match self.streams.get_mut(&key).and_then(|s| s.capture.as_mut()) {
            Some(capture) => {
                capture.invalid = true;
                Err(UNSUPPORTED)
            }
            None => Ok(()),
        }
    }

    /// New work on the legacy stream would have to wait for captured work of its context.
    pub fn not_implicit(&mut self, key: Handle) -> Result<(), Status> {
        if self.implicit(key) { self.invalidate_blocking(key) } else { Ok(()) }
    }

    fn implicit(&self, key: Handle) -> bool {
        let context = key & !0xf;
        key & 0xf == STREAM_LEGACY
            && self.streams.values().any(|s| s.context == context && s.blocking && s.capture.is_some())
    }

    fn invalidate_blocking(&mut self, key: Handle) -> Result<(), Status> {
        for stream in self.streams.values_mut().filter(|s| s.context == key & !0xf && s.blocking) {
            if let Some(capture) = &mut stream.capture {
                capture.invalid = true;
            }
        }
        Err(IMPLICIT)
    }

    /// The graph that a stream is captured into, for a call that is captured with it.
    pub fn captured_into(&self, key: Handle) -> Result<Option<Handle>, Status> {
        match self.streams.get(&key).and_then(|s| s.capture.as_ref()) {
            Some(capture) if capture.invalid => Err(INVALIDATED),
            Some(capture) => Ok(Some(capture.graph)),
            None => Ok(None),
        }
    }
}

fn begin(stream: Handle, graph: Option<Handle>, mode: c_int) -> Status {
    with(|d| {
        let key = d.stream(stream)?;
        if key & 0xf == STREAM_LEGACY {
            return Err(UNSUPPORTED);
        }
        if !(GLOBAL..=RELAXED).contains(&mode) {
            return Err(INVALID_VALUE);
        }
        let graph = graph.unwrap_or_else(|| d.handle());
        d.graphs.entry(graph).or_insert_with(Graph::default);
        let stream = d.streams.get_mut(&key).filter(|s| s.capture.is_none()).ok_or(ILLEGAL_STATE)?;
        let thread = THREAD.with(|thread| *thread);
        stream.capture = Some(Capture { graph, mode, thread, invalid: false });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: Handle, mode: c_int) -> Status {
    begin(stream, None, mode)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCaptureToGraph(
    stream: Handle,
    graph: Handle,
    _after: *const Handle,
    _edges: *const c_void,
    _count: usize,
    mode: c_int,
) -> Status {
    begin(stream, Some(graph), mode)
}

/// A way to begin a capture that came with CUDA 13.3; the limiter does not replace it. What the callback would tell is
/// not called.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginRecaptureToGraph(
    stream: Handle,
    mode: c_int,
    graph: Handle,
    _callback: *const c_void,
    _data: *const c_void,
) -> Status {
    begin(stream, Some(graph), mode)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) -> Status {
    with(|d| {
        let key = d.stream(stream)?;
        let thread = THREAD.with(|thread| *thread);
        let place = &mut d.streams.get_mut(&key).ok_or(ILLEGAL_STATE)?.capture;
        if place.as_ref().is_some_and(|c| c.mode != RELAXED && c.thread != thread) {
            return Err(WRONG_THREAD);
        }
        let capture = place.take().ok_or(ILLEGAL_STATE)?;
        if capture.invalid {
            d.graphs.remove(&capture.graph);
            put(graph, 0)?;
            return Err(INVALIDATED);
        }
        put(graph, capture.graph)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamIsCapturing(stream: Handle, status: *mut c_int) -> Status {
    if instant() {
        // nothing is captured there; the real one takes as little
        return put(status, 0).map_or_else(|error| error, |()| SUCCESS);
    }
    with(|d| {
        let key = d.stream(stream)?;
        if d.implicit(key) {
            // documented: the capture is not invalidated
            return Err(IMPLICIT);
        }
        put(status, d.streams.get(&key).and_then(|s| s.capture.as_ref()).map_or(0, |c| 1 + c_int::from(c.invalid)))
    })
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
        let key = d.stream(stream)?;
        if d.implicit(key) {
            return Err(IMPLICIT);
        }
        let capture = d.streams.get(&key).and_then(|s| s.capture.as_ref());
        put(status, capture.map_or(0, |c| 1 + c_int::from(c.invalid)))?;
        if !id.is_null() {
            put(id, 1)?;
        }
        if !graph.is_null() {
            put(graph, capture.map_or(0, |c| c.graph))?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuThreadExchangeStreamCaptureMode(mode: *mut c_int) -> Status {
    with(|_| {
        let wanted = unsafe { mode.as_ref() }.copied().filter(|m| (GLOBAL..=RELAXED).contains(m));
        put(mode, MODE.replace(wanted.ok_or(INVALID_VALUE)?))
    })
}
