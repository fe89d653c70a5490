//! One node.

use kerf::ids::NodeName;
use serde::Serialize;

use super::gpu::Gpu;
use super::total::Totals;
use super::usage::Usage;
use crate::cluster::{self, Cluster, notes, trouble};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    pub name: String,
    /// Its condition `Ready`; null where it is not known.
    pub ready: Option<bool>,
    /// False for a node that `kubectl cordon` has closed.
    pub schedulable: bool,
    /// As `key=value:effect`.
    pub taints: Vec<String>,
    /// Why kerf gives it no pod; null where it does.
    pub trouble: Option<Trouble>,
    /// Whether containers fail on it because of the node itself.
    pub failing: bool,
    /// What is left of it for pods beside GPUs; null where it is not known.
    pub host_free: Option<HostFree>,
    /// Sentences: why it takes no pod, and which pods are not counted as recorded.
    pub notes: Vec<String>,
    /// Sums over its GPUs.
    pub totals: Totals,
    /// By index.
    pub gpus: Vec<Gpu>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// A word, as in the metrics.
    pub code: &'static str,
    pub text: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HostFree {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub pods: u64,
}

impl Node {
    /// `None` for a node with nothing to show: it has no GPU, and nobody says that it should.
    pub(super) fn of(name: &NodeName, node: &cluster::Node, cluster: &Cluster, usage: &Usage) -> Option<Self> {
        let ledger = &node.ledger;
        let (trouble, notes) = (trouble(ledger), notes(ledger));
        if ledger.cards().is_empty() && trouble.is_none() && notes.is_empty() {
            return None;
        }
        let gpus: Vec<Gpu> =
            ledger.cards().iter().map(|card| Gpu::of(name.as_str(), ledger, card, cluster, usage)).collect();
        let mut totals = Totals { nodes: 1, ..Totals::default() }.with_gpus(&gpus);
        totals.holding_pods = ledger.commitments().values().filter(|known| ledger.concerns(known)).count() as u64;
        let left = cluster.survey.left(name.as_str());
        Some(Self {
            name: name.to_string(),
            ready: node.ready,
            schedulable: !node.unschedulable,
            taints: node.taint_texts.clone(),
            trouble: trouble.map(|why| Trouble { code: why.as_str(), text: why.reason() }),
            failing: node.failing,
            host_free: left.map(|left| HostFree {
                cpu_milli: left.cpu,
                memory_mib: left.memory.0,
                pods: left.pods,
            }),
            notes,
            totals,
            gpus,
        })
    }
}
