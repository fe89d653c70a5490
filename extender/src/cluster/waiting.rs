//! Pods that wait for a node, and which nodes are closed to them although they have room.

use std::sync::Arc;

use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s::{Taints, Toleration};
use kerf::request::GpuRequest;

use super::Cluster;

/// A pod that is not bound yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub pod: PodRef,
    /// What it asks for.
    pub request: Arc<GpuRequest>,
    /// What it tolerates.
    pub tolerations: Arc<[Toleration]>,
}

impl Cluster {
    /// A pod with cards that is not bound yet, if the watch has shown it.
    pub fn waiting(&self, uid: &PodUid) -> Option<Waiting> {
        self.queue.waiting(uid)
    }

    /// What a pod that is not bound yet asks for, if the watch has shown it.
    pub fn pending_request(&self, uid: &PodUid) -> Option<Arc<GpuRequest>> {
        self.queue.request(uid)
    }

    /// What a Node says of who may be bound to it. To be told before [`Cluster::apply_node`], so that no pod finds the
    /// node open in between.
    pub fn apply_taints(&self, node: &NodeName, taints: Taints) {
        if taints.is_empty() {
            self.taints.remove(node);
        } else {
            self.taints.insert(node.clone(), taints);
        }
    }

    /// Why a pod that tolerates no more than this may not be bound to the node, whatever room it has; `None` where it may.
    pub fn closed(&self, node: &NodeName, tolerations: &[Toleration]) -> Option<String> {
        let taints = self.taints.get(node)?;
        taints.close(tolerations).map(|why| format!("node {node} {why}"))
    }
}
