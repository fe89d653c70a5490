//! A stand-in for `libnvidia-ml.so.1`: one GPU, the file of `STANDIN_CARD`, and queries of its memory.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};
use std::path::Path;
use std::ptr;

use kerf_standin_card::card::{Card, Report};

const SUCCESS: c_int = 0;
const INVALID_ARGUMENT: c_int = 2;
const NOT_FOUND: c_int = 6;
const INSUFFICIENT_SIZE: c_int = 7;
const ARGUMENT_VERSION_MISMATCH: c_int = 25;
const UUID: &[u8] = b"GPU-53a1d000-0000-4000-8000-000000000000\0";

/// `nvmlMemory_t`.
#[repr(C)]
pub struct Memory {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
pub struct Memory2 {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

fn report() -> Option<Report> {
    Some(Card::look(Path::new(&std::env::var_os("STANDIN_CARD")?)).ok()?.report(0))
}

fn the_card() -> *mut c_void {
    ptr::without_provenance_mut(1)
}

/// As the library's.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    if report().is_some() { SUCCESS } else { NOT_FOUND }
}

/// As the library's.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    SUCCESS
}

/// As the library's.
///
/// # Safety
///
/// `count` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { count.write(1) };
    SUCCESS
}

/// As the library's.
///
/// # Safety
///
/// `device` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut *mut c_void) -> c_int {
    if index != 0 {
        return INVALID_ARGUMENT;
    }
    // SAFETY: the caller's promise.
    unsafe { device.write(the_card()) };
    SUCCESS
}

/// As the library's.
///
/// # Safety
///
/// `length` bytes at `uuid` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: *mut c_void, uuid: *mut c_char, length: c_uint) -> c_int {
    if device != the_card() {
        return INVALID_ARGUMENT;
    }
    if (length as usize) < UUID.len() {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: long enough, by the caller's promise.
    unsafe { ptr::copy_nonoverlapping(UUID.as_ptr().cast(), uuid, UUID.len()) };
    SUCCESS
}

/// As the library's.
///
/// # Safety
///
/// `memory` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(device: *mut c_void, memory: *mut Memory) -> c_int {
    let (true, Some(r)) = (device == the_card(), report()) else { return INVALID_ARGUMENT };
    // SAFETY: the caller's promise.
    unsafe { memory.write(Memory { total: r.total, free: r.total - r.used, used: r.used }) };
    SUCCESS
}

/// As the library's.
///
/// # Safety
///
/// `memory` can be read and written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: *mut c_void, memory: *mut Memory2) -> c_int {
    let (true, Some(r)) = (device == the_card(), report()) else { return INVALID_ARGUMENT };
    // SAFETY: the caller's promise.
    let version = unsafe { (*memory).version };
    if version != 2 << 24 | size_of::<Memory2>() as u32 {
        return ARGUMENT_VERSION_MISMATCH;
    }
    let (total, used) = (r.total, r.used);
    // SAFETY: the caller's promise.
    unsafe { memory.write(Memory2 { version, total, reserved: 0, free: total - used, used }) };
    SUCCESS
}
