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
    let client = kerf_plugin::client(&config).await?;
    kerf_plugin::run(config, client, signals.token().clone()).await
}
