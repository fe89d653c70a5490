//! Questions about the cluster.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Toleration;
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::ledger::NodeLedger;
use kerf::placement::shape::HostAmount;
use kerf::placement::survey::Survey;
use kerf::request::{Ask, GpuRequest};
use kerf::tally::Tally;
use kerf::units::{Milli, Timestamp};
use parking_lot::MutexGuard;
use tokio::sync::watch;

use super::{Cluster, NodeState};
use crate::queue::Waiting;

impl Cluster {
    /// Updates marked nodes first.
    pub(super) fn survey(&self) -> MutexGuard<'_, Survey> {
        let mut survey = self.survey.lock();
        // not in the loop's head, which would hold the marks' lock through the loop
        let marked = std::mem::take(&mut *self.unsurveyed.lock());
        for node in marked {
            match self.nodes.get(&node) {
                Some(ledger) => survey.cards(&node, &ledger),
                None => survey.forget(node.as_str()),
            }
        }
        survey
    }

    /// A pod that asks for cards and is not bound yet; `None` where the watch has not shown it.
    pub fn waiting(&self, uid: &PodUid) -> Option<Waiting> {
        self.queue.waiting(uid)
    }

    /// Whether the watch has shown the pod as one that asks for cards and is not bound yet.
    pub fn is_pending(&self, uid: &PodUid) -> bool {
        self.queue.contains(uid)
    }

    /// How many pods ask for cards and are not bound, and how many more break a rule of their request.
    pub fn unbound(&self) -> (usize, usize) {
        (self.queue.len(), self.broken.len())
    }

    /// Whether these nodes together have enough free compute and memory for the request. Never for counted shares, which
    /// are no fixed amounts.
    pub fn together_enough<'a>(&self, request: &GpuRequest, nodes: impl Iterator<Item = &'a str>) -> bool {
        let Some((compute, memory)) = needed(request) else { return false };
        let free = nodes.filter_map(|node| self.nodes.get(node).map(|ledger| ledger.free()));
        let free =
            free.fold((0_u64, 0_u64), |sum, free| (sum.0.saturating_add(free.0), sum.1.saturating_add(free.1)));
        compute <= free.0 && memory <= free.1
    }

    /// Whether the pod was deleted or has ended, so that an answer that shows it alive is older.
    pub fn is_gone(&self, uid: &PodUid) -> bool {
        self.departed.contains(uid)
    }

    /// Whether a binding by kerf itself may still be carried out for the pod: its cards must not be freed because of a
    /// record.
    pub(crate) fn binding_in_doubt(&self, uid: &PodUid) -> bool {
        let recorded = self.recorded.get(uid).map(|node| node.clone());
        self.homes.get(uid).is_some_and(|homes| homes.iter().any(|home| Some(home) != recorded.as_ref()))
    }

    /// Why a pod with these tolerations may not be bound to the node, even if it has room; `None` where it may.
    pub fn closed(&self, node: &NodeName, tolerations: &[Toleration]) -> Option<String> {
        let taints = self.taints.get(node)?;
        taints.close(tolerations).map(|why| format!("node {node} {why}"))
    }

    /// A node's cards and what is taken of them, for planning.
    pub(crate) fn cards(&self, node: &str) -> Option<NodeLedger> {
        self.nodes.get(node).map(|ledger| ledger.cards_alone())
    }

    /// Whether containers fail on the node because of the node itself, so that it is tried last.
    pub fn is_failing(&self, node: &str) -> bool {
        self.failing.contains(node)
    }

    /// What the pods that were seen on a node leave of its cores and memory; `None` where it is not known.
    pub fn host_left(&self, node: &str) -> Option<HostAmount> {
        self.survey.lock().left(node)
    }

    /// What a bound pod takes of its node's host; `None` where it was not seen.
    pub(crate) fn host_of(&self, uid: &PodUid) -> Option<HostAmount> {
        self.survey.lock().taken(uid)
    }

    /// The priority of a bound pod without cards; 0 where it was not seen.
    pub fn priority_of(&self, uid: &PodUid) -> i32 {
        self.priorities.get(uid).map_or(0, |priority| *priority)
    }

    /// A receiver that is notified of every change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Assumed pods whose deadline has passed, with their nodes.
    pub fn overdue(&self, now: Timestamp) -> Vec<(NodeName, PodUid, PodRef)> {
        let of = |node: &NodeName, ledger: &NodeLedger| {
            let node = node.clone();
            ledger.overdue(now).into_iter().map(move |(uid, pod)| (node.clone(), uid, pod))
        };
        self.nodes.iter().flat_map(|entry| of(entry.key(), entry.value())).collect()
    }

    /// Calls `visit` with each node in turn, in no fixed order, with the node locked.
    pub(crate) fn each_node(&self, mut visit: impl FnMut(&NodeName, &NodeLedger)) {
        for entry in &self.nodes {
            visit(entry.key(), entry.value());
        }
    }

    /// The names of all nodes, in order.
    pub(crate) fn names(&self) -> BTreeSet<NodeName> {
        self.nodes.iter().map(|entry| entry.key().clone()).collect()
    }

    /// A copy of one node.
    pub(crate) fn node_state(&self, name: &NodeName) -> Option<NodeState> {
        let ledger = self.nodes.get(name)?.clone();
        Some(NodeState { name: name.clone(), ledger })
    }

    /// A copy of every node, by name.
    pub fn snapshot(&self) -> Vec<NodeState> {
        let mut nodes = BTreeMap::new();
        self.each_node(|name, ledger| {
            nodes.insert(name.clone(), ledger.clone());
        });
        nodes.into_iter().map(|(name, ledger)| NodeState { name, ledger }).collect()
    }
}

/// Compute (in 1/1000 of a card) and memory (in MiB) that a request takes at the same time; `None` where it has counted
/// shares.
fn needed(request: &GpuRequest) -> Option<(u64, u64)> {
    let mut tally: Tally<(u64, u64)> = Tally::default();
    for container in &request.containers {
        let need = match &container.ask {
            Ask::Share(share) => (share.compute.0.into(), share.memory.0),
            Ask::Whole { count, memory } => {
                (u64::from(*count) * u64::from(Milli::WHOLE.0), memory.map_or(0, |memory| memory.0))
            }
            Ask::Counted(_) => return None,
        };
        tally = tally.with(container.kind, need);
    }
    Some(tally.peak())
}
