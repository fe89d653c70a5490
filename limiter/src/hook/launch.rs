//! Launching kernels.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;
use std::slice;
use std::sync::atomic::Ordering::Relaxed;

use super::capture::{captured, own_stream};
use crate::abi::{Handle, LaunchConfig, LaunchParams, Status};
use crate::pace::Work;
use crate::process::{self, Process};
use crate::table::check;

/// The arguments of most launches, in the driver's order.
type Parameters = *mut *mut c_void;

/// Launches when the container may.
pub fn paced(process: &Process, stream: Handle, work: Work, call: impl FnOnce() -> Status) -> Status {
    let Some(card) = process.here().and_then(|card| process.card(card)) else { return call() };
    if !card.pacer.paces() || captured(process, stream) {
        return call();
    }
    let capturing = process.captures.load(Relaxed) > 0;
    card.pacer.launch(capturing, || process.context(), stream, work, call)
}

#[expect(clippy::too_many_arguments, reason = "as the driver's")]
pub unsafe fn kernel<const PER_THREAD: bool>(
    real: real!(Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, Parameters, Parameters),
    function: Handle,
    gx: c_uint,
    gy: c_uint,
    gz: c_uint,
    bx: c_uint,
    by: c_uint,
    bz: c_uint,
    shared: c_uint,
    stream: Handle,
    parameters: Parameters,
    extra: Parameters,
) -> Result<(), Status> {
    let process = process::current()?;
    check(paced(process, own_stream::<PER_THREAD>(stream), Work::Kernel, || {
        driver!(real(function, gx, gy, gz, bx, by, bz, shared, stream, parameters, extra))
    }))
}

pub unsafe fn kernel_ex<const PER_THREAD: bool>(
    real: real!(*const LaunchConfig, Handle, Parameters, Parameters),
    configuration: *const LaunchConfig,
    function: Handle,
    parameters: Parameters,
    extra: Parameters,
) -> Result<(), Status> {
    let process = process::current()?;
    let call = || driver!(real(configuration, function, parameters, extra));
    if configuration.is_null() {
        return check(call());
    }
    // SAFETY: not null, and the program passes a configuration.
    let stream = own_stream::<PER_THREAD>(unsafe { (*configuration).stream });
    check(paced(process, stream, Work::Kernel, call))
}

#[expect(clippy::too_many_arguments, reason = "as the driver's")]
pub unsafe fn cooperative<const PER_THREAD: bool>(
    real: real!(Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, Parameters),
    function: Handle,
    gx: c_uint,
    gy: c_uint,
    gz: c_uint,
    bx: c_uint,
    by: c_uint,
    bz: c_uint,
    shared: c_uint,
    stream: Handle,
    parameters: Parameters,
) -> Result<(), Status> {
    let process = process::current()?;
    check(paced(process, own_stream::<PER_THREAD>(stream), Work::Kernel, || {
        driver!(real(function, gx, gy, gz, bx, by, bz, shared, stream, parameters))
    }))
}

/// On several devices at once: paced as one launch on the first of its streams.
pub unsafe fn cooperative_devices(
    real: real!(*mut LaunchParams, c_uint, c_uint),
    list: *mut LaunchParams,
    count: c_uint,
    flags: c_uint,
) -> Result<(), Status> {
    let process = process::current()?;
    let call = || driver!(real(list, count, flags));
    if list.is_null() || count == 0 {
        return check(call());
    }
    // SAFETY: not null, and the program passes that many.
    let first = unsafe { slice::from_raw_parts(list, count as usize) }.first();
    check(paced(process, first.map_or(ptr::null_mut(), |l| l.stream), Work::Kernel, call))
}

pub unsafe fn plain(real: real!(Handle), function: Handle) -> Result<(), Status> {
    check(paced(process::current()?, ptr::null_mut(), Work::Kernel, || driver!(real(function))))
}

pub unsafe fn grid(
    real: real!(Handle, c_int, c_int),
    function: Handle,
    width: c_int,
    height: c_int,
) -> Result<(), Status> {
    let call = || driver!(real(function, width, height));
    check(paced(process::current()?, ptr::null_mut(), Work::Kernel, call))
}

pub unsafe fn grid_async(
    real: real!(Handle, c_int, c_int, Handle),
    function: Handle,
    width: c_int,
    height: c_int,
    stream: Handle,
) -> Result<(), Status> {
    let call = || driver!(real(function, width, height, stream));
    check(paced(process::current()?, stream, Work::Kernel, call))
}
