//! `kerf-cluster up`: a real cluster with kerf and simulated GPUs, until Ctrl-C.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use kerf_cluster::cluster::{Cluster, Options, Way};
use kerf_cluster::place::Place;
use kerf_cluster::programs::Programs;
use kerf_cluster::tools::{Tools, workspace};
use kerf_testkit::tree::Tree;
use tokio::signal::unix::{SignalKind, signal};

/// kerf on real Kubernetes, on this machine, with simulated GPUs
#[derive(Debug, Parser)]
#[command(name = "kerf-cluster", version)]
enum Args {
    /// Bring up a cluster, and clear it away on Ctrl-C
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
        nodes: u8,
        /// How many GPUs on each
        #[arg(long = "gpus", alias = "cards", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
        cards: u8,
        /// Other systems' resources that a second plugin offers on each node: amd, intel, deepomatic or nvidia, several
        /// joined by commas
        #[arg(long, requires = "tree", value_name = "NAMES")]
        profile: Option<String>,
        /// What GPUs it finds: a description such as testkit/trees/mixed.json. There is nothing behind their device
        /// files
        #[arg(long, requires = "profile", value_name = "FILE")]
        tree: Option<PathBuf>,
        /// Further flags of that plugin, as -shared-dev-num=2
        #[arg(last = true, requires = "profile", value_name = "FLAGS")]
        flags: Vec<String>,
    },
    /// Clear away what runs that crashed have left
    Down,
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let result = match Args::parse() {
        Args::Up { nodes, cards, profile, tree, flags } => {
            let way = Way::simulated();
            let options = Options { nodes: nodes.into(), cards: cards.into(), way, ..Options::default() };
            let named = profile.map(|names| [vec![format!("--profile={names}")], flags].concat());
            runtime.block_on(up(&options, tree.zip(named)))
        }
        Args::Down => down(),
    };
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Starts a cluster and waits. `offer`: a description of other GPUs, and flags of the plugins that offer them.
async fn up(options: &Options, offer: Option<(PathBuf, Vec<String>)>) -> anyhow::Result<()> {
    let tools = Tools::find()?;
    let offer = offer.map(|(tree, flags)| anyhow::Ok((Tree::read(&tree)?, flags))).transpose()?;
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
        // what runs by now is removed as after a crash
        () = &mut asked => return clear_own(),
    };
    let others = match &offer {
        Some((tree, flags)) => cluster.offer(tree, flags).await,
        None => Ok(Vec::new()),
    };
    // kept until the end: device files are removed with them
    let others = match others {
        Ok(others) => others,
        Err(error) => {
            cluster.down(None)?;
            return Err(error);
        }
    };
    let kubeconfig = cluster.control.admin();
    let example = workspace().canonicalize()?.join("examples/pods/share.yaml");
    let place = cluster.place();
    println!("\nexport KUBECONFIG={} KUBECACHEDIR={}", kubeconfig.display(), place.path("kubectl-cache").display());
    println!("alias kubectl={}", tools.program("kubectl").display());
    println!("kubectl apply -f {}", example.display());
    println!("kubectl wait --for=condition=Ready pod/share");
    println!("kubectl exec share -- kerf-probe    # what the container was given\n");
    println!("kubectl get pods -n kerf-system -o wide    # kerf's own pods");
    println!(
        "kubectl edit configmap -n kerf-system kerf-simulated-gpus    # the GPUs; plugins read it within a minute\n"
    );
    for (_, paper) in &others {
        println!("the devices of all vendors are a fixture tree in {}", paper.root().display());
    }
    println!("logs of Kubernetes {}\nCtrl-C ends it", place.path("logs").display());
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
