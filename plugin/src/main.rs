//! The program `kerf-plugin`.

use clap::Parser as _;
use kerf::runtime::shutdown::Tasks;
use kerf_plugin::config::{Args, Config};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    args.log.init()?;
    let config = Config::try_from(args)?;
    let signals = Tasks::default();
    signals.obey_signals()?;
    let client = kerf::runtime::client::connect(config.kubeconfig.as_deref()).await?;
    kerf_plugin::run(config, client, signals.token().clone()).await
}
