//! A stand-in for a container, for programs that run without one: preloaded after the limiter.
//!
//! * With `STANDIN_ROOT`, files below `/etc/kerf` and `/run/kerf` are those below that directory, as mounts would make
//!   them.
//! * With `STANDIN_CLOCK`, `CLOCK_MONOTONIC`, the coarse one as well, is the simulated clock of that file.
//!
//! Without them every call goes to the C library.

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use kerf_standin_card::clock::Clock;

fn clock() -> Option<&'static Clock> {
    static CLOCK: OnceLock<Option<Clock>> = OnceLock::new();
    CLOCK
        .get_or_init(|| {
            let clock = Clock::join(Path::new(&std::env::var_os("STANDIN_CLOCK")?)).expect("STANDIN_CLOCK");
            // SAFETY: the function has no arguments and exists until the very end.
            unsafe { libc::atexit(leave) };
            Some(clock)
        })
        .as_ref()
}

extern "C" fn leave() {
    if let Some(clock) = clock() {
        clock.leave();
    }
}

/// Replaces the C library's.
///
/// # Safety
///
/// As `clock_gettime(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(id: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    if matches!(id, libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE)
        && let Some(clock) = clock()
    {
        let now = clock.now();
        let value = libc::timespec { tv_sec: (now / 1_000_000_000) as i64, tv_nsec: (now % 1_000_000_000) as i64 };
        // SAFETY: the caller's pointer.
        unsafe { time.write(value) };
        return 0;
    }
    // not by a system call, which costs ten times as much
    static REAL: OnceLock<unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int> = OnceLock::new();
    let real = REAL.get_or_init(|| {
        // SAFETY: the C library has a function of this name, with this signature.
        unsafe { mem::transmute(libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr())) }
    });
    // SAFETY: the caller's arguments.
    unsafe { real(id, time) }
}

/// Replaces the C library's.
///
/// # Safety
///
/// As `clock_nanosleep(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn clock_nanosleep(
    id: libc::clockid_t,
    flags: c_int,
    time: *const libc::timespec,
    left: *mut libc::timespec,
) -> c_int {
    if id == libc::CLOCK_MONOTONIC
        && let Some(clock) = clock()
    {
        // SAFETY: the caller's pointer.
        let time = unsafe { time.read() };
        let moment = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
        clock.sleep_until(if flags & libc::TIMER_ABSTIME != 0 { moment } else { clock.now() + moment });
        return 0;
    }
    // the real one: a thread that is cancelled in it is unwound, so this function can be as well
    type Sleep =
        unsafe extern "C-unwind" fn(libc::clockid_t, c_int, *const libc::timespec, *mut libc::timespec) -> c_int;
    static REAL: OnceLock<Sleep> = OnceLock::new();
    let real = REAL.get_or_init(|| {
        // SAFETY: the C library has a function of this name, with this signature.
        unsafe { mem::transmute(libc::dlsym(libc::RTLD_NEXT, c"clock_nanosleep".as_ptr())) }
    });
    // SAFETY: the caller's arguments.
    unsafe { real(id, flags, time, left) }
}

/// Replaces the C library's. The mode is a third argument for files that are made, and ignored otherwise: on the
/// supported architectures it is passed as any other argument.
///
/// # Safety
///
/// As `open(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller's string.
    let asked = unsafe { CStr::from_ptr(path) };
    let path = redirect(asked);
    let path = path.as_deref().unwrap_or(asked);
    // SAFETY: a C string and the caller's arguments.
    let result = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, mode) };
    result as c_int
}

fn redirect(path: &CStr) -> Option<CString> {
    let bytes = path.to_bytes();
    if !bytes.starts_with(b"/etc/kerf/") && !bytes.starts_with(b"/run/kerf/") {
        return None;
    }
    let root = std::env::var_os("STANDIN_ROOT")?;
    CString::new([root.as_bytes(), bytes].concat()).ok()
}
