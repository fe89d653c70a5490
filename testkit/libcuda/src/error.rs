//! The names of errors.

use std::ffi::{CStr, c_char};

use crate::capture;
use crate::driver::{INVALID_VALUE, SUCCESS, Status};

/// Errors that this library returns: number, name, and what it says of them.
const ERRORS: &[(Status, &CStr, &CStr)] = &[
    (SUCCESS, c"CUDA_SUCCESS", c"no error"),
    (1, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
    (2, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
    (3, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
    (100, c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
    (101, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
    (201, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
    (400, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
    (401, c"CUDA_ERROR_ILLEGAL_STATE", c"the operation cannot be performed in the present state"),
    (500, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
    (600, c"CUDA_ERROR_NOT_READY", c"device not ready"),
    (700, c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered"),
    (801, c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
    (802, c"CUDA_ERROR_SYSTEM_NOT_READY", c"system not yet initialized"),
    (
        capture::UNSUPPORTED,
        c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        c"operation not permitted when stream is capturing",
    ),
    (901, c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", c"a previous error invalidated the capture"),
    (906, c"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", c"a dependency on the legacy stream would be captured"),
    (
        capture::CAPTURED_EVENT,
        c"CUDA_ERROR_CAPTURED_EVENT",
        c"operation not permitted on an event that was captured",
    ),
    (908, c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", c"the capture was begun by another thread"),
    (999, c"CUDA_ERROR_UNKNOWN", c"unknown error"),
];

/// Writes a text of the error; null where there is none.
fn tell(
    error: Status,
    place: *mut *const c_char,
    text: fn(&(Status, &'static CStr, &'static CStr)) -> &'static CStr,
) -> Status {
    if place.is_null() {
        return INVALID_VALUE;
    }
    let known = ERRORS.iter().find(|(number, ..)| *number == error).map(text);
    unsafe { place.write(known.map_or(std::ptr::null(), CStr::as_ptr)) };
    if known.is_some() { SUCCESS } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(error: Status, name: *mut *const c_char) -> Status {
    tell(error, name, |(_, name, _)| name)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(error: Status, text: *mut *const c_char) -> Status {
    tell(error, text, |(.., text)| text)
}
