//! `kerf-cluster up`: a real cluster with kerf and simulated cards, until Ctrl-C.

use std::time::Duration;

use clap::Parser;
use kerf_cluster::cluster::{Cluster, Options};
use kerf_cluster::place::Place;
use kerf_cluster::programs::Programs;
use kerf_cluster::tools::{Tools, workspace};
use tokio::signal::unix::{SignalKind, signal};

/// kerf on real Kubernetes, on this machine, with simulated cards
#[derive(Debug, Parser)]
#[command(name = "kerf-cluster", version)]
enum Args {
    /// Bring up a cluster, and clear it away on Ctrl-C
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
        nodes: u8,
        /// How many cards on each
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
        cards: u8,
        /// What kerf's programs log
        #[arg(long, default_value = "info", value_name = "FILTER")]
        log: String,
    },
    /// Clear away what runs that crashed have left
    Down,
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let result = match Args::parse() {
        Args::Up { nodes, cards, log } => {
            let options = Options { nodes: nodes.into(), cards: cards.into(), log, ..Options::default() };
            runtime.block_on(up(&options))
        }
        Args::Down => down(),
    };
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn up(options: &Options) -> anyhow::Result<()> {
    let tools = Tools::find()?;
    let programs = Programs::build(false)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let asked = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(asked);
    let cluster = tokio::select! {
        cluster = Cluster::up(&tools, &programs, options) => cluster?,
        // what runs by now is cleared away as after a crash
        () = &mut asked => return clear_own(),
    };
    let kubeconfig = cluster.control.admin();
    let example = workspace().canonicalize()?.join("examples/pods/share.yaml");
    println!("\nexport KUBECONFIG={}", kubeconfig.display());
    println!("alias kubectl={}", tools.program("kubectl").display());
    println!("kubectl apply -f {}", example.display());
    println!("kubectl exec share -- kerf-probe    # what the container was given");
    println!("curl -s http://127.0.0.1:{}/debug/state\n", cluster.control.ports.extender);
    for node in &cluster.nodes {
        println!("{}: cards {} (edit and watch)", node.name, node.cards.file().display());
    }
    println!("logs {}\nCtrl-C ends it", cluster.place().path("logs").display());
    asked.await;
    println!("clearing away");
    cluster.down(None)
}

fn clear_own() -> anyhow::Result<()> {
    for place in Place::all()? {
        if place.owner().is_some_and(|owner| owner.pid == std::process::id()) {
            place.clear(None)?;
        }
    }
    Ok(())
}

fn down() -> anyhow::Result<()> {
    for place in Place::abandoned()? {
        println!("clearing away {}", place.root().display());
        place.clear(None)?;
    }
    Ok(())
}
