//! Initialisation, and contexts; many allocations end with their context.

use std::ffi::c_int;

use crate::abi::{Device, Handle, LIMIT_MALLOC_HEAP, SUCCESS, Status, check};
use crate::ends::Ending;
use crate::memory::allocations::Allocation;
use crate::memory::size;
use crate::process::{self, Process};

/// The driver's own error goes first; then the limiter's, so that a program learns from its first call that it has no
/// usable limits.
pub unsafe fn init(call: impl FnOnce() -> Status) -> Result<(), Status> {
    let process = process::current();
    check(call())?;
    process.map(drop)
}

pub unsafe fn create(call: impl FnOnce() -> Status, context: *mut Handle, device: Device) -> Result<(), Status> {
    make(call, context, device, false)
}

pub unsafe fn retain(call: impl FnOnce() -> Status, context: *mut Handle, device: Device) -> Result<(), Status> {
    make(call, context, device, true)
}

fn make(call: impl FnOnce() -> Status, context: *mut Handle, device: Device, primary: bool) -> Result<(), Status> {
    let process = process::current()?;
    if context.is_null() {
        return check(call());
    }
    let bytes = process.before_context(device, primary)?;
    let status = call();
    // SAFETY: not null, and the driver has written to it if it says so.
    let handle = (status == SUCCESS).then(|| unsafe { *context });
    process.after_context(device, handle.map(|h| h as usize), primary, bytes);
    check(status)
}

pub unsafe fn destroy(call: impl FnOnce() -> Status, context: Handle) -> Result<(), Status> {
    let process = process::current()?;
    ends(process, Some(process.ending(context as usize)), call)
}

fn ends(process: &Process, ending: Option<Ending>, call: impl FnOnce() -> Status) -> Result<(), Status> {
    let result = check(call());
    match (ending, result) {
        (Some(ending), Ok(())) => process.ended(ending),
        (Some(ending), Err(_)) => process.stays(ending),
        (None, _) => {}
    }
    result
}

/// The current context gets one more user.
pub unsafe fn attach(call: impl FnOnce() -> Status, context: *const Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    // SAFETY: the driver has accepted the pointer and written to it.
    process.attached(unsafe { *context } as usize);
    Ok(())
}

/// A context loses a user, and ends with the last one.
pub unsafe fn detach(call: impl FnOnce() -> Status, context: Handle) -> Result<(), Status> {
    let process = process::current()?;
    let ending = process.detaching(context as usize);
    let goes_on = ending.is_none();
    ends(process, ending, call).inspect_err(|_| {
        if goes_on {
            process.attached(context as usize);
        }
    })
}

pub unsafe fn release(call: impl FnOnce() -> Status, device: Device) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    process.primary_gone(device, false);
    Ok(())
}

pub unsafe fn reset(call: impl FnOnce() -> Status, device: Device) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    process.primary_gone(device, true);
    Ok(())
}

/// The heap of kernels that call `malloc` is memory of the GPU.
pub unsafe fn set_limit(call: impl FnOnce() -> Status, limit: c_int, value: usize) -> Result<(), Status> {
    let process = process::current()?;
    if limit != LIMIT_MALLOC_HEAP {
        return check(call());
    }
    let (bytes, context) = (size::whole(value as u64), process.context());
    let before = process.heaps.remove(context as u64);
    let had = before.map_or(0, |a| a.bytes);
    let result = process.reserve(process.cards.here(), bytes.saturating_sub(had)).and_then(|device| {
        let status = call();
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
