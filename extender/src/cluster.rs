//! Every node's ledger, and the only owner of locks around them.
//!
//! `read` answers questions, [`asking`] is the cluster as one pod sees it, `bind` commits pods to nodes, and `nodes`
//! and `pods` apply events of the watches.
//!
//! A method locks at most one node at a time, never across an await, and returns owned values. A lost race between two
//! of them can leave only an assumed commitment, which the reaper checks with the API server.
//!
//! The survey serves policies that weigh all nodes against each other. A change of a node's cards only marks the node
//! for it; the next caller that needs the survey updates marked nodes, so that bindings do not wait for each other
//! there. Locks are taken in this order: the survey, then one node's ledger, then the marks; code that marks holds at
//! most a ledger.

pub mod asking;
mod bind;
mod nodes;
mod pods;
mod read;
mod recent;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::{DashMap, DashSet};
use kerf::ids::{NodeName, PodUid};
use kerf::k8s::Taints;
use kerf::ledger::{NodeLedger, Seen};
use kerf::placement::survey::Survey;
use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;
use tokio::sync::watch;

use crate::freed::{Freed, News};
use crate::queue::Queue;
use recent::Recent;

/// The cards of all nodes and the pods on them.
#[derive(Debug, Default)]
pub struct Cluster {
    /// Looked up thousands of times in one call, by names that only administrators choose: a fast hash is safe.
    nodes: DashMap<NodeName, NodeLedger, FxBuildHasher>,
    /// Nodes where a pod has a commitment: one, except while a write's outcome is unknown.
    homes: DashMap<PodUid, BTreeSet<NodeName>>,
    /// Pods that are not bound yet, as the watch shows them.
    queue: Queue,
    /// Pods that are not bound, whose request breaks a rule.
    broken: DashSet<PodUid>,
    pub(crate) freed: Freed,
    /// Nodes where cards are kept for an unbound pod because of its record, and not for a binding by kerf.
    recorded: DashMap<PodUid, NodeName>,
    /// Nodes that are closed to some pods, or to all.
    taints: DashMap<NodeName, Taints>,
    /// Bound pods that hold cards under another resource domain, and their nodes.
    foreign: DashMap<PodUid, NodeName>,
    /// Nodes whose plugin reports that containers fail there: tried last.
    failing: DashSet<NodeName>,
    /// Priorities of bound pods without cards; absent: zero.
    priorities: DashMap<PodUid, i32>,
    /// Counts complete lists of pods, to tell which commitments each should have shown: those made before the first
    /// list have an epoch below every list's.
    epoch: AtomicU64,
    changed: watch::Sender<()>,
    survey: Mutex<Survey>,
    /// Nodes whose cards changed since the survey was updated.
    unsurveyed: Mutex<BTreeSet<NodeName>>,
    /// Pods that were deleted or have ended. Uids are never used again, but an answer of the API server may be older.
    departed: Recent<PodUid, MOST_DEPARTED>,
    /// Deleted nodes whose cards a plugin had listed: if one is created again, its cards are not inferred.
    listed: Recent<NodeName, MOST_LISTED>,
}

/// More pods than end in a cluster while one answer of the API server is on its way.
const MOST_DEPARTED: usize = 16_384;
/// More nodes than are created again within the time that their plugin needs to list their cards.
const MOST_LISTED: usize = 4_096;

/// What `Cluster::apply_pod` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// No bound pod with cards.
    Nothing,
    /// A bound pod with a record.
    Seen(Seen),
    /// A bound pod whose record cannot be read: its amount is taken of every card of its node.
    Unreadable(Seen),
    /// A bound pod with counted shares and without a record. If another plugin serves it, it takes nothing; kerf's
    /// plugin would write a record.
    Unrecorded(Seen),
}

/// One node as `/debug/state` and the metrics show it.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// `metadata.name`
    pub name: NodeName,
    /// A copy of its ledger.
    pub ledger: NodeLedger,
}

impl Cluster {
    /// The node's cards have changed.
    fn mark(&self, node: &NodeName) {
        let mut unsurveyed = self.unsurveyed.lock();
        if !unsurveyed.contains(node) {
            unsurveyed.insert(node.clone());
        }
    }

    fn release(&self, uid: &PodUid, node: &NodeName) {
        self.leaves(node, |ledger| _ = ledger.release(uid));
    }

    /// A pod leaves a node by `change`.
    fn leaves(&self, node: &NodeName, change: impl FnOnce(&mut NodeLedger)) {
        if let Some(mut ledger) = self.nodes.get_mut(node) {
            change(&mut ledger);
        }
        self.mark(node);
        self.freed.mark(node, News::Told);
        self.drop_empty(node);
    }

    /// A ledger is kept for a node that is known, or while a pod is there.
    fn drop_empty(&self, node: &NodeName) {
        self.nodes.remove_if(node, |_, ledger| ledger.is_empty());
    }

    /// A pod is no longer expected on these nodes.
    fn mark_all(&self, nodes: Vec<NodeName>, news: News) {
        nodes.iter().for_each(|node| self.freed.mark(node, news));
        if !nodes.is_empty() {
            self.notify();
        }
    }

    fn leave_others(&self, uid: &PodUid, home: &NodeName) {
        let others: Vec<NodeName> = match self.homes.get(uid) {
            Some(homes) if homes.len() > 1 => homes.iter().filter(|node| *node != home).cloned().collect(),
            _ => return,
        };
        for node in others {
            self.release(uid, &node);
            self.drop_home(uid, &node);
        }
    }

    fn add_home(&self, uid: &PodUid, node: &NodeName) {
        self.homes.entry(uid.clone()).or_default().insert(node.clone());
    }

    fn drop_home(&self, uid: &PodUid, node: &NodeName) {
        // the commitment may still be there: assume refuses a pod that is here with a bad record
        if self.nodes.get(node).is_some_and(|ledger| ledger.commitments().contains_key(uid)) {
            return;
        }
        self.recorded.remove_if(uid, |_, at| at == node);
        if let Some(mut homes) = self.homes.get_mut(uid) {
            homes.remove(node);
        }
        self.homes.remove_if(uid, |_, homes| homes.is_empty());
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn notify(&self) {
        self.changed.send_replace(());
    }
}
