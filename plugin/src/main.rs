//! The program `kerf-plugin`.

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser as _};
use kerf::terminal;
use kerf_plugin::config::{Args, Config};
use kerf_plugin::{LabelMode, doctor, prune, two_dashes};
use kerf_runtime::ending::{WRONG_USAGE, failure, wrong_usage};
use kerf_runtime::shutdown::Tasks;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error.into()),
    };
    let ended = runtime.block_on(run());
    // a call of a driver or a disk may never return: its thread is not waited for
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| failure(&error))
}

async fn run() -> anyhow::Result<ExitCode> {
    let mut words = two_dashes(std::env::args_os());
    if words.get(1).is_some_and(|word| word == "doctor") {
        words.remove(1);
        return examine(doctor_args(words)).await;
    }
    if words.get(1).is_some_and(|word| word == "prune") {
        words.remove(1);
        prune::run(&prune::Args::parse_from(words)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let (config, client) = match prepare(Args::parse_from(words)).await {
        Ok(prepared) => prepared,
        Err(error) => return Ok(wrong_usage(&error)),
    };
    let signals = Tasks::default();
    signals.obey_signals()?;
    kerf_plugin::start(config, client, signals.token().clone()).await?.finished().await?;
    Ok(ExitCode::SUCCESS)
}

/// What the flags say, before anything is opened.
async fn prepare(args: Args) -> anyhow::Result<(Config, Option<kube::Client>)> {
    args.log.init()?;
    let config = Config::try_from(args)?;
    let client = client(&config).await?;
    Ok((config, client))
}

/// The connection to the API server. A plugin that can work without one does, and logs what it will not do.
async fn client(config: &Config) -> anyhow::Result<Option<kube::Client>> {
    const WITHOUT: &str = "no condition and no events on the Node when GPUs become unhealthy";
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

/// The flags of `kerf-plugin doctor`: the plugin's own, under a help text that says what doctor does.
fn doctor_args(words: Vec<OsString>) -> Args {
    let command = Args::command()
        .bin_name("kerf-plugin doctor")
        .about(
            "Reports which GPUs this machine has, which are left out and why, and what kubelet knows of them. Changes \
             nothing. Takes the flags of kerf-plugin, and --json",
        )
        .after_help("Exit status 0: all is well, 1: a problem, 2: wrong usage, 3: no GPU")
        .mut_arg("json", |json| json.hide(false).help("Print JSON"));
    Args::from_arg_matches(&command.get_matches_from(words)).unwrap_or_else(|error| error.exit())
}

async fn examine(mut args: Args) -> anyhow::Result<ExitCode> {
    let json = args.json;
    if args.node_name.is_empty() {
        // doctor examines the machine, not its Node
        args.node_name = "this-node".to_owned();
    }
    let config = match Config::try_from(args) {
        Ok(config) => config,
        Err(error) => {
            terminal::tell(&format!("error: {error}"));
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    };
    let report = doctor::examine(&config).await;
    let text = if json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text() };
    match std::io::stdout().write_all(terminal::lines(&text).as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error).context("standard output"),
        // the reader may have closed the pipe
        _ => {}
    }
    Ok(ExitCode::from(report.status()))
}
