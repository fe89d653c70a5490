//! The cluster as the policies see it that weigh all nodes against each other ([`kerf::placement::survey`]).
//!
//! A change of a node's cards only marks the node; whoever asks next brings what is marked up to date, so that
//! bindings do not wait for each other here. Locks are taken in this order: the survey, then one node's ledger, then
//! the marks; those that mark hold at most a ledger.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kerf::ids::{NodeName, PodUid};
use kerf::ledger::NodeLedger;
use kerf::placement::shape::{HostAmount, Shape};
use kerf::placement::survey::Survey;
use kerf::request::GpuRequest;

/// The survey and the nodes that it has not looked at since they changed.
#[derive(Debug, Default)]
pub(crate) struct Surveyor {
    survey: Mutex<Survey>,
    stale: Mutex<BTreeSet<NodeName>>,
}

/// What kube-scheduler counts of a pod, by what was seen of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Footprint(pub HostAmount);

impl Footprint {
    /// All that the policies need to know of a pod.
    pub(crate) fn shape(self, request: &GpuRequest) -> Shape {
        Shape::of(Some(request), self.0.cpu, self.0.memory)
    }
}

impl Surveyor {
    /// The node's cards have changed.
    pub fn mark(&self, node: &NodeName) {
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        if !stale.contains(node) {
            stale.insert(node.clone());
        }
    }

    /// The survey, up to date. `look` calls back with the ledger of the node of that name, if there is one.
    pub fn current(&self, look: impl Fn(&NodeName, &mut dyn FnMut(&NodeLedger))) -> MutexGuard<'_, Survey> {
        let mut survey = self.survey();
        let stale = std::mem::take(&mut *self.stale.lock().unwrap_or_else(PoisonError::into_inner));
        for node in stale {
            look(&node, &mut |ledger| survey.cards(&node, ledger));
        }
        survey
    }

    /// What a node has for pods.
    pub fn allocatable(&self, node: &NodeName, amount: Option<HostAmount>) {
        self.survey().allocatable(node, amount);
    }

    /// A node is gone.
    pub fn forget(&self, node: &str) {
        self.survey().forget(node);
    }

    /// A pod of any sort was seen: it takes its footprint of its node, and its demand counts if it asks for cards.
    pub fn pod(&self, uid: &PodUid, node: Option<&NodeName>, footprint: Footprint, request: Option<&GpuRequest>) {
        let mut survey = self.survey();
        if let Some(request) = request {
            survey.seen(uid, &footprint.shape(request));
        }
        if let Some(node) = node {
            survey.load(uid, node, footprint.0);
        }
    }

    /// A pod is gone.
    pub fn gone(&self, uid: &PodUid) {
        self.survey().unload(uid);
    }

    /// A complete list of pods has ended: others are gone.
    pub fn retain(&self, seen: &BTreeSet<PodUid>) {
        self.survey().retain(seen);
    }

    fn survey(&self) -> MutexGuard<'_, Survey> {
        self.survey.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
