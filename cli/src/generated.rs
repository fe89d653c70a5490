//! `kerf completion` and `kerf man`: what is made of the command line's own description.

use std::path::PathBuf;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// A page for each command, into this folder; otherwise the first page is printed
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

/// The script that a shell reads.
pub fn completion(args: &CompletionArgs, mut command: Command) -> String {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual, where it is not written into a folder.
///
/// # Errors
/// Where the folder cannot be written.
pub fn man(args: &ManArgs, command: Command) -> anyhow::Result<String> {
    match &args.to {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            clap_mangen::generate_to(command, folder).with_context(|| folder.display().to_string())?;
            Ok(String::new())
        }
        None => page(command),
    }
}

fn page(command: Command) -> anyhow::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).context("manual")?;
    String::from_utf8(page).context("manual")
}
