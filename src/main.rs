//! The `kerf` command.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(&cli::Args::parse()) {
        Ok(done) => done,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(cli::USAGE)
        }
    }
}
