//! The time, and waiting for a moment.
//!
//! Both call the C library by name, so that a test can replace the time.

use std::ffi::c_int;

/// `PTHREAD_CANCEL_DISABLE`.
const CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// While it lives, a cancellation of the thread waits. The C library would unwind the thread's stack out of a sleep, or a call
/// that opens or reads a file, and that must not pass through this library's functions.
pub struct Uncancelled(c_int);

impl Uncancelled {
    pub fn enter() -> Self {
        let mut old = 0;
        // SAFETY: the pointer is to a local.
        unsafe { pthread_setcancelstate(CANCEL_DISABLE, &raw mut old) };
        Self(old)
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        // SAFETY: the pointer is to this value's own field, and the state is the one from before.
        unsafe { pthread_setcancelstate(self.0, &raw mut self.0) };
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds.
pub fn now() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// The same some milliseconds ago at most, and never later. It takes a small part of the time.
pub fn about() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local of the right type; these clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// Sleeps until `moment`, or until a signal comes.
pub fn sleep_until(moment: u64) {
    let time = libc::timespec {
        tv_sec: (moment / 1_000_000_000) as libc::time_t,
        tv_nsec: (moment % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: the pointer is to a local of the right type, and no pointer is given for the remainder.
    unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const time, std::ptr::null_mut())
    };
}
