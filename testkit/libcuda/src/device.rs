//! What the GPU and its contexts say of themselves. The numbers are those of an H100.

use std::ffi::{c_char, c_int, c_uint};
use std::ptr;

use crate::driver::{
    CURRENT, Handle, INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE, Status, in_context, put, with,
};

/// `CUdevice_attribute`s that are not 0.
const ATTRIBUTES: &[(c_int, c_int)] = &[
    // threads and dimensions of a block, blocks of a grid
    (1, 1024),
    (2, 1024),
    (3, 1024),
    (4, 64),
    (5, c_int::MAX),
    (6, 65535),
    (7, 65535),
    // shared and constant memory, warp, pitch, registers, clock in kHz, alignment of textures
    (8, 48 << 10),
    (9, 64 << 10),
    (10, 32),
    (11, c_int::MAX),
    (12, 65536),
    (13, 1_980_000),
    (14, 512),
    // copies while kernels run, multiprocessors, memory of the host can be mapped
    (15, 1),
    (16, 132),
    (19, 1),
    // several kernels at once, ECC
    (31, 1),
    (32, 1),
    // bus, clock of the memory in kHz, its bits, cache, threads of a multiprocessor, engines for copies, one address space
    (33, 0x1a),
    (36, 2_619_000),
    (37, 5120),
    (38, 50 << 20),
    (39, 2048),
    (40, 3),
    (41, 1),
    // capability 9.0
    (75, 9),
    // priorities of streams, caches, shared memory and registers of a multiprocessor
    (78, 1),
    (79, 1),
    (80, 1),
    (81, 228 << 10),
    (82, 65536),
    // managed memory, also while kernels run; preemption
    (83, 1),
    (89, 1),
    (90, 1),
    // cooperative launches, shared memory of a block that asks for it
    (95, 1),
    (97, 227 << 10),
    // physical memory, by file descriptors; blocks of a multiprocessor
    (102, 1),
    (103, 1),
    (106, 32),
    // pools, and their handles
    (115, 1),
    (119, 1),
];

/// Beyond it there is no attribute.
const LAST_ATTRIBUTE: c_int = 145;

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) -> Status {
    with(|_| match (device, attribute) {
        (0, 1..=LAST_ATTRIBUTE) => {
            let known = ATTRIBUTES.iter().find(|(number, _)| *number == attribute);
            put(value, known.map_or(0, |(_, value)| *value))
        }
        (0, _) => Err(INVALID_VALUE),
        _ => Err(INVALID_DEVICE),
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, device: c_int) -> Status {
    with(|_| {
        if device != 0 {
            return Err(INVALID_DEVICE);
        }
        put(major, 9)?;
        put(minor, 0)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(place: *mut c_char, length: c_int, device: c_int) -> Status {
    with(|_| {
        let text = b"0000:1a:00.0\0";
        if device != 0 {
            return Err(INVALID_DEVICE);
        }
        if place.is_null() || (length as usize) < text.len() {
            return Err(INVALID_VALUE);
        }
        unsafe { ptr::copy_nonoverlapping(text.as_ptr().cast(), place, text.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceCanAccessPeer(can: *mut c_int, device: c_int, peer: c_int) -> Status {
    with(|_| if device == 0 && peer == 0 { put(can, 0) } else { Err(INVALID_DEVICE) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, _flags: c_uint) -> Status {
    with(|_| if device == 0 { Ok(()) } else { Err(INVALID_DEVICE) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetFlags(flags: *mut c_uint) -> Status {
    in_context(|_, _| put(flags, 0))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetApiVersion(context: Handle, version: *mut c_uint) -> Status {
    with(|d| {
        let context = if context == 0 { CURRENT.get() } else { context };
        if d.contexts.contains_key(&context) { put(version, 3020) } else { Err(INVALID_CONTEXT) }
    })
}

/// Of greatest priority is the lowest number.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) -> Status {
    in_context(|_, _| {
        if !least.is_null() {
            put(least, 0)?;
        }
        if greatest.is_null() { Ok(()) } else { put(greatest, -5) }
    })
}
