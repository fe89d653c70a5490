//! Arrays, which textures and surfaces read.

use std::ffi::c_uint;

use crate::abi::{Array3dDescriptor, ArrayDescriptor, Handle, Status, check};
use crate::memory::size;
use crate::process;

pub unsafe fn create(
    call: impl FnOnce() -> Status,
    array: *mut Handle,
    description: *const ArrayDescriptor,
) -> Result<(), Status> {
    if array.is_null() || description.is_null() {
        return check(call());
    }
    // SAFETY: not null, and the program passes a description.
    make(call, array, size::array(unsafe { &*description }))
}

/// `levels` is the number of mipmap levels.
pub unsafe fn create3d(
    call: impl FnOnce() -> Status,
    array: *mut Handle,
    description: *const Array3dDescriptor,
    levels: c_uint,
) -> Result<(), Status> {
    if array.is_null() || description.is_null() {
        return check(call());
    }
    // SAFETY: not null, and the program passes a description.
    make(call, array, size::mipmaps(unsafe { &*description }, levels))
}

fn make(call: impl FnOnce() -> Status, array: *mut Handle, bytes: u64) -> Result<(), Status> {
    let process = process::current()?;
    process.allocate(bytes, call, |made| {
        // SAFETY: not null, and the driver has just written to it.
        process.arrays.insert(unsafe { *array } as u64, made);
    })
}

pub unsafe fn destroy(call: impl FnOnce() -> Status, array: Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(process.free(&process.arrays, array as u64, call))
}
