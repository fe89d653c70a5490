//! A driver that pools ask, and that gives nothing back.

#![allow(non_snake_case, clippy::missing_safety_doc, reason = "the driver's own")]

use std::ffi::c_int;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::abi::{Handle, Pointer, SUCCESS, Status};

static RESERVED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

pub fn reset() {
    RESERVED.iter().for_each(|pool| pool.store(0, Ordering::SeqCst));
}

pub fn grow(pool: usize, bytes: u64) -> Status {
    RESERVED[pool].fetch_add(bytes, Ordering::SeqCst);
    SUCCESS
}

pub fn reserved(pool: usize) -> u64 {
    RESERVED[pool].load(Ordering::SeqCst)
}

pub unsafe fn cuMemPoolGetAttribute(pool: Handle, _: c_int, value: *mut u64) -> Status {
    // SAFETY: the caller's pointer.
    unsafe { value.write(reserved(pool.addr())) };
    SUCCESS
}

pub unsafe fn cuMemPoolTrimTo(_: Handle, _: usize) -> Status {
    SUCCESS
}

pub unsafe fn cuMemFreeAsync(_: Pointer, _: Handle) -> Status {
    SUCCESS
}
