//! Keeps the labels current: when GPUs change, and now and then in case another client changed them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::jiff::{Timestamp, ToSpan};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::client::{Cluster, ClusterError};
use crate::api::node::NodePatch;
use crate::base::backoff::Backoff;
use crate::base::counters::Counters;
use crate::base::level_triggered::{self, Next, Publisher};
use crate::device::backend::HostDevice;
use crate::device::label::Labels;
use crate::publish::labels::feature_file::FeatureFile;
use crate::publish::labels::flags::LabelMode;
use crate::publish::labels::node::Plan;
use crate::publish::labels::wanted::{Style, Wanted};
use crate::state::State;
use crate::state::cards_watch::CardsWatch;
use crate::vendor;

/// How often the labels are compared with those wanted.
const REVIEW: Duration = Duration::from_secs(300);
/// A driver that starts late is waited for so long before the labels of a previous run count as wrong.
const GRACE: Duration = Duration::from_secs(600);
/// How long a feature file is valid after the plugin's end: longer than an update takes.
const LEGACY_SECONDS: i64 = 600;

/// What is to be labelled, and where.
#[derive(Clone, Debug)]
pub struct Options {
    pub mode: LabelMode,
    /// Tells this plugin from others on its node: what it offers.
    pub name: String,
    /// Written where the mode is NFD.
    pub file: FeatureFile,
    pub style: Style,
}

pub enum Target {
    /// NFD's directory.
    File(FeatureFile),
    Node(OnNode),
    /// Nowhere: labels are removed from both, from the Node where the API server can be reached.
    Cleared(FeatureFile, Option<OnNode>),
}

pub struct OnNode {
    cluster: Cluster,
    /// The annotation that lists the labels of this plugin.
    list: String,
    /// Labels of other clients that were already logged.
    foreign: BTreeSet<String>,
}

impl Target {
    /// The target that `options` name. `cluster`: the connection to the API server, if any.
    ///
    /// # Errors
    /// Where the Node is to be labelled and there is no connection.
    pub fn of(options: &Options, cluster: Option<Cluster>) -> anyhow::Result<Option<Self>> {
        let node = cluster.map(|cluster| {
            let list = format!("{}{}", cluster.keys().labels, options.name);
            OnNode { cluster, list, foreign: BTreeSet::new() }
        });
        Ok(match options.mode {
            LabelMode::Off => None,
            LabelMode::Nfd => Some(Self::File(options.file.clone())),
            LabelMode::Node => Some(Self::Node(node.context("--labels=node needs the API server")?)),
            LabelMode::Clear => Some(Self::Cleared(options.file.clone(), node)),
        })
    }
}

/// Why labels cannot be written.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("{0}")]
    File(#[from] std::io::Error),
    #[error(transparent)]
    Node(#[from] ClusterError),
}

impl PublishError {
    /// What an administrator can do about it.
    fn hint(&self) -> &'static str {
        match self {
            Self::File(error) if error.kind() == std::io::ErrorKind::NotFound => {
                "is Node Feature Discovery on this node, and its directory mounted? see --features-dir"
            }
            Self::File(_) => "see --features-dir",
            Self::Node(error) if error.refused() => "--labels=node needs manifests/components/node-labels",
            Self::Node(_) => "",
        }
    }
}

/// Keeps the labels of the GPUs of `states` until `token` is cancelled; at most one write every `period`.
pub async fn follow(
    target: Target,
    states: Vec<State>,
    style: Style,
    counters: Counters,
    period: Duration,
    token: CancellationToken,
) {
    let cards = CardsWatch::of(&states);
    let began = Instant::now();
    let mut labels = NodeLabels { target, cards, style, counters, period, began, last: None, cleared: false };
    level_triggered::follow(&mut labels, &token).await;
    labels.end();
}

struct NodeLabels {
    target: Target,
    cards: CardsWatch,
    style: Style,
    counters: Counters,
    period: Duration,
    began: Instant,
    /// The last wanted labels.
    last: Option<Wanted>,
    /// All labels were removed, so nothing is left to do.
    cleared: bool,
}

impl Publisher for NodeLabels {
    type Error = PublishError;

    async fn publish(&mut self) -> Result<Next, PublishError> {
        let cards = self.cards.cards();
        let hosts: Vec<&HostDevice> = cards.iter().flat_map(|cards| cards.hosts()).collect();
        let mut wanted = Wanted::of(&distinct(hosts), &self.style);
        let clearing = matches!(self.target, Target::Cleared(..));
        let late = self.began.elapsed() >= GRACE || clearing;
        if late {
            for (vendor, _) in vendor::labelled() {
                wanted.vendors.entry(vendor).or_default();
            }
        }
        let wrote = write(&mut self.target, &wanted).await;
        if !wanted.vendors.is_empty() {
            self.last = Some(wanted);
        }
        let wrote = wrote?;
        if clearing {
            tracing::info!("labels cleared");
            self.cleared = true;
            return Ok(Next::change());
        }
        let wait = if late { REVIEW } else { REVIEW.min(GRACE.saturating_sub(self.began.elapsed())) };
        let quiet = if wrote { self.period } else { Duration::ZERO };
        Ok(Next { quiet, most: Some(wait.max(self.period)) })
    }

    async fn changed(&mut self) -> bool {
        if self.cleared {
            return std::future::pending().await;
        }
        self.cards.changed().await
    }

    fn failed(&mut self, error: &PublishError, new: bool, backoff: &mut Backoff) -> Next {
        let wait = backoff.failed();
        if let PublishError::Node(error) = error {
            if error.conflict() {
                // the Node was changed between reading and writing, which is normal now and then
                return Next { quiet: wait, most: Some(wait) };
            }
            self.counters.api_errors.with_label_values(&["node"]).inc();
        }
        if new {
            tracing::warn!(%error, hint = error.hint(), "labels not written; trying again");
        }
        Next { quiet: wait.min(self.period), most: Some(wait) }
    }
}

impl NodeLabels {
    /// A feature file stays valid for a while after the plugin's end, so that an update removes no labels.
    fn end(self) {
        if let (Target::File(file), Some(wanted)) = (&self.target, self.last) {
            let until = Timestamp::now().checked_add(LEGACY_SECONDS.seconds()).ok();
            if let Err(error) = file.write(&wanted, until) {
                tracing::warn!(%error, "expiry of the feature file not written");
            }
        }
    }
}

/// A GPU that several backends of this process list is one GPU.
fn distinct(mut hosts: Vec<&HostDevice>) -> Vec<&HostDevice> {
    hosts.sort_by(|a, b| a.device.id.cmp(&b.device.id));
    hosts.dedup_by(|a, b| a.device.id == b.device.id);
    hosts
}

/// Returns whether something was written.
async fn write(target: &mut Target, wanted: &Wanted) -> Result<bool, PublishError> {
    match target {
        // until GPUs are found, the file of a previous run is as right as any
        Target::File(_) if wanted.vendors.is_empty() => Ok(false),
        Target::File(file) if wanted.vendors.values().all(Labels::is_empty) => Ok(file.remove().map(|()| false)?),
        Target::File(file) => {
            let (file, wanted) = (file.clone(), wanted.clone());
            let written = tokio::task::spawn_blocking(move || file.write(&wanted, None)).await;
            written.map_err(std::io::Error::other)??;
            Ok(true)
        }
        Target::Node(node) => node.write(wanted).await,
        Target::Cleared(file, node) => {
            file.remove()?;
            let none = wanted.vendors.keys().map(|vendor| (*vendor, Labels::default())).collect();
            let none = Wanted { vendors: none, gates: Labels::default() };
            match node {
                Some(node) => node.write(&none).await,
                None => Ok(true),
            }
        }
    }
}

impl OnNode {
    async fn write(&mut self, wanted: &Wanted) -> Result<bool, PublishError> {
        if wanted.vendors.is_empty() && wanted.gates.is_empty() {
            return Ok(false);
        }
        let shown = self.cluster.node_metadata().await?;
        let none = BTreeMap::new();
        let (labels, annotations) =
            (shown.labels.as_ref().unwrap_or(&none), shown.annotations.as_ref().unwrap_or(&none));
        let plan = Plan::new(labels, annotations, wanted, &self.list);
        for key in plan.foreign.difference(&self.foreign) {
            tracing::warn!(key, "label is set to a different value by another owner; not changed");
        }
        self.foreign.clone_from(&plan.foreign);
        if plan.is_empty() {
            return Ok(false);
        }
        let patch = NodePatch { labels: plan.labels, annotations: plan.annotations };
        self.cluster.patch_node(&shown, &patch).await?;
        tracing::info!(labels = patch.labels.len(), "labels written");
        Ok(true)
    }
}
