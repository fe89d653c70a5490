//! `release.sh`: what it refuses before anything is built, and, where `KERF_RELEASE` names the folder of its files, what it made.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test")]

mod krew;
mod made;
mod refused;

use std::process::{Command, Output};

/// What a command printed; it must have succeeded.
fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}
