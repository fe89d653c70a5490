//! Linear memory that processes export to each other. Where exporter and importer belong to one container, it counts
//! once.

use crate::abi::{IpcHandle, OUT_OF_MEMORY, Pointer, SUCCESS, Status, check};
use crate::driver;
use crate::memory::allocations::Allocation;
use crate::memory::sharing::Opened;
use crate::memory::{shared, size};
use crate::process;

pub unsafe fn export(
    call: impl FnOnce() -> Status,
    handle: *const IpcHandle,
    pointer: Pointer,
) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    // the handle is of the whole allocation
    let (base, _) = range(pointer);
    let Some(allocation) = process.pointers.get(base) else { return Ok(()) };
    // SAFETY: the driver has accepted the pointer and written to it.
    let key = shared::key(unsafe { (*handle).0 });
    if let Some(ticket) = process.cards.offer_once(allocation.device, key, size::whole(allocation.bytes)) {
        process.sharing.exported(base, ticket);
    }
    Ok(())
}

/// Opening takes no more of the GPU, and keeps the memory alive.
pub unsafe fn open(
    call: impl FnOnce() -> Status,
    pointer: *const Pointer,
    handle: IpcHandle,
) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    // SAFETY: the driver has accepted the pointer and written to it.
    let opened = unsafe { *pointer };
    if process.sharing.again(opened) {
        return Ok(());
    }
    let (card, context, key) = (process.cards.here(), process.context(), shared::key(handle.0));
    if let Some(device) = card
        && let Some(ticket) = process.cards.open_shared(device, key)
    {
        process.sharing.opened(opened, Opened { ticket: Some(ticket), pays: false, times: 1 });
        process.pointers.insert(opened, Allocation { device, bytes: 0, context, pool: 0 });
        return Ok(());
    }
    // of another container, or of a process that exported it before this library was there; its size can only be asked
    // afterwards
    let (_, bytes) = range(opened);
    let Ok(made) = process.count(card, size::whole(bytes), context) else {
        // SAFETY: it was opened a moment ago, and no one else has seen it.
        unsafe { driver::cuIpcCloseMemHandle(opened) };
        return Err(OUT_OF_MEMORY);
    };
    let ticket = process.cards.offer(made.device, key, made.bytes);
    process.sharing.opened(opened, Opened { ticket, pays: true, times: 1 });
    process.pointers.insert(opened, made);
    Ok(())
}

/// Memory can be opened more than once; the last closing ends it.
pub unsafe fn close(call: impl FnOnce() -> Status, pointer: Pointer) -> Result<(), Status> {
    let process = process::current()?;
    // before the driver's call, since right after it another thread may get the same pointer
    let closing = process.sharing.closing(pointer);
    let allocation = closing.and_then(|_| process.pointers.remove(pointer));
    let status = call();
    if status != SUCCESS {
        process.sharing.stays(pointer, closing);
        allocation.map(|allocation| process.pointers.insert(pointer, allocation));
        return Err(status);
    }
    process.closed(closing, allocation);
    Ok(())
}

/// The allocation that a pointer is in: where it begins, and its bytes.
fn range(pointer: Pointer) -> (Pointer, u64) {
    let (mut base, mut bytes) = (pointer, 0);
    // SAFETY: the pointers are to locals.
    unsafe { driver::cuMemGetAddressRange_v2(&raw mut base, &raw mut bytes, pointer) };
    (base, bytes as u64)
}
