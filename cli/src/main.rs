//! The `kerf` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    match kerf_cli::run(&kerf_cli::parsed()) {
        Ok(done) => done,
        Err(error) => {
            kerf::terminal::tell(&format!("error: {error:#}"));
            ExitCode::from(kerf_cli::USAGE)
        }
    }
}
