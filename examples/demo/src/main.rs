//! All of kerf in one process: `cargo demo`.
//!
//! The API server, the scheduler and the kubelets are stand-ins that speak the real protocols over loopback; the
//! extender and the plugins are the real ones, with simulated GPUs. It needs no GPU, no cluster and no root rights.

mod cards;
mod pods;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use serde_json::Value;

use kerf_system::stack::{MachineSpec, Stack, StackConfig};
use kerf_system::trace;

/// Watch pods that ask for fractions of a GPU land on physical cards.
#[derive(Debug, Parser)]
struct Args {
    /// End when everything is placed; exit status 1 if anything is unplaced or two parties disagree
    #[arg(long)]
    once: bool,
    /// Folder of the Alibaba GPU trace (github.com/alibaba/clusterdata, cluster-trace-gpu-v2023), packed or not
    #[arg(long, value_name = "PATH")]
    trace: Option<PathBuf>,
    /// How many pods of the trace to take
    #[arg(long, default_value_t = 200, requires = "trace", value_parser = clap::value_parser!(u16).range(1..=5000))]
    pods: u16,
    /// Decides every order that the stand-ins leave to chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    log: LogArgs,
}

/// What of the daemons' logs to show.
#[derive(Debug, clap::Args)]
struct LogArgs {
    /// Show logs of the extender and the plugins: a level such as info
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(filter) = args.log.log.clone() {
        use kerf_runtime::telemetry::{LogArgs, LogFormat};
        LogArgs { filter, format: LogFormat::Text }.init()?;
    }
    let (machines, pods) = match &args.trace {
        Some(folder) => {
            let (nodes, pods) = trace::files(folder)?;
            let trace = trace::read(&nodes, &pods, args.pods.into())?;
            println!(
                "{} pods with GPUs from {} ({} without were left out), {} nodes for them; every GPU has {} GiB, and a \
                 share's memory is its part of that",
                trace.pods.len(),
                pods.display(),
                trace.without_gpu,
                trace.machines.len(),
                trace::CARD_MIB >> 10
            );
            (trace.machines, trace.pods)
        }
        None => (cards::machines(), pods::examples()?),
    };
    let (good, stack) = tokio::select! {
        done = run(&args, &machines, pods) => done?,
        _ = tokio::signal::ctrl_c() => {
            println!("\nstopped");
            return Ok(ExitCode::SUCCESS);
        }
    };
    if !args.once {
        println!("\nLook around with curl while it runs; Ctrl-C ends it.");
        tokio::signal::ctrl_c().await?;
        println!("\nstopping");
    }
    stack.shutdown().await?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts everything, submits the pods, prints the result. Returns whether all are placed and all parties agree, and
/// what runs.
async fn run(args: &Args, machines: &[MachineSpec], pods: Vec<Value>) -> anyhow::Result<(bool, Stack)> {
    println!(
        "kerf {}: extender and plugins are real; API server, scheduler and kubelets are stand-ins",
        env!("CARGO_PKG_VERSION")
    );
    print!("starting {} nodes with simulated GPUs ... ", machines.len());
    report::flush();
    let stack =
        Stack::start(machines, StackConfig { seed: args.seed, batching: false, ..Default::default() }).await?;
    println!("ready");

    let count = pods.len();
    for pod in pods {
        stack.submit(pod)?;
    }
    let running = report::progress(&stack, count).await;
    let audit = kerf_system::audit::audit(&stack)?;
    if args.trace.is_none() {
        cards::show_load(&stack, &audit)?;
        report::pods(&stack, &audit)?;
    }
    report::cards(&stack, &audit);
    report::addresses(&stack);
    if args.trace.is_none() {
        report::metrics(&stack).await.context("metrics")?;
    }
    let good = report::verdict(&audit, count, running.is_ok());
    Ok((good, stack))
}
