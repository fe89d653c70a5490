//! The `kerf-extender` program.

use clap::Parser;
use kerf_extender::config::{Args, Config};
use kerf_runtime::shutdown::Tasks;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    args.log.init()?;
    let config = Config::try_from(&args)?;
    let tasks = Tasks::default();
    tasks.obey_signals()?;
    let client = kerf_runtime::client::connect(args.kubeconfig.as_deref()).await?;
    kerf_extender::start(&config, client, tasks).await?.drained().await;
    Ok(())
}
