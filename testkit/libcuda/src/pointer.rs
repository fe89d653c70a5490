//! What is known of a pointer, and rights to addresses.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use crate::driver::{Driver, INVALID_VALUE, Linear, PAGE, Status, in_context, put, with};

/// The allocation that an address is in.
fn within(d: &Driver, pointer: u64) -> Result<(u64, &Linear), Status> {
    let (at, linear) = d.linear.range(..=pointer).next_back().ok_or(INVALID_VALUE)?;
    if pointer < at + linear.bytes { Ok((*at, linear)) } else { Err(INVALID_VALUE) }
}

/// `CUpointer_attribute`.
#[unsafe(no_mangle)]
pub extern "C" fn cuPointerGetAttribute(value: *mut c_void, attribute: c_int, pointer: u64) -> Status {
    with(|d| {
        if d.host.contains_key(&pointer) {
            return match attribute {
                2 => put(value.cast::<c_uint>(), 1),
                3 | 4 => put(value.cast::<u64>(), pointer),
                _ => Err(INVALID_VALUE),
            };
        }
        let (at, linear) = within(d, pointer)?;
        match attribute {
            1 => put(value.cast(), linear.context),
            // CU_MEMORYTYPE_DEVICE
            2 => put(value.cast::<c_uint>(), 2),
            3 => put(value.cast(), pointer),
            4 if linear.managed => put(value.cast(), pointer),
            7 => put(value.cast(), at),
            8 => put(value.cast::<u8>(), u8::from(linear.managed)),
            9 => put(value.cast::<c_int>(), 0),
            11 => put(value.cast(), at),
            12 => put(value.cast(), linear.bytes),
            _ => Err(INVALID_VALUE),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetAllocationGranularity(bytes: *mut usize, _: *const c_void, _: c_int) -> Status {
    with(|_| put(bytes, PAGE as usize))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemSetAccess(_: u64, _: usize, _: *const c_void, _: usize) -> Status {
    in_context(|_, _| Ok(()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAddressFree(_pointer: u64, _bytes: c_ulonglong) -> Status {
    with(|_| Ok(()))
}
