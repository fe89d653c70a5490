//! Physical memory and its mapping: `cuMemCreate` and related functions.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::slice;

use crate::abi::{ArrayMap, HANDLE_DESCRIPTOR, OPERATION_MAP, Pointer, Properties, SUCCESS, Status, check};
use crate::memory::mapping::{Descriptor, Paid, Wanted};
use crate::memory::shared;
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
    let properties = unsafe { *properties };
    if properties.on_host() {
        return check(call());
    }
    let card = process.reserve(process.cards.at(&properties), bytes as u64)?;
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
    let releasing = process.mappings.releasing(handle);
    if let Err(status) = check(call()) {
        process.mappings.stays(releasing);
        return Err(status);
    }
    process.physical_freed(process.mappings.released(releasing));
    process.physical_freed(process.mappings.sweep());
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
    let mapped = (offset as u64).saturating_add(bytes as u64);
    let Wanted { card, more, first } = process.mappings.wants(handle, mapped);
    // memory of another process of this container: it pays
    let elsewhere = if first { process.cards.open_shared(card, identity(card, mapped)) } else { None };
    let more = if elsewhere.is_some() { 0 } else { more };
    if more > 0 {
        process.reserve(Some(card), more)?;
    }
    let status = call();
    if status == SUCCESS {
        process.mappings.mapped(handle, pointer, bytes as u64, more);
        match elsewhere {
            Some(ticket) => process.mappings.paid(handle, Paid::Elsewhere(ticket)),
            None if first => {
                let offered = process.cards.offer(card, identity(card, mapped), mapped);
                process.mappings.paid(handle, Paid::Here(offered));
            }
            None => {}
        }
    } else {
        elsewhere.into_iter().for_each(|ticket| process.cards.close_shared(ticket));
        process.release(card, more);
    }
    check(status)
}

/// What identifies exported physical memory to the processes of the container: nothing but its size is the same in all
/// of them. Pieces of one size count the same, whichever of them a process has.
fn identity(card: usize, bytes: u64) -> u64 {
    shared::key(("physical", card, bytes))
}

pub unsafe fn unmap(call: impl FnOnce() -> Status, pointer: Pointer, bytes: usize) -> Result<(), Status> {
    let process = process::current()?;
    let unmapping = process.mappings.unmapping(pointer, bytes as u64);
    if let Err(status) = check(call()) {
        process.mappings.remains(unmapping);
        return Err(status);
    }
    process.physical_freed(process.mappings.unmapped(unmapping));
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

pub unsafe fn export(
    call: impl FnOnce() -> Status,
    shared: *const c_void,
    handle: c_ulonglong,
    kind: c_int,
) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    let Some((card, bytes)) = process.mappings.size(handle) else { return Ok(()) };
    let descriptor = (kind == HANDLE_DESCRIPTOR).then(|| {
        // SAFETY: the driver has accepted the pointer and has written a descriptor to it, as it was asked.
        Descriptor::of(unsafe { *shared.cast::<c_int>() })
    });
    // once, however often it is exported
    let offered =
        process.mappings.unoffered(handle).then(|| process.cards.offer(card, identity(card, bytes), bytes));
    process.mappings.exported(handle, descriptor.flatten(), offered.flatten());
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
    if maps.is_null() {
        return Ok(());
    }
    // SAFETY: not null, and the driver has accepted a list of that length.
    for map in unsafe { slice::from_raw_parts(maps, count as usize) } {
        if map.operation == OPERATION_MAP {
            process.mappings.escaped(map.handle);
        }
    }
    Ok(())
}
