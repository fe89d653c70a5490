//! What whoever starts a program wrongly is told.

use std::process::Command;

/// The exit status of a program that was started with these flags and without any environment, and its standard error.
///
/// # Errors
/// Where it cannot be started.
pub fn told(program: &str, flags: &[&str]) -> std::io::Result<(Option<i32>, String)> {
    let mut command = Command::new(program);
    // no cluster is found in the environment; and a backtrace would be more than one message
    command.args(flags).env_clear().env("RUST_BACKTRACE", "1").env("HOME", "/nonexistent");
    let output = command.output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}
