//! The program `kerf-plugin`.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use kerf_plugin::config::{Args, Config};
use kerf_plugin::{LabelMode, doctor, two_dashes};
use kerf_runtime::shutdown::Tasks;

fn main() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(run());
    // a call of a driver or a disk may never return: its thread is not waited for
    runtime.shutdown_background();
    ended
}

async fn run() -> anyhow::Result<ExitCode> {
    let mut words = two_dashes(std::env::args_os());
    if words.get(1).is_some_and(|word| word == "doctor") {
        words.remove(1);
        return examine(Args::parse_from(words)).await;
    }
    let args = Args::parse_from(words);
    args.log.init()?;
    let config = Config::try_from(args)?;
    let signals = Tasks::default();
    signals.obey_signals()?;
    let client = client(&config).await?;
    kerf_plugin::start(config, client, signals.token().clone()).await?.finished().await?;
    Ok(ExitCode::SUCCESS)
}

/// The connection to the API server. A plugin that can work without one does, and logs what it will not do.
async fn client(config: &Config) -> anyhow::Result<Option<kube::Client>> {
    const WITHOUT: &str = "no condition and no events on the Node when cards fall ill";
    let needed = config.vcuda.is_some() || config.placed || config.labels.mode == LabelMode::Node;
    if !needed && config.node.as_str().is_empty() {
        tracing::info!("no --node-name: {WITHOUT}");
        return Ok(None);
    }
    match kerf_runtime::client::connect(config.kubeconfig.as_deref()).await {
        Ok(client) => Ok(Some(client)),
        Err(error) if !needed => {
            tracing::info!(error = format!("{error:#}"), "no way to the API server: {WITHOUT}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn examine(mut args: Args) -> anyhow::Result<ExitCode> {
    let json = args.json;
    if args.node_name.is_empty() {
        // doctor examines the machine, not its Node
        args.node_name = "this-node".to_owned();
    }
    let report = doctor::examine(&Config::try_from(args)?).await;
    let text = if json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text() };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error).context("standard output"),
        // the reader may have closed the pipe
        _ => {}
    }
    Ok(ExitCode::from(report.status()))
}
