//! What the tables and the page show of a cluster, as one document: nodes with their GPUs and who holds them, and the
//! pods that ask for GPUs. Pure; [`View::of`] makes it of a [`Cluster`], and its JSON has all that any table shows.
//!
//! Compute is in thousandths of a GPU (for sums, of GPUs), memory in MiB. *Granted* is what pods hold by the records;
//! *used* is what drivers measured, and is null where it is not known.

mod amount;
mod gpu;
mod node;
mod part;
mod pod;
mod total;
mod usage;

use serde::Serialize;

use crate::cluster::Cluster;

pub use amount::Amount;
pub use gpu::{Gpu, Holder, State as GpuState};
pub use node::{HostFree, Node, Trouble};
pub use part::Shares;
pub use pod::{Asked, Container, Grant, Pod, State as PodState, Waiting};
pub use total::Totals;
pub use usage::{ContainerUse, GpuUse, Unmeasured, Usage};

/// Raised where a field changes its meaning or goes; a new field does not raise it.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    pub version: u32,
    /// Prefix of the resources and annotations.
    pub domain: String,
    pub totals: Totals,
    /// By name: those with GPUs, and those that have none although a plugin or a pod says otherwise.
    pub nodes: Vec<Node>,
    /// By namespace and name: those that ask for GPUs or hold some; with those that have ended and still exist.
    pub pods: Vec<Pod>,
    /// kerf's schedulers; null where the lease is not known.
    pub schedulers: Option<Schedulers>,
    /// Nodes of which it is not known what their GPUs and containers use, by name, with the reason.
    pub unmeasured: Vec<Unmeasured>,
    /// Sentences about the cluster as a whole.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schedulers {
    /// The pod that holds the lease; null: nobody.
    pub active: Option<String>,
    pub standby: Vec<String>,
}

impl View {
    /// Everything that is known of a cluster.
    pub fn of(cluster: &Cluster, usage: &Usage) -> Self {
        let nodes: Vec<Node> =
            cluster.nodes.iter().filter_map(|(name, node)| Node::of(name, node, cluster, usage)).collect();
        let pods: Vec<Pod> = cluster.pods.iter().map(|pod| Pod::of(pod, cluster, usage)).collect();
        let unmeasured =
            usage.unmeasured(nodes.iter().filter(|node| !node.gpus.is_empty()).map(|node| &*node.name));
        Self {
            version: VERSION,
            domain: cluster.keys.domain.to_string(),
            totals: totals(&nodes, &pods),
            nodes,
            pods,
            schedulers: cluster.replicas.known().map(|(active, standby)| Schedulers { active, standby }),
            unmeasured,
            notes: cluster.note().into_iter().collect(),
        }
    }
}

impl View {
    /// Counts what is left of it, after nodes, GPUs or pods were taken out.
    pub fn count_again(&mut self) {
        for node in &mut self.nodes {
            let own = Totals { nodes: 1, holding_pods: node.totals.holding_pods, ..Totals::default() };
            node.totals = own.with_gpus(&node.gpus);
        }
        self.totals = totals(&self.nodes, &self.pods);
    }
}

fn totals(nodes: &[Node], pods: &[Pod]) -> Totals {
    let all = nodes.iter().fold(Totals::default(), |totals, node| totals.with_gpus(&node.gpus));
    let count = |state: &[PodState]| pods.iter().filter(|pod| state.contains(&pod.state)).count() as u64;
    Totals {
        nodes: nodes.iter().filter(|node| !node.gpus.is_empty()).count() as u64,
        holding_pods: count(&[PodState::Placed, PodState::Running]),
        waiting_pods: count(&[PodState::Waiting]),
        ..all
    }
}
