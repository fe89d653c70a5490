//! Copies and sets of memory. Nothing is copied, as memory of the GPU has no content; they take the time of a short kernel,
//! and the synchronous ones wait as the driver's do.

use std::ffi::{c_uchar, c_void};

use crate::driver::{Handle, STREAM_PER_THREAD, SUCCESS, Status, in_context};
use crate::stream::{queue, wait_for_all};

/// What a copy takes of the GPU's time.
const NANOSECONDS: u64 = 2_000;

/// A synchronous copy waits for all work that was launched before.
fn copy() -> Status {
    match in_context(|d, _| d.unsafe_call()) {
        SUCCESS => wait_for_all(),
        status => status,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoH_v2(_host: *mut c_void, _pointer: u64, _bytes: usize) -> Status {
    copy()
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoD_v2(_pointer: u64, _host: *const c_void, _bytes: usize) -> Status {
    copy()
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoD_v2(_to: u64, _from: u64, _bytes: usize) -> Status {
    queue(0, &[NANOSECONDS])
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8_v2(_pointer: u64, _value: c_uchar, _bytes: usize) -> Status {
    queue(0, &[NANOSECONDS])
}

macro_rules! ordered {
    ($($name:ident $per_thread:ident($($argument:ty),*);)*) => {
        $(
            #[unsafe(no_mangle)]
            pub extern "C" fn $name($(_: $argument,)* stream: Handle) -> Status {
                queue(stream, &[NANOSECONDS])
            }

            #[unsafe(no_mangle)]
            pub extern "C" fn $per_thread($(_: $argument,)* stream: Handle) -> Status {
                queue(if stream == 0 { STREAM_PER_THREAD } else { stream }, &[NANOSECONDS])
            }
        )*
    };
}

ordered! {
    cuMemcpyAsync cuMemcpyAsync_ptsz(u64, u64, usize);
    cuMemcpyDtoHAsync_v2 cuMemcpyDtoHAsync_v2_ptsz(*mut c_void, u64, usize);
    cuMemcpyHtoDAsync_v2 cuMemcpyHtoDAsync_v2_ptsz(u64, *const c_void, usize);
    cuMemcpyDtoDAsync_v2 cuMemcpyDtoDAsync_v2_ptsz(u64, u64, usize);
    cuMemsetD8Async cuMemsetD8Async_ptsz(u64, c_uchar, usize);
}
