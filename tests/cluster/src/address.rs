//! Addresses on this machine's loopback interface. Each carries the name of the run that added it, so that the next run can
//! remove those of a run that crashed.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, bail};

use crate::tools::output;

/// Adds an address, under a label by which [`remove`] finds it. Whether it was not there yet.
///
/// # Errors
/// Where the system refuses.
pub fn add(address: Ipv4Addr, label: &str) -> anyhow::Result<bool> {
    let mut command =
        ip(&["address", "add", &format!("{address}/32"), "dev", "lo", "label", &format!("lo:{label}")]);
    let output = command.output().context("busybox")?;
    let error = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(true),
        false if error.contains("File exists") => Ok(false),
        false => bail!("{command:?}: {}\n{error}", output.status),
    }
}

/// Removes the addresses with this label.
///
/// # Errors
/// Where the system refuses.
pub fn remove(label: &str) -> anyhow::Result<()> {
    let label = format!("lo:{label}");
    let found = output(&mut ip(&["-o", "-f", "inet", "address", "show", "dev", "lo"]))?;
    for line in found.lines() {
        let mut words = line.split_whitespace();
        if let Some(address) = words.by_ref().skip_while(|word| *word != "inet").nth(1)
            && words.any(|word| word.trim_end_matches('\\') == label)
        {
            output(&mut ip(&["address", "del", address, "dev", "lo"]))?;
        }
    }
    Ok(())
}

/// busybox has it: a machine need not have iproute2.
fn ip(args: &[&str]) -> Command {
    let mut command = Command::new("busybox");
    command.arg("ip").args(args);
    command
}
