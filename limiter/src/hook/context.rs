//! The beginning, and contexts, with which much of what was allocated ends.

use std::ffi::{c_int, c_uint, c_void};

use super::capture::waiting;
use crate::abi::{Device, Handle, LIMIT_MALLOC_HEAP, SUCCESS, Status};
use crate::memory::allocations::Allocation;
use crate::memory::size;
use crate::process;
use crate::table::check;

/// The driver's own error first where it has one; then the limiter's, so that a program learns that it has no usable
/// limits from the first call that it makes.
pub unsafe fn init(real: real!(c_uint), flags: c_uint) -> Result<(), Status> {
    let process = process::current();
    check(driver!(real(flags)))?;
    process.map(drop)
}

pub unsafe fn create(
    real: real!(*mut Handle, c_uint, Device),
    context: *mut Handle,
    flags: c_uint,
    device: Device,
) -> Result<(), Status> {
    made(context, device, false, || driver!(real(context, flags, device)))
}

pub unsafe fn create3(
    real: real!(*mut Handle, *mut c_void, c_int, c_uint, Device),
    context: *mut Handle,
    parameters: *mut c_void,
    count: c_int,
    flags: c_uint,
    device: Device,
) -> Result<(), Status> {
    made(context, device, false, || driver!(real(context, parameters, count, flags, device)))
}

pub unsafe fn create4(
    real: real!(*mut Handle, *mut c_void, c_uint, Device),
    context: *mut Handle,
    parameters: *mut c_void,
    flags: c_uint,
    device: Device,
) -> Result<(), Status> {
    made(context, device, false, || driver!(real(context, parameters, flags, device)))
}

pub unsafe fn retain(real: real!(*mut Handle, Device), context: *mut Handle, device: Device) -> Result<(), Status> {
    made(context, device, true, || driver!(real(context, device)))
}

fn made(context: *mut Handle, device: Device, primary: bool, call: impl FnOnce() -> Status) -> Result<(), Status> {
    let process = process::current()?;
    if context.is_null() {
        return check(call());
    }
    process.before_context(device)?;
    let status = call();
    // SAFETY: not null, and written to where the driver says so.
    let handle = (status == SUCCESS).then(|| unsafe { *context });
    process.after_context(device, handle.map(|h| h as usize), primary);
    check(status)
}

pub unsafe fn destroy(real: real!(Handle), context: Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(context)))?;
    process.context_gone(context as usize);
    Ok(())
}

/// Releasing and resetting.
pub unsafe fn release(real: real!(Device), device: Device) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(device)))?;
    process.primary_gone(device);
    Ok(())
}

/// The heap of kernels that call `malloc` is memory of the card.
pub unsafe fn set_limit(real: real!(c_int, usize), limit: c_int, value: usize) -> Result<(), Status> {
    let process = process::current()?;
    if limit != LIMIT_MALLOC_HEAP {
        return check(driver!(real(limit, value)));
    }
    let (bytes, context) = (size::linear(value as u64), process.context());
    let before = process.heaps.remove(context as u64);
    let had = before.map_or(0, |a| a.bytes);
    let result = process.reserve(process.here(), bytes.saturating_sub(had)).and_then(|device| {
        let status = driver!(real(limit, value));
        if status != SUCCESS {
            process.release(device, bytes.saturating_sub(had));
            return Err(status);
        }
        process.release(device, had.saturating_sub(bytes));
        Ok(Allocation { device, bytes, context, pool: 0 })
    });
    if let Some(now) = result.ok().or(before) {
        process.heaps.insert(context as u64, now);
    }
    result.map(drop)
}

pub unsafe fn synchronize(real: real!()) -> Result<(), Status> {
    waiting(None, || driver!(real()))
}

pub unsafe fn synchronize2(real: real!(Handle), context: Handle) -> Result<(), Status> {
    waiting(None, || driver!(real(context)))
}
