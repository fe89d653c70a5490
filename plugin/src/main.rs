//! The program `kerf-plugin`.

use clap::Parser as _;
use kerf::runtime::shutdown::Tasks;
use kerf_plugin::config::{Args, Config};
use kerf_plugin::profile::flags::two_dashes;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse_from(two_dashes(std::env::args_os()));
    args.log.init()?;
    let config = Config::try_from(args)?;
    let signals = Tasks::default();
    signals.obey_signals()?;
    let client = match config.vcuda {
        true => Some(kerf::runtime::client::connect(config.kubeconfig.as_deref()).await?),
        false => None,
    };
    kerf_plugin::run(config, client, signals.token().clone()).await
}
