//! Output of commands.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use kerf::terminal;

/// Adds a line to a command's output.
pub fn say(out: &mut String, line: &str) {
    out.push_str(&terminal::line(line));
    out.push('\n');
}

/// Prints a command's whole output. A closed pipe is no error: the reader may stop early.
///
/// # Errors
/// Where standard output cannot be written.
pub fn print(text: &str) -> anyhow::Result<()> {
    raw(&terminal::lines(text))
}

/// The same, with every character: for text that has no names of others in it.
///
/// # Errors
/// Where standard output cannot be written.
pub fn raw(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output"),
    }
}
