//! `kerf get` and `kerf plan`: the live extender's own ledger and planner over a cluster, running or in a snapshot.
//! `kerf replay`: the same choice of node and card over a whole workload, for one policy or several.
//!
//! `kerf report`: what was granted and used, from Prometheus.
//!
//! [`cluster`] makes ledgers of a cluster's objects, [`view`] a document of them, and the commands print parts of that.
//! Objects come from `source`.
//!
//! `kerf node-template`: what an autoscaler needs to know of nodes like one of the cluster's.
//!
//! `kerf doctor`: runs `kerf-plugin doctor`, since the plugin has the drivers.
//!
//! Exit status: 0 success (plan: all pods fit), 1 a pod fits nowhere or breaks a rule, or `get` finds nothing, 2 wrong usage or
//! input.

#![allow(missing_docs, reason = "a name that says everything needs no comment")]

mod amounts;
pub mod cluster;
mod doctor;
pub mod explain;
mod generated;
mod get;
mod node_template;
mod output;
mod place;
mod plan;
mod print;
mod replay;
mod report;
mod source;
mod table;
mod top;
mod unheeded;
pub mod view;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use kerf::annotation::{Domain, Keys};
use kerf::shares::{SHARE_RESOURCES, ShareResources};

/// Exit status where the command line or an input file is wrong.
pub const USAGE: u8 = 2;

/// The name of a program that kubectl runs as `kubectl kerf`.
const PLUGIN: &str = "kubectl-kerf";

/// Look at a cluster's GPUs as kerf's extender does.
///
/// The cluster is that of the kubeconfig, or a snapshot (--file). Nothing in it is changed.
#[derive(Debug, clap::Parser)]
#[command(name = "kerf", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Prefix of the resources and annotations
    #[arg(long, global = true, env = "KERF_DOMAIN", default_value_t)]
    domain: Domain,
    /// Resources that are shares by count, joined by commas; a name may end in *. Otherwise those that kerf's plugins serve
    #[arg(
        long,
        global = true,
        env = "KERF_SHARE_RESOURCES",
        default_value = SHARE_RESOURCES,
        hide_default_value = true,
        value_name = "NAMES"
    )]
    share_resources: ShareResources,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    source: source::SourceArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show nodes, GPUs and pods: who holds how much of which GPU, and whether anything is wrong
    Get(get::GetArgs),
    /// Show what GPUs, nodes or pods were granted and use, again and again
    Top(top::TopArgs),
    /// Say why a pod waits, or why it is where it is
    Explain(explain::ExplainArgs),
    /// Say where pods would go, and why not elsewhere
    Plan(plan::PlanArgs),
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
    /// Print a script with which a shell completes this command's arguments
    Completion(generated::CompletionArgs),
    /// Print the manual
    Man(generated::ManArgs),
}

/// The command line; as a plugin of kubectl (`kubectl-kerf`) the help has the name by which it was called.
pub fn parsed() -> Args {
    let program = std::env::args_os().next().unwrap_or_default();
    let program = std::path::Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let command = match program.starts_with(PLUGIN) {
        true => Args::command().bin_name("kubectl kerf"),
        false => Args::command(),
    };
    Args::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// Runs the command.
///
/// # Errors
/// Where an input cannot be read; the text names the file.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let keys = Keys::new(args.domain.clone()).with_shares(args.share_resources.clone());
    let from = &args.source;
    match &args.command {
        Command::Get(options) => answer(|out| get::run(options, from, &keys, args.json, out)),
        Command::Explain(options) => answer(|out| explain::run(options, from, &keys, args.json, out)),
        Command::Plan(options) => answer(|out| plan::run(options, from, &keys, args.json, out)),
        Command::NodeTemplate(options) => answer(|out| node_template::run(options, from, &keys, args.json, out)),
        Command::Doctor { options } => doctor::run(options, &args.domain, args.json),
        Command::Report(options) => answer(|out| report::run(options, args.json, out)),
        Command::Replay(options) => replay::run(options, from, &keys, args.json),
        Command::Top(options) => top::run(options, from, &keys, args.json),
        Command::Completion(options) => done(print::raw(&generated::completion(options, Args::command()))),
        Command::Man(options) => done(print::raw(&generated::man(options, Args::command())?)),
    }
}

fn done(printed: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    printed.map(|()| ExitCode::SUCCESS)
}

/// Prints a command's output.
fn answer(command: impl FnOnce(&mut String) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    let status = command(&mut text)?;
    print::print(&text)?;
    Ok(status)
}
