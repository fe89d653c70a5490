//! Launching kernels.

use std::ffi::c_uint;
use std::ptr;
use std::slice;

use crate::abi::{Handle, LaunchConfig, LaunchParams, Status, check};
use crate::pace::events::captured;
use crate::pace::lane::Work;
use crate::process::{self, Process};

/// Launches as soon as the container may.
pub fn paced(process: &Process, stream: Handle, work: Work, call: impl FnOnce() -> Status) -> Status {
    let Some(card) = process.cards.here().and_then(|card| process.cards.get(card)) else { return call() };
    // a launch that is captured is not run now; one on a stream that the driver does not answer for fails
    if !card.pacer.paces() || captured(stream) != Some(false) {
        return call();
    }
    card.pacer.launch(stream, work, || process.context(), call)
}

pub unsafe fn kernel(call: impl FnOnce() -> Status, stream: Handle) -> Result<(), Status> {
    check(paced(process::current()?, stream, Work::Kernel, call))
}

/// `own` maps the stream in the configuration to the stream that is meant.
pub unsafe fn kernel_ex(
    call: impl FnOnce() -> Status,
    configuration: *const LaunchConfig,
    own: impl FnOnce(Handle) -> Handle,
) -> Result<(), Status> {
    let process = process::current()?;
    if configuration.is_null() {
        return check(call());
    }
    // SAFETY: not null, and the program passes a configuration.
    let stream = own(unsafe { (*configuration).stream });
    check(paced(process, stream, Work::Kernel, call))
}

/// On several devices at once: paced as one launch on the first of its streams.
pub unsafe fn cooperative_devices(
    call: impl FnOnce() -> Status,
    list: *const LaunchParams,
    count: c_uint,
) -> Result<(), Status> {
    let process = process::current()?;
    if list.is_null() || count == 0 {
        return check(call());
    }
    // SAFETY: not null, and the program passes a list of that length.
    let first = unsafe { slice::from_raw_parts(list, count as usize) }.first();
    check(paced(process, first.map_or(ptr::null_mut(), |l| l.stream), Work::Kernel, call))
}
