//! Marks as the driver's events.
//!
//! An event and the stream that it is recorded on must be of one context, which need not be the thread's. While any stream
//! is captured, asking for an event is prohibited to threads that are not in relaxed mode, and would end the capture. And
//! a mark must not become a part of a graph. So each mark is made in the context of its stream, the thread's mode is
//! relaxed for as long as it takes ([`Relaxed`]), and the driver is asked whether the stream is captured before a mark is
//! recorded.

use std::collections::HashMap;
use std::ffi::c_int;
use std::hash::BuildHasherDefault;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use super::lane::{Failed, Mark, Meter};
use crate::abi::{CAPTURE_RELAXED, EVENT_DEFAULT, Handle, NOT_FOUND, NOT_READY, SUCCESS};
use crate::memory::allocations::PointerHasher;
use crate::{clock, driver};

/// Marks that can be used again, by context.
#[derive(Default)]
pub struct Spare(Mutex<HashMap<usize, Vec<Mark>, BuildHasherDefault<PointerHasher>>>);

impl Spare {
    fn take(&self, context: usize) -> Option<Mark> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&context)?.pop()
    }

    pub fn keep(&self, context: usize, mark: Mark) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(context).or_default().push(mark);
    }

    /// The context is gone, with its events; or one of them was refused, as they all are if another context has got the
    /// handle of one that is gone.
    pub fn forget(&self, context: usize) -> Vec<Mark> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&context).unwrap_or_default()
    }
}

/// One stream's marks. The thread's mode is relaxed while it lives.
pub struct Marks<'a> {
    pub spare: &'a Spare,
    pub context: usize,
    pub stream: Handle,
    _relaxed: Relaxed,
}

impl<'a> Marks<'a> {
    pub fn new(spare: &'a Spare, context: usize, stream: usize) -> Self {
        Self { spare, context, stream: stream as Handle, _relaxed: Relaxed::enter() }
    }

    fn make(&self) -> Result<Mark, Failed> {
        let mut event = ptr::null_mut();
        // without CU_EVENT_BLOCKING_SYNC: that is an interrupt for each, and nobody waits for it
        // SAFETY: the pointer is to a local.
        let status = unsafe { driver::cuEventCreate(&raw mut event, EVENT_DEFAULT) };
        if status == SUCCESS { Ok(Mark(event as usize)) } else { Err(Failed) }
    }
}

/// Whether launches on a stream are captured instead of run. `None`: the driver does not say so; a launch fails then, too.
pub fn captured(stream: Handle) -> Option<bool> {
    let mut status: c_int = 0;
    // SAFETY: the stream is the program's, and the pointer is to a local.
    match unsafe { driver::cuStreamIsCapturing(stream, &raw mut status) } {
        SUCCESS => Some(status != 0),
        // a driver without captures
        NOT_FOUND => Some(false),
        _ => None,
    }
}

/// The context of a stream that was created; that of the thread for the special ones.
pub fn context_of(stream: Handle) -> usize {
    let mut context: Handle = ptr::null_mut();
    // SAFETY: the stream is the program's, which it is launching on; the pointers are to locals.
    unsafe {
        if driver::cuStreamGetCtx(stream, &raw mut context) != SUCCESS || context.is_null() {
            driver::cuCtxGetCurrent(&raw mut context);
        }
    }
    context as usize
}

impl Meter for Marks<'_> {
    fn now(&self) -> u64 {
        clock::now()
    }

    fn record(&mut self) -> Result<Option<Mark>, Failed> {
        if captured(self.stream) != Some(false) {
            return Ok(None);
        }
        let _inside = Inside::enter(self.context);
        let mark = match self.spare.take(self.context) {
            Some(mark) => mark,
            None => self.make()?,
        };
        // SAFETY: the event was made in the context of the stream, which the program is using.
        let status = unsafe { driver::cuEventRecord(mark.0 as Handle, self.stream) };
        if status != SUCCESS {
            discard(self.spare.forget(self.context).into_iter().chain([mark]));
            return Err(Failed);
        }
        Ok(Some(mark))
    }

    fn reached(&mut self, mark: Mark) -> Result<bool, Failed> {
        // SAFETY: the event was made by `make`, in a context that still exists.
        match unsafe { driver::cuEventQuery(mark.0 as Handle) } {
            SUCCESS => Ok(true),
            NOT_READY => Ok(false),
            _ => Err(Failed),
        }
    }

    fn elapsed(&mut self, from: Mark, to: Mark) -> Result<u64, Failed> {
        let mut milliseconds = 0.0_f32;
        // SAFETY: the events are as in `reached`, and the pointer is to a local.
        let status = unsafe { driver::cuEventElapsedTime(&raw mut milliseconds, from.0 as Handle, to.0 as Handle) };
        if status != SUCCESS {
            return Err(Failed);
        }
        Ok((f64::from(milliseconds) * 1e6).max(0.0).round() as u64)
    }

    fn recycle(&mut self, mark: Mark) {
        self.spare.keep(self.context, mark);
    }
}

/// Gives marks back to the driver that cannot be used again.
pub fn discard(marks: impl IntoIterator<Item = Mark>) {
    for mark in marks {
        // SAFETY: the event was made by `Marks::make`, and nothing refers to it any more.
        unsafe { driver::cuEventDestroy_v2(mark.0 as Handle) };
    }
}

/// While it lives, the calling thread's own calls do not disturb captures.
pub struct Relaxed(i32);

impl Relaxed {
    pub fn enter() -> Self {
        let mut mode = CAPTURE_RELAXED;
        // SAFETY: the pointer is to a local.
        unsafe { driver::cuThreadExchangeStreamCaptureMode(&raw mut mode) };
        Self(mode)
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        // SAFETY: the pointer is to this value's own field.
        unsafe { driver::cuThreadExchangeStreamCaptureMode(&raw mut self.0) };
    }
}

/// While it lives, the calling thread is in a context.
struct Inside(bool);

impl Inside {
    fn enter(context: usize) -> Self {
        let mut current: Handle = ptr::null_mut();
        // SAFETY: the pointer is to a local.
        let status = unsafe { driver::cuCtxGetCurrent(&raw mut current) };
        let other = status == SUCCESS && current as usize != context;
        // SAFETY: the context is that of a stream that the program uses.
        Self(other && unsafe { driver::cuCtxPushCurrent_v2(context as Handle) } == SUCCESS)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.0 {
            let mut popped: Handle = ptr::null_mut();
            // SAFETY: the pointer is to a local; the context was pushed by `enter`.
            unsafe { driver::cuCtxPopCurrent_v2(&raw mut popped) };
        }
    }
}
