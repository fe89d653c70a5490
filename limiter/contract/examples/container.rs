//! Writes the files that a container with one share is given, into a folder: `limits`, `allowance`, `state`.
//!
//! `cargo run -p kerf-limiter-contract --example container -- FOLDER UUID MEMORY_MIB CORE CEILING [CONTEXT_MIB]`

use std::path::Path;
use std::{env, fs, process};

use kerf_limiter_contract::limits::{DeviceLimits, Limits};
use kerf_limiter_contract::{allowance, state};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Err(error) = write(&arguments) {
        eprintln!("{error}");
        process::exit(2);
    }
}

fn write(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [folder, uuid, memory, core, ceiling, context @ ..] = arguments else {
        return Err("usage: container FOLDER UUID MEMORY_MIB CORE CEILING [CONTEXT_MIB]".into());
    };
    let context = context.first().map_or(Ok(0), |mib| mib.parse::<u64>())? << 20;
    let memory = memory.parse::<u64>()? << 20;
    let (core, ceiling) = (core.parse()?, ceiling.parse()?);
    let device = DeviceLimits { uuid: uuid.clone(), memory, core, ceiling, context };
    let folder = Path::new(folder);
    fs::write(folder.join("limits"), Limits::new(vec![device])?.render())?;
    fs::write(folder.join("allowance"), allowance::blank())?;
    let path = folder.join("state");
    fs::write(&path, state::blank(state::VERSION))?;
    fs::File::options().write(true).open(&path)?.set_len(state::BYTES as u64)?;
    Ok(())
}
