//! How a program ends: one message without a stack backtrace, and an exit status that tells wrong usage from failure.

use std::process::ExitCode;

use kerf::terminal;

/// Exit status where the flags are wrong or do not go together, or what they name cannot be used, as clap has it.
pub const WRONG_USAGE: u8 = 2;

/// Says why the program does not start: somebody has to change how it is started.
pub fn wrong_usage(error: &anyhow::Error) -> ExitCode {
    tell(error);
    ExitCode::from(WRONG_USAGE)
}

/// Says why the program ended before it was told to.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    tell(error);
    ExitCode::FAILURE
}

fn tell(error: &anyhow::Error) {
    terminal::tell(&format!("error: {error:#}"));
}
