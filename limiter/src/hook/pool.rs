//! Stream-ordered memory.

use std::ffi::c_void;
use std::ptr;

use super::capture::{self, own_stream};
use crate::abi::{Handle, LOCATION_DEVICE, OUT_OF_MEMORY, Pointer, Properties, SUCCESS, Status};
use crate::driver;
use crate::memory::allocations::Allocation;
use crate::memory::size;
use crate::process::{self, Process};
use crate::table::{call, check};

pub unsafe fn alloc<const PER_THREAD: bool>(
    real: real!(*mut Pointer, usize, Handle),
    pointer: *mut Pointer,
    bytes: usize,
    stream: Handle,
) -> Result<(), Status> {
    let process = process::current()?;
    let call = || driver!(real(pointer, bytes, stream));
    // the pool that the device has just now
    let pool = || {
        let mut pool: Handle = ptr::null_mut();
        let device = process.here().and_then(|card| process.device_of(card)).unwrap_or(0);
        // SAFETY: the pointer is to a local.
        check(unsafe { driver::cuDeviceGetMemPool(&raw mut pool, device) }).map(|()| pool)
    };
    from_pool(process, own_stream::<PER_THREAD>(stream), pointer, bytes, pool, call)
}

pub unsafe fn alloc_from<const PER_THREAD: bool>(
    real: real!(*mut Pointer, usize, Handle, Handle),
    pointer: *mut Pointer,
    bytes: usize,
    pool: Handle,
    stream: Handle,
) -> Result<(), Status> {
    let process = process::current()?;
    let call = || driver!(real(pointer, bytes, pool, stream));
    from_pool(process, own_stream::<PER_THREAD>(stream), pointer, bytes, || Ok(pool), call)
}

fn from_pool(
    process: &Process,
    stream: Handle,
    pointer: *mut Pointer,
    bytes: usize,
    pool: impl FnOnce() -> Result<Handle, Status>,
    call: impl FnOnce() -> Status,
) -> Result<(), Status> {
    if pointer.is_null() || bytes == 0 {
        return check(call());
    }
    if let Some(graph) = capture::graph_of(process, stream) {
        // nothing is allocated now, but whenever the graph runs
        check(call())?;
        process.graphs.allocates(graph, bytes as u64);
        return Ok(());
    }
    // SAFETY: not null; read only after the driver has written to it.
    let given = || unsafe { *pointer };
    check(process.pools.allocate(process, pool()? as usize, bytes as u64, call, given, stream))
}

pub unsafe fn free(real: real!(Pointer, Handle), pointer: Pointer, stream: Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(process.free(&process.pointers, pointer, || driver!(real(pointer, stream))))
}

pub unsafe fn create(
    real: real!(*mut Handle, *const Properties),
    pool: *mut Handle,
    properties: *const Properties,
) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(pool, properties)))?;
    // SAFETY: the driver has accepted both, and written to the first.
    let (pool, Properties { location, id, .. }) = unsafe { (*pool, *properties) };
    // a pool of the host's memory is none of ours; a card that the limits do not name refuses at the first allocation
    if location == LOCATION_DEVICE
        && let Some(card) = process.card_of(id)
    {
        process.pools.known(pool as usize, card);
    }
    Ok(())
}

pub unsafe fn destroy(real: real!(Handle), pool: Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(pool)))?;
    process.pools.destroyed(process, pool as usize);
    Ok(())
}

pub unsafe fn trim(real: real!(Handle, usize), pool: Handle, keep: usize) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(pool, keep)))?;
    process.pools.settle(process);
    Ok(())
}

/// Memory of another process' pool. How much it is can only be asked afterwards; nothing new is taken of the card by that.
pub unsafe fn import_pointer(
    real: real!(*mut Pointer, Handle, *mut c_void),
    pointer: *mut Pointer,
    pool: Handle,
    data: *mut c_void,
) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(pointer, pool, data)))?;
    // SAFETY: the driver has accepted the pointer and written to it.
    let imported = unsafe { *pointer };
    let (mut base, mut bytes) = (0, 0);
    // SAFETY: the pointers are to locals.
    let status = unsafe { driver::cuMemGetAddressRange_v2(&raw mut base, &raw mut bytes, imported) };
    let bytes = if status == SUCCESS { size::linear(bytes as u64) } else { 0 };
    let Ok(device) = process.reserve(process.here(), bytes) else {
        // SAFETY: it was imported a moment ago, and nobody has seen it.
        unsafe { call!(cuMemFree_v2(imported)) };
        return Err(OUT_OF_MEMORY);
    };
    process.pointers.insert(imported, Allocation { device, bytes, context: 0, pool: 0 });
    Ok(())
}
