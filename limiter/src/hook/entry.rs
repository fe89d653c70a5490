//! `cuGetProcAddress`, by which the CUDA runtime gets all of the driver's functions.

use std::ffi::{CStr, c_char, c_int, c_ulonglong, c_void};

use crate::abi::Status;
use crate::table::{check, instead_of};

/// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`.
const PER_THREAD: c_ulonglong = 2;

pub unsafe fn get(
    real: real!(*const c_char, *mut *mut c_void, c_int, c_ulonglong),
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: c_ulonglong,
) -> Result<(), Status> {
    check(driver!(real(symbol, function, version, flags)))?;
    // SAFETY: the driver has accepted the symbol and the pointer.
    unsafe { replace(symbol, function, version, flags) };
    Ok(())
}

pub unsafe fn get2(
    real: real!(*const c_char, *mut *mut c_void, c_int, c_ulonglong, *mut c_int),
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: c_ulonglong,
    status: *mut c_int,
) -> Result<(), Status> {
    check(driver!(real(symbol, function, version, flags, status)))?;
    // SAFETY: the driver has accepted the symbol and the pointer.
    unsafe { replace(symbol, function, version, flags) };
    Ok(())
}

/// # Safety
///
/// `symbol` is a C string, and `function` was written to.
unsafe fn replace(symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: c_ulonglong) {
    // SAFETY: the caller's promise.
    let (symbol, function) = unsafe { (CStr::from_ptr(symbol), &mut *function) };
    if !function.is_null() {
        *function = instead_of(symbol, *function, version, flags & PER_THREAD != 0);
    }
}
