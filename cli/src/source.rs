//! Where the objects of a cluster come from: a running cluster, or a snapshot of one.

mod connect;
mod file;
mod live;
mod metrics;
mod objects;
mod refused;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use kerf::annotation::Keys;

use crate::cluster::{Builder, Cluster};
use crate::view::Usage;
use connect::Wanted;
use live::Live;

pub use file::text;
pub use objects::{Item, plain};

/// Which cluster a command reads.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which cluster")]
pub struct SourceArgs {
    /// Read a snapshot in place of a running cluster, as kubectl get nodes,pods --all-namespaces --output json prints it; - is
    /// standard input
    #[arg(long, global = true, value_name = "SNAPSHOT", conflicts_with_all = ["kubeconfig", "context"])]
    file: Option<PathBuf>,
    /// The kubeconfig; otherwise that of $KUBECONFIG, or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; otherwise its current one
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The namespace of pods; otherwise that of the context
    #[arg(short = 'n', long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// How long one request to the cluster may take: 30s, 2m
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = time)]
    request_timeout: Duration,
    /// The namespace in which kerf runs: its plugins say there what GPUs and containers use
    #[arg(long, global = true, value_name = "NAME", env = "KERF_NAMESPACE", default_value = "kerf-system")]
    kerf_namespace: String,
}

/// A whole number of seconds or minutes.
pub fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 60),
        (None, None) => (text, 1),
    };
    let seconds = number.parse::<u32>().ok().map(|number| u64::from(number) * unit).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| "expected a time such as 30s or 2m".to_owned())
}

/// A cluster that can be read.
pub enum Source {
    Snapshot(PathBuf),
    Running(Box<Live>),
}

impl Source {
    /// Finds the cluster; of a running one, nothing is asked yet.
    ///
    /// # Errors
    /// Where no cluster is configured, or not as the options say.
    pub fn open(args: &SourceArgs) -> anyhow::Result<Self> {
        if let Some(path) = &args.file {
            return Ok(Self::Snapshot(path.clone()));
        }
        let SourceArgs { kubeconfig, context, namespace, request_timeout, .. } = args;
        let wanted =
            Wanted { kubeconfig: kubeconfig.as_deref(), context: context.as_deref(), limit: *request_timeout };
        let kerf_namespace = args.kerf_namespace.clone();
        Ok(Self::Running(Box::new(Live::new(wanted.connect()?, namespace.clone(), kerf_namespace))))
    }

    /// For messages.
    pub fn name(&self) -> String {
        match self {
            Self::Snapshot(path) => path.display().to_string(),
            Self::Running(live) => live.name().to_owned(),
        }
    }

    /// The namespace of the options, otherwise of the context; `None` where a snapshot says none.
    pub fn namespace(&self, args: &SourceArgs) -> Option<String> {
        match self {
            Self::Snapshot(_) => args.namespace.clone(),
            Self::Running(live) => Some(live.namespace().to_owned()),
        }
    }

    /// Calls `visit` with each node, pod and lease, and with a text for its position.
    ///
    /// # Errors
    /// Where the objects cannot be had or read, and those of `visit`.
    pub fn each(&self, visit: &mut dyn FnMut(Item, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        match self {
            Self::Snapshot(path) => file::each(path, visit),
            Self::Running(live) => live.each(visit),
        }
    }

    /// The whole cluster.
    ///
    /// # Errors
    /// As [`Source::each`], and where it has no node.
    pub fn cluster(&self, keys: &Keys) -> anyhow::Result<Cluster> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut builder = Builder::new(keys.clone(), now);
        self.each(&mut |item, at| {
            match item {
                Item::Node(node) => builder.node(&node),
                Item::Lease(lease) => builder.lease(&lease),
                Item::Pod(pod) => builder.pod(*pod).with_context(|| at.to_owned())?,
            }
            Ok(())
        })?;
        let cluster = builder.finish();
        ensure!(!cluster.nodes.is_empty(), "{}: holds no node", self.name());
        Ok(cluster)
    }

    /// What GPUs and containers use now, from the plugins of the nodes.
    pub fn usage(&self, cluster: &Cluster) -> Usage {
        match self {
            Self::Snapshot(_) => Usage::unknown("a snapshot does not have what is used"),
            Self::Running(live) => live.usage(cluster),
        }
    }
}
