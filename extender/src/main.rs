//! The `kerf-extender` program.

use std::process::ExitCode;

use clap::Parser;
use kerf_extender::config::{Args, Config};
use kerf_runtime::ending::{failure, wrong_usage};
use kerf_runtime::shutdown::Tasks;

#[tokio::main]
async fn main() -> ExitCode {
    let (config, client) = match prepare(&Args::parse()).await {
        Ok(prepared) => prepared,
        Err(error) => return wrong_usage(&error),
    };
    match run(&config, client).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error),
    }
}

/// What the flags say, before anything is opened.
async fn prepare(args: &Args) -> anyhow::Result<(Config, kube::Client)> {
    args.log.init()?;
    let config = Config::try_from(args)?;
    let client = kerf_runtime::client::connect(args.kubeconfig.as_deref()).await?;
    Ok((config, client))
}

async fn run(config: &Config, client: kube::Client) -> anyhow::Result<()> {
    let tasks = Tasks::default();
    tasks.obey_signals()?;
    kerf_extender::start(config, client, tasks).await?.drained().await;
    Ok(())
}
