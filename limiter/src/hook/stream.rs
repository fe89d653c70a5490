//! Streams: waiting for them, destroying them, and capturing launches on them.

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;

use crate::abi::{Handle, STREAM_PER_THREAD, SUCCESS, Status, check};
use crate::driver;
use crate::process::{self, Process};

/// The stream that a handle means to a function for per-thread default streams: 0 is the calling thread's.
pub fn per_thread(stream: Handle) -> Handle {
    if stream.is_null() { STREAM_PER_THREAD as Handle } else { stream }
}

/// Whether launches on a stream are captured instead of run.
pub(crate) fn captured(process: &Process, stream: Handle) -> bool {
    if process.captures.load(Relaxed) == 0 {
        return false;
    }
    let mut status: c_int = 0;
    // SAFETY: the stream is the program's, and the pointer is to a local.
    unsafe { driver::cuStreamIsCapturing(stream, &raw mut status) == SUCCESS && status != 0 }
}

/// The graph that a stream is captured into.
pub(crate) fn graph_of(process: &Process, stream: Handle) -> Option<usize> {
    if process.captures.load(Relaxed) == 0 {
        return None;
    }
    let (mut status, mut id, mut graph) = (0, 0, ptr::null_mut());
    // SAFETY: the stream is the program's, the pointers are to locals, and null is allowed for the others.
    let answer = unsafe {
        driver::cuStreamGetCaptureInfo_v2(
            stream,
            &raw mut status,
            &raw mut id,
            &raw mut graph,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    (answer == SUCCESS && status != 0).then_some(graph as usize)
}

/// The program waits: the work that it waits for is measured exactly, and pools may have shrunk.
pub unsafe fn wait(call: impl FnOnce() -> Status, stream: Option<Handle>) -> Result<(), Status> {
    let process = process::current()?;
    let card = process.cards.here().and_then(|card| process.cards.get(card));
    // marks would break a capture
    if let Some(card) = card
        && card.pacer.paces()
        && process.captures.load(Relaxed) == 0
    {
        card.pacer.close(process.context(), stream);
    }
    check(call())?;
    if let Some(card) = card
        && card.pacer.paces()
        && process.captures.load(Relaxed) == 0
    {
        card.pacer.harvest();
    }
    process.pools.settle(process);
    Ok(())
}

pub unsafe fn destroy(call: impl FnOnce() -> Status, stream: Handle) -> Result<(), Status> {
    let process = process::current()?;
    if let Some(card) = process.cards.here().and_then(|card| process.cards.get(card))
        && process.captures.load(Relaxed) == 0
    {
        card.pacer.retire(process.context(), stream);
    }
    check(call())
}

pub unsafe fn end_capture(call: impl FnOnce() -> Status, stream: Handle) -> Result<(), Status> {
    let process = process::current()?;
    let capturing = captured(process, stream);
    let status = call();
    // a failed capture has ended as well
    if capturing {
        process.captures.fetch_sub(1, Relaxed);
    }
    check(status)
}

/// Counted before the driver begins, so that another thread cannot put a mark in between.
pub unsafe fn begin_capture(call: impl FnOnce() -> Status) -> Result<(), Status> {
    let process = process::current()?;
    process.captures.fetch_add(1, Relaxed);
    let status = call();
    if status != SUCCESS {
        process.captures.fetch_sub(1, Relaxed);
    }
    check(status)
}
