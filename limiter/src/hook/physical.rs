//! Physical memory and its mapping: `cuMemCreate` and related functions.

use std::ffi::{c_uint, c_ulonglong, c_void};
use std::slice;

use crate::abi::{ArrayMap, LOCATION_DEVICE, OPERATION_MAP, Pointer, Properties, SUCCESS, Status, check};
use crate::process;

pub unsafe fn create(
    call: impl FnOnce() -> Status,
    handle: *mut c_ulonglong,
    bytes: usize,
    properties: *const Properties,
) -> Result<(), Status> {
    let process = process::current()?;
    if handle.is_null() || properties.is_null() {
        return check(call());
    }
    // SAFETY: not null, and the program passes properties.
    let Properties { location, id, .. } = unsafe { *properties };
    if location != LOCATION_DEVICE {
        // host memory
        return check(call());
    }
    let card = process.reserve(process.cards.of_device(id), bytes as u64)?;
    let status = call();
    if status == SUCCESS {
        // SAFETY: not null, and the driver has just written to it.
        process.mappings.created(unsafe { *handle }, card, bytes as u64);
    } else {
        process.release(card, bytes as u64);
    }
    check(status)
}

pub unsafe fn release(call: impl FnOnce() -> Status, handle: c_ulonglong) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    if let Some((card, bytes)) = process.mappings.released(handle) {
        process.release(card, bytes);
    }
    Ok(())
}

pub unsafe fn map(
    call: impl FnOnce() -> Status,
    pointer: Pointer,
    bytes: usize,
    offset: usize,
    handle: c_ulonglong,
) -> Result<(), Status> {
    let process = process::current()?;
    let (card, more) =
        process.mappings.wants(handle, (offset as u64).saturating_add(bytes as u64)).unwrap_or((0, 0));
    if more > 0 {
        process.reserve(Some(card), more)?;
    }
    let status = call();
    if status == SUCCESS {
        process.mappings.mapped(handle, pointer, bytes as u64, more);
    } else {
        process.release(card, more);
    }
    check(status)
}

pub unsafe fn unmap(call: impl FnOnce() -> Status, pointer: Pointer, bytes: usize) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    for (card, bytes) in process.mappings.unmapped(pointer, bytes as u64) {
        process.release(card, bytes);
    }
    Ok(())
}

pub unsafe fn retain(
    call: impl FnOnce() -> Status,
    handle: *mut c_ulonglong,
    address: *mut c_void,
) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    // SAFETY: the driver has accepted the pointer and written to it.
    process.mappings.retained(unsafe { *handle }, address as u64);
    Ok(())
}

pub unsafe fn export(call: impl FnOnce() -> Status, handle: c_ulonglong) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    process.mappings.escaped(handle);
    Ok(())
}

pub unsafe fn import(call: impl FnOnce() -> Status, handle: *const c_ulonglong) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    // SAFETY: the driver has accepted the pointer and written to it.
    process.mappings.imported(unsafe { *handle }, process.cards.here().unwrap_or(0));
    Ok(())
}

/// Maps parts of sparse arrays. Where each part lies is not followed; the memory counts until the process ends.
pub unsafe fn map_arrays(
    call: impl FnOnce() -> Status,
    maps: *const ArrayMap,
    count: c_uint,
) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    // SAFETY: the driver has accepted a list of that length.
    for map in unsafe { slice::from_raw_parts(maps, count as usize) } {
        if map.operation == OPERATION_MAP {
            process.mappings.escaped(map.handle);
        }
    }
    Ok(())
}
