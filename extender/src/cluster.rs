//! Every node's ledger, and the only owner of locks around them.
//!
//! A method locks at most one node at a time, never across an await, and returns owned values. What a lost race
//! between two of them can leave behind is an assumed commitment, which the reaper asks the API server about.

mod hosts;
mod nodes;
mod pods;
mod recent;
mod recorded;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::mapref::one::Ref;
use dashmap::{DashMap, DashSet};
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s::Taints;
use kerf::ledger::{NodeLedger, Seen};
use kerf::placement::Planner;
use kerf::placement::survey::Survey;
use kerf::plan::Plan;
use kerf::policy::Policy;
use kerf::request::GpuRequest;
use kerf::unfit::Unfit;
use kerf::units::Timestamp;
use rustc_hash::FxBuildHasher;
use tokio::sync::watch;

pub use recorded::PREDICATE_TTL_MS;
pub use waiting::Waiting;

use recent::Recent;

use crate::asking::Asking;
use crate::freed::{Freed, News};
use crate::queue::Queue;
use crate::survey::{Footprint, Surveyor};

/// How long the second record of an exchange may follow the first, in milliseconds: the node's plugin writes both
/// within moments, unless the API server fails meanwhile.
pub const EXCHANGE_MS: u64 = 30_000;

/// The cards of all nodes and the pods on them.
#[derive(Debug)]
pub struct Cluster {
    /// Looked up thousands of times in one call, by names that only administrators choose: a fast hash will do.
    nodes: DashMap<NodeName, NodeLedger, FxBuildHasher>,
    /// On which nodes a pod has a commitment: one, but for the time a write's outcome is unknown.
    homes: DashMap<PodUid, BTreeSet<NodeName>>,
    /// Pods that are not bound yet, as the watch shows them.
    queue: Queue,
    freed: Freed,
    /// Where cards are kept for a pod that is not bound yet, because its record names them and not for a binding by kerf.
    recorded: DashMap<PodUid, NodeName>,
    /// Nodes that are closed to some pods, or to all.
    taints: DashMap<NodeName, Taints>,
    /// Bound pods that hold cards under another resource domain, and their nodes.
    foreign: DashMap<PodUid, NodeName>,
    /// Nodes whose plugin says that containers fail there: tried last.
    failing: DashSet<NodeName>,
    /// Priorities of bound pods without cards, where they have one.
    priorities: DashMap<PodUid, i32>,
    /// Counts complete lists of pods, so that one can tell which commitments it should have shown.
    epoch: AtomicU64,
    changed: watch::Sender<()>,
    surveyor: Surveyor,
    /// Pods that were deleted or have ended: uids are never used again, and an answer of the API server may be older.
    departed: Recent<PodUid>,
    /// Nodes that are gone and whose cards a plugin had listed: where one comes back, none are inferred.
    listed: Recent<NodeName>,
}

/// More pods than leave a cluster while one answer of the API server is on its way.
const MOST_DEPARTED: usize = 16_384;
/// More nodes than are made anew within the time that their plugin needs to list their cards.
const MOST_LISTED: usize = 4_096;

/// What applying a pod changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing that counts.
    Nothing,
    /// A bound pod was seen.
    Seen(Seen),
    /// A bound pod whose record cannot be read: its amount is taken of every card of its node.
    Unreadable(Seen),
    /// A bound pod with shares by count and without a record: served by another plugin, in which case it takes nothing,
    /// or by kerf's, which will write one.
    Unrecorded(Seen),
}

/// One node as `/debug/state` and the metrics show it.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// Its name.
    pub name: NodeName,
    /// Its cards and pods.
    pub ledger: NodeLedger,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            nodes: DashMap::default(),
            homes: DashMap::new(),
            priorities: DashMap::new(),
            foreign: DashMap::new(),
            queue: Queue::default(),
            freed: Freed::default(),
            recorded: DashMap::new(),
            taints: DashMap::new(),
            failing: DashSet::new(),
            // commitments made before the first list carry an epoch below every list's
            epoch: AtomicU64::new(1),
            changed: watch::Sender::new(()),
            surveyor: Surveyor::default(),
            departed: Recent::new(MOST_DEPARTED),
            listed: Recent::new(MOST_LISTED),
        }
    }
}

// === reads ===

impl Cluster {
    /// The cluster as this pod finds it.
    pub fn asking<'a>(&'a self, uid: &'a PodUid, request: &'a GpuRequest, policy: Policy) -> Asking<'a> {
        let own = self.homes.get(uid).map(|homes| homes.clone()).unwrap_or_default();
        Asking::new(self, uid, request, policy, own, self.queue.before(uid, request.priority))
    }

    /// Where cards became free.
    pub(crate) fn freed(&self) -> &Freed {
        &self.freed
    }

    /// A node's ledger, locked meanwhile.
    pub(crate) fn node(&self, node: &str) -> Option<Ref<'_, NodeName, NodeLedger>> {
        self.nodes.get(node)
    }

    pub(crate) fn survey(&self) -> std::sync::MutexGuard<'_, Survey> {
        self.surveyor.current(|name, see| {
            if let Some(ledger) = self.nodes.get(name) {
                see(&ledger);
            }
        })
    }

    /// A planner that knows which card of the node the policy wants for the pod.
    pub(crate) fn planner(&self, node: &str, uid: &PodUid, request: &GpuRequest, policy: Policy) -> Planner {
        let policy = request.policy.unwrap_or(policy);
        if !policy.surveys(request) {
            return Planner::default();
        }
        let mut survey = self.survey();
        let shape = survey.shape(uid).cloned().unwrap_or_else(|| Footprint::default().shape(Some(request)));
        Planner::preferring(survey.card(policy, &shape, node))
    }

    /// Whether the watch has shown the pod as one that asks for cards and is not bound yet.
    pub fn is_pending(&self, uid: &PodUid) -> bool {
        self.queue.request(uid).is_some()
    }

    /// Told of every change; for those that wait for one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Assumed pods whose deadline has passed, with their nodes.
    pub fn overdue(&self, now: Timestamp) -> Vec<(NodeName, PodUid, PodRef)> {
        let overdue = |ledger: &NodeLedger| ledger.overdue(now);
        self.nodes
            .iter()
            .flat_map(|entry| {
                let node = entry.key().clone();
                overdue(entry.value())
                    .into_iter()
                    .map(move |(uid, pod)| (node.clone(), uid, pod))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Calls `visit` with each node in turn, in no fixed order. The node is locked meanwhile.
    pub fn each_node(&self, mut visit: impl FnMut(&NodeName, &NodeLedger)) {
        for entry in &self.nodes {
            visit(entry.key(), entry.value());
        }
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

// === what bind does ===

impl Cluster {
    /// Plans the pod on the node as it is now and reserves its cards until `deadline`.
    ///
    /// # Errors
    /// [`Unfit`] where it does not fit; nothing is reserved then.
    pub fn assume(
        &self,
        node: &NodeName,
        uid: &PodUid,
        pod: &PodRef,
        request: &Arc<GpuRequest>,
        policy: Policy,
        deadline: Timestamp,
    ) -> Result<Plan, Unfit> {
        let asking = self.asking(uid, request, policy);
        self.add_home(uid, node);
        // from here on they may be kept for a binding
        self.recorded.remove_if(uid, |_, at| at == node);
        let mut planner = self.planner(node.as_str(), uid, request, policy);
        let planned = loop {
            let Some(mut ledger) = self.nodes.get_mut(node) else { break Err(Unfit::UnknownNode) };
            if ledger.commitments().contains_key(uid) || asking.is_quick(node.as_str()) {
                break planner.assume(&mut ledger, uid, pod, request, policy, deadline, self.epoch());
            }
            // else it may take long: it is thought out on a copy, and anew where the node has changed meanwhile
            let copy = ledger.clone();
            drop(ledger);
            let plan = match asking.plan_on(&mut planner, node.as_str(), &copy) {
                Ok(plan) => plan,
                unfit => break unfit,
            };
            let Some(mut ledger) = self.nodes.get_mut(node) else { break Err(Unfit::UnknownNode) };
            if ledger.same_cards(&copy) && ledger.reserve(uid, pod, request, plan.clone(), deadline, self.epoch()) {
                break Ok(plan);
            }
        };
        match planned {
            Ok(_) => self.surveyor.mark(node),
            Err(_) => self.drop_home(uid, node),
        }
        self.notify();
        planned
    }

    /// The API server has accepted the binding: the pod is on this node and on no other.
    pub fn bound(&self, node: &NodeName, uid: &PodUid) {
        if let Some(mut ledger) = self.nodes.get_mut(node) {
            ledger.bound(uid, self.epoch());
        }
        self.surveyor.bound(uid, node);
        self.leave_others(uid, node);
        self.notify();
    }

    /// The API server has not answered the binding.
    pub fn unanswered(&self, node: &NodeName, uid: &PodUid) {
        if let Some(mut ledger) = self.nodes.get_mut(node) {
            ledger.unanswered(uid);
        }
    }

    /// The API server has refused the binding: what was reserved on this node is free, unless an earlier binding has had no
    /// answer. Whether nothing is kept for the pod here any more.
    pub fn forget(&self, node: &NodeName, uid: &PodUid) -> bool {
        let (left, kept) = self
            .nodes
            .get_mut(node)
            .map_or((false, false), |mut ledger| (ledger.forget(uid), ledger.commitments().contains_key(uid)));
        if left {
            self.surveyor.mark(node);
            self.drop_home(uid, node);
            // the scheduler hears that the binding failed, and then tries others again
            self.freed.mark(node, News::Told);
        }
        self.notify();
        !kept
    }

    /// The API server says that an overdue pod is not bound to this node. Whether it was still overdue.
    pub fn expire(&self, node: &NodeName, uid: &PodUid, now: Timestamp) -> bool {
        let left = self.nodes.get_mut(node).is_some_and(|mut ledger| ledger.expire(uid, now));
        if left {
            self.surveyor.mark(node);
            self.drop_home(uid, node);
            self.freed.mark(node, News::Silent);
            self.notify();
        }
        left
    }

    /// Filter or prioritize sent a pod to this node: if it is one that waits between filter and bind, others find the node
    /// as if it were there.
    pub fn expect(&self, uid: &PodUid, node: &NodeName, now: Timestamp) {
        self.mark_all(self.queue.sent(uid, node, now), News::Silent);
    }

    /// A pod's bind has ended, or no node was left to it: it is not expected any more where it was sent.
    pub fn expect_no_more(&self, uid: &PodUid) {
        self.mark_all(self.queue.released(uid), News::Silent);
    }

    /// The time of pods has passed that were expected somewhere.
    pub fn expire_expected(&self, now: Timestamp) {
        self.mark_all(self.queue.expire(now), News::Silent);
    }

    /// Frees what moved records left on their former cards, where no other pod's record took it up in time.
    pub fn settle(&self, now: Timestamp) {
        let mut any = false;
        for mut ledger in &mut self.nodes.iter_mut() {
            if ledger.settle(now, EXCHANGE_MS) {
                self.surveyor.mark(ledger.key());
                self.freed.mark(ledger.key(), News::Silent);
                any = true;
            }
        }
        if any {
            self.notify();
        }
    }
}

// === what these are made of ===

impl Cluster {
    fn release(&self, uid: &PodUid, node: &NodeName) {
        self.leaves(node, |ledger| _ = ledger.release(uid));
    }

    /// A pod leaves a node, in the way that `change` says.
    fn leaves(&self, node: &NodeName, change: impl FnOnce(&mut NodeLedger)) {
        if let Some(mut ledger) = self.nodes.get_mut(node) {
            change(&mut ledger);
        }
        self.surveyor.mark(node);
        self.freed.mark(node, News::Told);
        self.nodes.remove_if(node, |_, ledger| ledger.is_empty());
    }

    /// Pods are not expected any more on these nodes.
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
        // the commitment may be there all the same: assume refuses a pod that is here with a bad record
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
