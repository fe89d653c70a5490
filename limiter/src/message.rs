//! Messages to the tenant, on standard error.

use std::ffi::c_int;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fmt, mem, ptr};

/// A message that is written once per process.
#[derive(Clone, Copy, Debug)]
pub enum Topic {
    /// The container cannot be held to its limits, so it cannot use its GPUs.
    Closed = 0,
    /// A GPU that the limits do not name.
    Unlisted = 1,
    /// An unknown version of a function.
    Version = 2,
    /// An internal error of the limiter.
    Fault = 3,
}

static SAID: AtomicU32 = AtomicU32::new(0);

/// Writes the message, unless this process has written one of this topic.
pub fn once(topic: Topic, text: fmt::Arguments<'_>) {
    let bit = 1 << topic as u32;
    if SAID.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        let _quiet = Quiet::enter();
        // a closed standard error is the program's choice
        let _ = writeln!(io::stderr(), "kerf: {text}");
    }
}

/// The signals of a write to a pipe that nobody reads, and to a file that must not grow. They would end the program.
const SIGNALS: [c_int; 2] = [libc::SIGPIPE, libc::SIGXFSZ];

/// While it lives, a write of this thread raises no signal that the program sees.
struct Quiet {
    mask: libc::sigset_t,
    pending: libc::sigset_t,
}

impl Quiet {
    fn enter() -> Self {
        // SAFETY: zero bytes are a value of these sets, and all pointers are to locals.
        unsafe {
            let (mut pending, mut mask) = (mem::zeroed(), mem::zeroed());
            libc::sigpending(&raw mut pending);
            let noisy = set(&SIGNALS);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const noisy, &raw mut mask);
            Self { mask, pending }
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the sets are this value's own and locals; no pointer is given for the signal's origin.
        unsafe {
            for signal in SIGNALS {
                // one of the program's own stays
                if libc::sigismember(&raw const self.pending, signal) == 0 {
                    let one = set(&[signal]);
                    libc::sigtimedwait(&raw const one, ptr::null_mut(), &raw const now);
                }
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.mask, ptr::null_mut());
        }
    }
}

fn set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: zero bytes are a value of the set, and the pointer is to a local.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// A forked child may write every message again.
pub fn forget() {
    SAID.store(0, Ordering::Relaxed);
}
