//! What the tenant is told, on standard error.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering};

/// Something that is said once in a process.
#[derive(Clone, Copy, Debug)]
pub enum Topic {
    /// The container cannot be held to its limits, so its cards are shut.
    Closed = 0,
    /// A card that the limits do not name.
    Unlisted = 1,
    /// A version of a function that is not known.
    Version = 2,
    /// An error of the limiter.
    Fault = 3,
}

static SAID: AtomicU32 = AtomicU32::new(0);

/// Says it, unless this process has heard of the topic.
pub fn once(topic: Topic, text: fmt::Arguments<'_>) {
    let bit = 1 << topic as u32;
    if SAID.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        // a closed standard error is the program's choice
        let _ = writeln!(io::stderr(), "kerf: {text}");
    }
}

/// In a forked child everything may be said again.
pub fn forget() {
    SAID.store(0, Ordering::Relaxed);
}
