//! Linear memory: plain, pitched, managed, and memory of other interfaces.

use crate::abi::{ExternalMemory, Handle, INVALID_VALUE, Pointer, Status, check};
use crate::driver;
use crate::memory::size;
use crate::process;

/// Plain or managed.
pub unsafe fn alloc(call: impl FnOnce() -> Status, pointer: *mut Pointer, bytes: usize) -> Result<(), Status> {
    let process = process::current()?;
    if pointer.is_null() || bytes == 0 {
        return check(call());
    }
    process.allocate(size::linear(bytes as u64), call, |made| {
        // SAFETY: not null, and the driver has just written to it.
        process.pointers.insert(unsafe { *pointer }, made);
    })
}

pub unsafe fn pitch(
    call: impl FnOnce() -> Status,
    pointer: *mut Pointer,
    pitch: *mut usize,
    width: usize,
    height: usize,
) -> Result<(), Status> {
    let process = process::current()?;
    if pointer.is_null() || pitch.is_null() || width == 0 || height == 0 {
        return check(call());
    }
    let foreseen = size::pitched(width as u64, height as u64);
    let mut kept = None;
    process.allocate(foreseen, call, |made| kept = Some(made))?;
    let Some(made) = kept else { return Ok(()) };
    // SAFETY: not null, and the driver has just written to both.
    let (key, row) = unsafe { (*pointer, *pitch) };
    // the driver may have made the rows longer or shorter than expected
    let taken = size::linear((row as u64).saturating_mul(height as u64));
    let made = if taken == foreseen {
        made
    } else {
        process.give_back(&made);
        process.count(Some(made.device), taken, made.context).inspect_err(|_| {
            // SAFETY: it was allocated a moment ago, and no one else has seen it.
            unsafe { driver::cuMemFree_v2(key) };
        })?
    };
    process.pointers.insert(key, made);
    Ok(())
}

pub unsafe fn free(call: impl FnOnce() -> Status, pointer: Pointer) -> Result<(), Status> {
    let process = process::current()?;
    check(process.free(&process.pointers, pointer, call))
}

pub unsafe fn import(
    call: impl FnOnce() -> Status,
    memory: *mut Handle,
    description: *const ExternalMemory,
) -> Result<(), Status> {
    let process = process::current()?;
    if memory.is_null() || description.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not null, and the program passes a description.
    let bytes = size::linear(unsafe { (*description).bytes });
    process.allocate(bytes, call, |made| {
        // SAFETY: not null, and the driver has just written to it.
        process.externals.insert(unsafe { *memory } as u64, made);
    })
}

pub unsafe fn destroy_import(call: impl FnOnce() -> Status, memory: Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(process.free(&process.externals, memory as u64, call))
}
