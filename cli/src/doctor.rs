//! `kerf doctor`: the plugin's report on its node. It is part of the plugin, which has the drivers; this command only
//! finds that program, beside itself or on the path, and runs it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;
use kerf::annotation::Domain;

const PROGRAM: &str = "kerf-plugin";

/// Runs `kerf-plugin doctor` with these options, and with those of `kerf` that it shares.
///
/// # Errors
/// Where the program is not found.
pub fn run(options: &[OsString], domain: &Domain, json: bool) -> anyhow::Result<ExitCode> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(PROGRAM)));
    let program = beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM));
    let mut doctor = Command::new(&program);
    doctor.arg("doctor");
    if *domain != Domain::default() {
        doctor.arg("--domain").arg(domain.to_string());
    }
    if json {
        doctor.arg("--json");
    }
    let error = doctor.args(options).exec();
    Err(error).with_context(|| format!("{} cannot be started; doctor is a command of it", program.display()))
}
