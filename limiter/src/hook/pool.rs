//! Stream-ordered memory.

use std::ptr;

use super::stream::graph_of;
use crate::abi::{Handle, OUT_OF_MEMORY, Pointer, Properties, SUCCESS, Status, check};
use crate::driver;
use crate::memory::pool::Wanted;
use crate::memory::size;
use crate::pace::events::captured;
use crate::process::{self, Process};

/// Allocates from the device's current pool.
pub unsafe fn alloc(
    call: impl FnOnce() -> Status,
    pointer: *const Pointer,
    bytes: usize,
    stream: Handle,
) -> Result<(), Status> {
    let process = process::current()?;
    let pool = || {
        let mut pool: Handle = ptr::null_mut();
        let device = process.cards.here().and_then(|card| process.cards.device_of(card)).unwrap_or(0);
        // SAFETY: the pointer is to a local.
        check(unsafe { driver::cuDeviceGetMemPool(&raw mut pool, device) }).map(|()| pool)
    };
    from_pool(process, call, pointer, bytes, pool, stream)
}

pub unsafe fn alloc_from(
    call: impl FnOnce() -> Status,
    pointer: *const Pointer,
    bytes: usize,
    pool: Handle,
    stream: Handle,
) -> Result<(), Status> {
    from_pool(process::current()?, call, pointer, bytes, || Ok(pool), stream)
}

fn from_pool(
    process: &Process,
    call: impl FnOnce() -> Status,
    pointer: *const Pointer,
    bytes: usize,
    pool: impl FnOnce() -> Result<Handle, Status>,
    stream: Handle,
) -> Result<(), Status> {
    if pointer.is_null() || bytes == 0 {
        return check(call());
    }
    if let Some(graph) = graph_of(stream) {
        // nothing is allocated now, but each time the graph runs
        check(call())?;
        process.graphs.allocates(graph, bytes as u64);
        return Ok(());
    }
    // SAFETY: not null; read only after the driver has written to it.
    let given = || unsafe { *pointer };
    let wanted = Wanted { pool: pool()? as usize, bytes: bytes as u64, stream };
    check(process.pools.allocate(process, &process.pointers, wanted, call, given))
}

/// Memory of a pool, or any other, in the order of a stream.
pub unsafe fn free(call: impl FnOnce() -> Status, pointer: Pointer, stream: Handle) -> Result<(), Status> {
    let process = process::current()?;
    // what a graph has allocated is not known here
    let Some(known) = process.pointers.get(pointer) else { return check(call()) };
    if captured(stream) == Some(true) {
        // it is not freed now: it counts on
        return check(call());
    }
    if known.pool != 0 {
        return check(process.free(&process.pointers, pointer, call));
    }
    check(process.free_later(pointer, stream, call))
}

pub unsafe fn create(
    call: impl FnOnce() -> Status,
    pool: *mut Handle,
    properties: *const Properties,
) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    // SAFETY: the driver has accepted both, and written to the first.
    let (pool, properties) = unsafe { (*pool, *properties) };
    if properties.on_host() {
        process.pools.known(pool as usize, None);
    } else if let Some(card) = process.cards.at(&properties) {
        process.pools.known(pool as usize, Some(card));
    }
    // a GPU that the limits do not name refuses at the first allocation
    Ok(())
}

pub unsafe fn destroy(call: impl FnOnce() -> Status, pool: Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(process.pools.destroy(process, pool as usize, call))
}

pub unsafe fn trim(call: impl FnOnce() -> Status) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    process.pools.settle(process);
    Ok(())
}

/// Memory of another process' pool. Its size can only be asked afterwards; importing it takes no more of the GPU.
pub unsafe fn import_pointer(call: impl FnOnce() -> Status, pointer: *const Pointer) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    // SAFETY: the driver has accepted the pointer and written to it.
    let imported = unsafe { *pointer };
    let (mut base, mut bytes) = (0, 0);
    // SAFETY: the pointers are to locals.
    let status = unsafe { driver::cuMemGetAddressRange_v2(&raw mut base, &raw mut bytes, imported) };
    let bytes = if status == SUCCESS { size::linear(bytes as u64) } else { 0 };
    let Ok(made) = process.count(process.cards.here(), bytes, 0) else {
        // SAFETY: it was imported a moment ago, and no one else has seen it.
        unsafe { driver::cuMemFree_v2(imported) };
        return Err(OUT_OF_MEMORY);
    };
    process.pointers.insert(imported, made);
    Ok(())
}
