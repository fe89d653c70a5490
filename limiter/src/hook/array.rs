//! Arrays, which textures and surfaces read.

use std::ffi::{c_uint, c_void};

use super::linear::NOT_SUPPORTED;
use crate::abi::{Array3dDescriptor, ArrayDescriptor, Handle, Status};
use crate::memory::size;
use crate::process::{self, Process};
use crate::table::check;

pub unsafe fn old_create(
    _: real!(*mut Handle, *const c_void),
    _: *mut Handle,
    _: *const c_void,
) -> Result<(), Status> {
    Err(NOT_SUPPORTED)
}

pub unsafe fn create(
    real: real!(*mut Handle, *const ArrayDescriptor),
    array: *mut Handle,
    description: *const ArrayDescriptor,
) -> Result<(), Status> {
    let call = || driver!(real(array, description));
    if array.is_null() || description.is_null() {
        return check(call());
    }
    // SAFETY: not null, and the program passes a description.
    make(process::current()?, array, size::array(unsafe { &*description }), call)
}

pub unsafe fn create3d(
    real: real!(*mut Handle, *const Array3dDescriptor),
    array: *mut Handle,
    description: *const Array3dDescriptor,
) -> Result<(), Status> {
    let call = || driver!(real(array, description));
    if array.is_null() || description.is_null() {
        return check(call());
    }
    // SAFETY: not null, and the program passes a description.
    make(process::current()?, array, size::mipmaps(unsafe { &*description }, 1), call)
}

pub unsafe fn mipmapped(
    real: real!(*mut Handle, *const Array3dDescriptor, c_uint),
    array: *mut Handle,
    description: *const Array3dDescriptor,
    levels: c_uint,
) -> Result<(), Status> {
    let call = || driver!(real(array, description, levels));
    if array.is_null() || description.is_null() {
        return check(call());
    }
    // SAFETY: not null, and the program passes a description.
    make(process::current()?, array, size::mipmaps(unsafe { &*description }, levels), call)
}

pub unsafe fn destroy(real: real!(Handle), array: Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(process.free(&process.arrays, array as u64, || driver!(real(array))))
}

fn make(process: &Process, array: *mut Handle, bytes: u64, call: impl FnOnce() -> Status) -> Result<(), Status> {
    process.allocate(bytes, call, |made| {
        // SAFETY: not null, and the driver has just written to it.
        process.arrays.insert(unsafe { *array } as u64, made);
    })
}
