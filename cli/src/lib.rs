//! `kerf inspect` and `kerf plan`: the live extender's own ledger and planner over a snapshot of a cluster.
//! `kerf replay`: the same choice of node and card over a whole workload, for one policy or several.
//!
//! `kerf report`: what was granted and used, from Prometheus.
//!
//! `kerf node-template`: what an autoscaler needs to know of nodes like one of the snapshot's.
//!
//! `kerf doctor`: runs `kerf-plugin doctor`, since the plugin has the drivers.
//!
//! Exit status: 0 success (plan: the pod fits), 1 the pod fits nowhere or breaks a rule, 2 wrong usage or input.

mod doctor;
mod inspect;
mod node_template;
mod notes;
mod plan;
mod print;
mod replay;
mod report;
mod snapshot;
mod unheeded;

use std::path::PathBuf;
use std::process::ExitCode;

use kerf::annotation::{Domain, Keys};
use kerf::policy::Policy;
use kerf::shares::{SHARE_RESOURCES, ShareResources};

/// Exit status where the command line or an input file is wrong.
pub const USAGE: u8 = 2;

/// Look at a cluster's GPUs as kerf's extender does.
///
/// All commands read what `kubectl get nodes,pods --all-namespaces --output json` prints.
#[derive(Debug, clap::Parser)]
#[command(name = "kerf", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Prefix of the resources and annotations
    #[arg(long, global = true, env = "KERF_DOMAIN", default_value_t)]
    domain: Domain,
    /// Resources that are shares by count, joined by commas; a name may end in *
    #[arg(long, global = true, env = "KERF_SHARE_RESOURCES", default_value = SHARE_RESOURCES, value_name = "NAMES")]
    share_resources: ShareResources,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show every GPU: what is held of it, by which pods, and whether anything is wrong
    Inspect {
        /// The snapshot; - reads standard input
        #[arg(default_value = "-", value_name = "SNAPSHOT")]
        snapshot: PathBuf,
    },
    /// Say where a pod would go, and why not elsewhere
    Plan {
        /// The pod, as YAML or JSON
        #[arg(value_name = "POD")]
        pod: PathBuf,
        /// The snapshot; - reads standard input
        #[arg(long, default_value = "-", value_name = "SNAPSHOT")]
        cluster: PathBuf,
        /// How to choose: binpack, spread, best-fit, fgd or fragmentation
        #[arg(long, default_value_t)]
        policy: Policy,
    },
    /// Print what an autoscaler needs to know of nodes like this one, for groups that are at zero
    NodeTemplate(node_template::NodeTemplateArgs),
    /// On a GPU node: say what GPUs it has, which are left out and why, and what kubelet knows (kerf-plugin doctor)
    #[command(disable_help_flag = true)]
    Doctor {
        /// Options of kerf-plugin
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PLUGIN_OPTIONS")]
        options: Vec<std::ffi::OsString>,
    },
    /// Replay a workload and show what each policy would leave unallocated
    Replay(Box<replay::ReplayArgs>),
    /// Show who was given how much of the GPUs, and used how much of that (from Prometheus)
    Report(report::ReportArgs),
}

/// Runs the command.
///
/// # Errors
/// Where an input cannot be read; the text names the file.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let keys = Keys::new(args.domain.clone()).with_shares(args.share_resources.clone());
    match &args.command {
        Command::Inspect { snapshot } => answer(|out| inspect::run(snapshot, &keys, args.json, out)),
        Command::Plan { pod, cluster, policy } => {
            answer(|out| plan::run(pod, cluster, &keys, *policy, args.json, out))
        }
        Command::NodeTemplate(options) => answer(|out| node_template::run(options, &keys, args.json, out)),
        Command::Doctor { options } => doctor::run(options, &args.domain, args.json),
        Command::Replay(options) => replay::run(options, &keys, args.json),
        Command::Report(options) => answer(|out| report::run(options, args.json, out)),
    }
}

/// Prints a command's output.
fn answer(command: impl FnOnce(&mut String) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    let status = command(&mut text)?;
    print::print(&text)?;
    Ok(status)
}
