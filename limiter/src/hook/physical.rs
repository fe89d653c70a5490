//! Physical memory and its mapping: `cuMemCreate` and what belongs to it.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::slice;

use crate::abi::{ArrayMap, Handle, LOCATION_DEVICE, OPERATION_MAP, Pointer, Properties, SUCCESS, Status};
use crate::process;
use crate::table::check;

pub unsafe fn create(
    real: real!(*mut c_ulonglong, usize, *const Properties, c_ulonglong),
    handle: *mut c_ulonglong,
    bytes: usize,
    properties: *const Properties,
    flags: c_ulonglong,
) -> Result<(), Status> {
    let process = process::current()?;
    let call = || driver!(real(handle, bytes, properties, flags));
    if handle.is_null() || properties.is_null() {
        return check(call());
    }
    // SAFETY: not null, and the program passes properties.
    let Properties { location, id, .. } = unsafe { *properties };
    if location != LOCATION_DEVICE {
        // the host's memory
        return check(call());
    }
    let card = process.reserve(process.card_of(id), bytes as u64)?;
    let status = call();
    if status == SUCCESS {
        // SAFETY: not null, and the driver has just written to it.
        process.mappings.created(unsafe { *handle }, card, bytes as u64);
    } else {
        process.release(card, bytes as u64);
    }
    check(status)
}

pub unsafe fn release(real: real!(c_ulonglong), handle: c_ulonglong) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(handle)))?;
    if let Some((card, bytes)) = process.mappings.released(handle) {
        process.release(card, bytes);
    }
    Ok(())
}

pub unsafe fn map(
    real: real!(Pointer, usize, usize, c_ulonglong, c_ulonglong),
    pointer: Pointer,
    bytes: usize,
    offset: usize,
    handle: c_ulonglong,
    flags: c_ulonglong,
) -> Result<(), Status> {
    let process = process::current()?;
    let (card, more) =
        process.mappings.wants(handle, (offset as u64).saturating_add(bytes as u64)).unwrap_or((0, 0));
    if more > 0 {
        process.reserve(Some(card), more)?;
    }
    let status = driver!(real(pointer, bytes, offset, handle, flags));
    if status == SUCCESS {
        process.mappings.mapped(handle, pointer, bytes as u64, more);
    } else {
        process.release(card, more);
    }
    check(status)
}

pub unsafe fn unmap(real: real!(Pointer, usize), pointer: Pointer, bytes: usize) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(pointer, bytes)))?;
    for (card, bytes) in process.mappings.unmapped(pointer, bytes as u64) {
        process.release(card, bytes);
    }
    Ok(())
}

pub unsafe fn retain(
    real: real!(*mut c_ulonglong, *mut c_void),
    handle: *mut c_ulonglong,
    address: *mut c_void,
) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(handle, address)))?;
    // SAFETY: the driver has accepted the pointer and written to it.
    process.mappings.retained(unsafe { *handle }, address as u64);
    Ok(())
}

pub unsafe fn export(
    real: real!(*mut c_void, c_ulonglong, c_int, c_ulonglong),
    shared: *mut c_void,
    handle: c_ulonglong,
    kind: c_int,
    flags: c_ulonglong,
) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(shared, handle, kind, flags)))?;
    process.mappings.escaped(handle);
    Ok(())
}

pub unsafe fn import(
    real: real!(*mut c_ulonglong, *mut c_void, c_int),
    handle: *mut c_ulonglong,
    shared: *mut c_void,
    kind: c_int,
) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(handle, shared, kind)))?;
    // SAFETY: the driver has accepted the pointer and written to it.
    process.mappings.imported(unsafe { *handle }, process.here().unwrap_or(0));
    Ok(())
}

/// Parts of sparse arrays are mapped. What lies where is not followed; the memory counts until the process ends.
pub unsafe fn map_arrays(
    real: real!(*mut ArrayMap, c_uint, Handle),
    maps: *mut ArrayMap,
    count: c_uint,
    stream: Handle,
) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(maps, count, stream)))?;
    // SAFETY: the driver has accepted that many of them.
    for map in unsafe { slice::from_raw_parts(maps, count as usize) } {
        if map.operation == OPERATION_MAP {
            process.mappings.escaped(map.handle);
        }
    }
    Ok(())
}
