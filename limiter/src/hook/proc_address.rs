//! `cuGetProcAddress`, through which the CUDA runtime gets all of the driver's functions.

use std::ffi::{CStr, c_char, c_int, c_ulonglong, c_void};

use crate::abi::{Status, check};
use crate::entry::{Entry, instead_of};

/// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`.
const PER_THREAD: c_ulonglong = 2;

/// Replaces the function that the driver has found for `symbol` by the limiter's.
pub unsafe fn replace(
    call: impl FnOnce() -> Status,
    entries: &'static [Entry],
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: c_ulonglong,
) -> Result<(), Status> {
    check(call())?;
    // SAFETY: the driver has accepted the symbol, which is a C string, and has written to the pointer.
    let (symbol, function) = unsafe { (CStr::from_ptr(symbol), &mut *function) };
    if !function.is_null() {
        *function = instead_of(entries, symbol, *function, version, flags & PER_THREAD != 0);
    }
    Ok(())
}
