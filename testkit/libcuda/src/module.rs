//! Modules, libraries, and the functions in them. Their code is not looked at: any name is found.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use crate::driver::{Handle, INVALID_HANDLE, INVALID_VALUE, NOT_FOUND, Status, in_context, put, with};

/// In the handle of a function that fails. Handles are multiples of 16.
const FAULT: Handle = 1;
/// In the handle of a function whose argument is no time.
const FIXED: Handle = 2;
/// Nanoseconds that a function takes whose argument is no time.
const USUAL: u64 = 10_000;

/// The handle of a new function of this name.
unsafe fn function(handle: Handle, name: *const c_char) -> Result<Handle, Status> {
    if name.is_null() {
        return Err(INVALID_VALUE);
    }
    match unsafe { CStr::from_ptr(name) }.to_bytes() {
        b"" => Err(NOT_FOUND),
        b"fault" => Ok(handle | FAULT),
        name if name.starts_with(b"spin") => Ok(handle),
        _ => Ok(handle | FIXED),
    }
}

pub fn fails(function: Handle) -> bool {
    function & FAULT != 0
}

/// How long a launch with these parameters takes.
pub unsafe fn nanoseconds(function: Handle, parameters: *mut *mut u64) -> u64 {
    match function & FIXED {
        0 if parameters.is_null() => 0,
        // the argument of `spin`
        0 => unsafe { **parameters },
        _ => USUAL,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleGetLoadingMode(mode: *mut c_int) -> Status {
    // CU_MODULE_LAZY_LOADING
    with(|_| put(mode, 2))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleLoadData(module: *mut Handle, image: *const c_void) -> Status {
    in_context(|d, _| if image.is_null() { Err(INVALID_VALUE) } else { put(module, d.handle()) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleLoadDataEx(
    module: *mut Handle,
    image: *const c_void,
    _count: c_uint,
    _options: *const c_int,
    _values: *const *mut c_void,
) -> Status {
    cuModuleLoadData(module, image)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(_module: Handle) -> Status {
    in_context(|_, _| Ok(()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(place: *mut Handle, _module: Handle, name: *const c_char) -> Status {
    in_context(|d, _| put(place, unsafe { function(d.handle(), name) }?))
}

/// Needs no context: the code is loaded into each when it is used there.
#[unsafe(no_mangle)]
pub extern "C" fn cuLibraryLoadData(
    library: *mut Handle,
    code: *const c_void,
    _jit: *const c_int,
    _jit_values: *const *mut c_void,
    _jit_count: c_uint,
    _options: *const c_int,
    _values: *const *mut c_void,
    _count: c_uint,
) -> Status {
    with(|d| {
        if code.is_null() {
            return Err(INVALID_VALUE);
        }
        let handle = d.handle();
        d.libraries.insert(handle);
        put(library, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuLibraryUnload(library: Handle) -> Status {
    with(|d| if d.libraries.remove(&library) { Ok(()) } else { Err(INVALID_HANDLE) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLibraryGetKernel(kernel: *mut Handle, library: Handle, name: *const c_char) -> Status {
    with(|d| {
        if !d.libraries.contains(&library) {
            return Err(INVALID_HANDLE);
        }
        put(kernel, unsafe { function(d.handle(), name) }?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuLibraryGetModule(module: *mut Handle, library: Handle) -> Status {
    in_context(|d, _| if d.libraries.contains(&library) { put(module, library) } else { Err(INVALID_HANDLE) })
}

/// A kernel can be launched in a function's place, so they are the same here.
#[unsafe(no_mangle)]
pub extern "C" fn cuKernelGetFunction(function: *mut Handle, kernel: Handle) -> Status {
    in_context(|_, _| put(function, kernel))
}

/// Of a small kernel: what each `CUfunction_attribute` is.
fn attribute(value: *mut c_int, attribute: c_int) -> Result<(), Status> {
    match attribute {
        // CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK
        0 => put(value, 1024),
        // ..._NUM_REGS
        4 => put(value, 16),
        // ..._PTX_VERSION and ..._BINARY_VERSION
        5 | 6 => put(value, 90),
        // sizes of memory, and settings that were not made
        1..=15 => put(value, 0),
        _ => Err(INVALID_VALUE),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncGetAttribute(value: *mut c_int, of: c_int, _function: Handle) -> Status {
    in_context(|_, _| attribute(value, of))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuKernelGetAttribute(value: *mut c_int, of: c_int, _kernel: Handle, _device: c_int) -> Status {
    with(|_| attribute(value, of))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(_function: Handle, _attribute: c_int, _value: c_int) -> Status {
    in_context(|_, _| Ok(()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuKernelSetAttribute(
    _attribute: c_int,
    _value: c_int,
    _kernel: Handle,
    _device: c_int,
) -> Status {
    with(|_| Ok(()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    _function: Handle,
    size: c_int,
    _shared: usize,
) -> Status {
    // the threads of a multiprocessor, and its blocks
    in_context(|_, _| if size > 0 { put(blocks, (2048 / size).min(32)) } else { Err(INVALID_VALUE) })
}
