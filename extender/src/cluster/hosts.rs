//! What nodes have beside GPUs, what pods take of it, and what decides whether a pod leaves when room is made.

use kerf::ids::{NodeName, PodUid};
use kerf::ledger::Standing;
use kerf::placement::shape::HostAmount;
use kerf::request::GpuRequest;

use super::Cluster;
use crate::survey::Footprint;

impl Cluster {
    /// What a node has for pods, cards aside; `None` where it does not say.
    pub fn apply_allocatable(&self, node: &NodeName, amount: Option<HostAmount>) {
        self.surveyor.allocatable(node, amount);
    }

    /// A pod that has not ended was seen, with cards or without: what it takes of its node's host, and what it asks for.
    pub fn apply_footprint(
        &self,
        uid: &PodUid,
        node: Option<&NodeName>,
        footprint: Footprint,
        request: Option<&GpuRequest>,
    ) {
        self.surveyor.pod(uid, node, footprint, request);
        // those that ask for cards are announced by what follows
        if request.is_none() {
            self.notify();
        }
    }

    /// What is left of a node's cores and memory, by the pods that were seen there; `None` where it is not known.
    pub fn host_left(&self, node: &str) -> Option<HostAmount> {
        self.surveyor.left(node)
    }

    /// What a bound pod takes of its node's host, if it was seen.
    pub fn host_of(&self, uid: &PodUid) -> Option<HostAmount> {
        self.surveyor.taken(uid)
    }

    /// A bound pod that has not ended was seen: what decides whether it leaves when room is made. Of pods without cards
    /// that is their priority.
    pub fn apply_standing(
        &self,
        uid: &PodUid,
        node: &NodeName,
        priority: i32,
        standing: impl FnOnce() -> Standing,
    ) {
        match self.nodes.get_mut(node) {
            Some(mut ledger) if ledger.commitments().contains_key(uid) => ledger.describe(uid, standing()),
            _ if priority != 0 => {
                self.priorities.insert(uid.clone(), priority);
            }
            _ => {}
        }
    }

    /// The priority of a bound pod without cards; 0 where it was not seen.
    pub fn priority_of(&self, uid: &PodUid) -> i32 {
        self.priorities.get(uid).map_or(0, |priority| *priority)
    }
}
