//! Memory of the host, which takes none of the GPU; programs write to it.

use std::ffi::{c_uint, c_void};
use std::ptr;

use crate::driver::{INVALID_VALUE, OUT_OF_MEMORY, Status, in_context, put, with};

/// Addresses of the host with memory behind those that are used.
pub fn map(bytes: usize) -> Result<u64, Status> {
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    let at = unsafe { libc::mmap(ptr::null_mut(), bytes, access, kind, -1, 0) };
    if at == libc::MAP_FAILED { Err(OUT_OF_MEMORY) } else { Ok(at as u64) }
}

pub fn unmap(at: u64, bytes: usize) {
    unsafe { libc::munmap(at as *mut c_void, bytes) };
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostAlloc(pointer: *mut u64, bytes: usize, _flags: c_uint) -> Status {
    in_context(|d, _| {
        let at = map(bytes)?;
        d.host.insert(at, bytes);
        put(pointer, at)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocHost_v2(pointer: *mut u64, bytes: usize) -> Status {
    cuMemHostAlloc(pointer, bytes, 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(pointer: u64) -> Status {
    with(|d| {
        unmap(pointer, d.host.remove(&pointer).ok_or(INVALID_VALUE)?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostRegister_v2(_pointer: u64, _bytes: usize, _flags: c_uint) -> Status {
    in_context(|_, _| Ok(()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostUnregister(_pointer: u64) -> Status {
    in_context(|_, _| Ok(()))
}

/// There is one address space.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostGetDevicePointer_v2(pointer: *mut u64, host: u64, _flags: c_uint) -> Status {
    in_context(|_, _| put(pointer, host))
}
