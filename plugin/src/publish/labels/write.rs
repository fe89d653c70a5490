//! Keeps the labels current: when GPUs change, and now and then in case another client changed them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::jiff::{Timestamp, ToSpan};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{Cluster, ClusterError};
use crate::base::backoff::Backoff;
use crate::base::level_triggered::{self, Next, Publisher};
use crate::device::backend::HostDevice;
use crate::device::label::Labels;
use crate::publish::labels::feature_file;
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
    /// NFD's feature file.
    pub file: PathBuf,
    pub style: Style,
}

/// Labels on the Node itself.
struct OnNode {
    cluster: Cluster,
    /// The annotation that lists the labels of this plugin.
    list: String,
    /// Labels of other clients that were already logged.
    foreign: BTreeSet<String>,
}

/// Why labels cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
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

/// The labels of some sources' GPUs.
pub struct NodeLabels {
    /// NFD's feature file, where it is written or removed.
    file: Option<PathBuf>,
    /// Where labels are written or removed on the Node.
    node: Option<OnNode>,
    /// All labels are to be removed.
    clearing: bool,
    cards: CardsWatch,
    style: Style,
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
        let mut hosts: Vec<&HostDevice> = cards.iter().flat_map(|cards| cards.hosts()).collect();
        // a GPU that several backends of this process list is one GPU
        hosts.sort_by_key(|host| &host.device.id);
        hosts.dedup_by_key(|host| &host.device.id);
        let mut wanted = if self.clearing { Wanted::default() } else { Wanted::of(&hosts, &self.style) };
        let late = self.began.elapsed() >= GRACE || self.clearing;
        if late {
            for (vendor, _) in vendor::labelled() {
                wanted.vendors.entry(vendor).or_default();
            }
        }
        let wrote = self.write(&wanted).await;
        if !wanted.vendors.is_empty() {
            self.last = Some(wanted);
        }
        let wrote = wrote?;
        if self.clearing {
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
            self.node.iter().for_each(|node| node.cluster.failed("node"));
        }
        if new {
            tracing::warn!(%error, hint = error.hint(), "labels not written; trying again");
        }
        Next { quiet: wait.min(self.period), most: Some(wait) }
    }
}

impl NodeLabels {
    /// Labels as `options` say; `None` where there is nothing to do. At most one write every `period`. `cluster`: the
    /// API server, if it can be reached.
    ///
    /// # Errors
    /// Where the Node is to be labelled and there is no connection.
    pub fn new(
        options: &Options,
        cluster: Option<&Cluster>,
        states: &[State],
        period: Duration,
    ) -> anyhow::Result<Option<Self>> {
        let (file, cluster) = match options.mode {
            LabelMode::Off => return Ok(None),
            LabelMode::Nfd => (Some(options.file.clone()), None),
            LabelMode::Node => (None, Some(cluster.context("--labels=node needs the API server")?)),
            LabelMode::Clear => (Some(options.file.clone()), cluster),
        };
        let node = cluster.map(|cluster| OnNode {
            cluster: cluster.clone(),
            list: format!("{}{}", cluster.keys().labels, options.name),
            foreign: BTreeSet::new(),
        });
        Ok(Some(Self {
            file,
            node,
            clearing: options.mode == LabelMode::Clear,
            cards: CardsWatch::of(states),
            style: options.style.clone(),
            period,
            began: Instant::now(),
            last: None,
            cleared: false,
        }))
    }

    /// Keeps the labels until `token` is cancelled. A feature file then stays valid for a while, so that an update
    /// removes no labels.
    pub async fn follow(mut self, token: CancellationToken) {
        level_triggered::follow(&mut self, &token).await;
        if let (Some(file), Some(wanted), false) = (&self.file, self.last, self.clearing) {
            let until = Timestamp::now().checked_add(LEGACY_SECONDS.seconds()).ok();
            if let Err(error) = feature_file::write(file, &wanted, until) {
                tracing::warn!(%error, "expiry of the feature file not written");
            }
        }
    }

    /// Returns whether something was written.
    async fn write(&mut self, wanted: &Wanted) -> Result<bool, PublishError> {
        let mut wrote = false;
        match &self.file {
            // until GPUs are found, the file of a previous run is as right as any
            Some(_) if wanted.vendors.is_empty() => {}
            Some(file) if wanted.vendors.values().all(Labels::is_empty) => feature_file::remove(file)?,
            Some(file) => {
                let (file, wanted) = (file.clone(), wanted.clone());
                let written = tokio::task::spawn_blocking(move || feature_file::write(&file, &wanted, None)).await;
                written.map_err(std::io::Error::other)??;
                wrote = true;
            }
            None => {}
        }
        if let Some(node) = &mut self.node {
            wrote |= node.write(wanted).await?;
        }
        Ok(wrote)
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
        self.cluster.patch_node(&shown, &plan.labels, &plan.annotations).await?;
        tracing::info!(labels = plan.labels.len(), "labels written");
        Ok(true)
    }
}
