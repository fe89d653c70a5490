//! Messages to the tenant, on standard error.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering};

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
        // a closed standard error is the program's choice
        let _ = writeln!(io::stderr(), "kerf: {text}");
    }
}

/// A forked child may write every message again.
pub fn forget() {
    SAID.store(0, Ordering::Relaxed);
}
