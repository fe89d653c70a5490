//! The cluster as the policies see it that weigh all nodes against each other ([`kerf::placement::survey`]).
//!
//! A change of a node's cards only marks the node; whoever asks next brings what is marked up to date, so that
//! bindings do not wait for each other here. Locks are taken in this order: the survey, then one node's ledger, then
//! the marks; those that mark hold at most a ledger.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kerf::ids::{NodeName, PodUid};
use kerf::k8s;
use kerf::ledger::NodeLedger;
use kerf::placement::shape::{HostAmount, Shape};
use kerf::placement::survey::{Sighting, Survey};
use kerf::request::GpuRequest;

/// The survey and the nodes that it has not looked at since they changed.
#[derive(Debug, Default)]
pub(crate) struct Surveyor {
    survey: Mutex<Survey>,
    stale: Mutex<BTreeSet<NodeName>>,
}

/// What a pod takes of its node's host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Footprint {
    /// What kube-scheduler counts.
    pub amount: HostAmount,
    /// Whether the pod belongs to its node ([`k8s::resident`]).
    pub resident: bool,
}

impl Footprint {
    /// Of a pod as the API server shows it.
    pub fn of(pod: &Pod) -> Self {
        Self { amount: k8s::requested(pod), resident: k8s::resident(pod) }
    }

    /// All that the policies need to know of a pod.
    pub(crate) fn shape(self, request: Option<&GpuRequest>) -> Shape {
        Shape::of(request, self.amount.cpu, self.amount.memory)
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

    /// A pod of any sort was seen.
    pub fn pod(&self, uid: &PodUid, node: Option<&NodeName>, footprint: Footprint, request: Option<&GpuRequest>) {
        let (shape, resident) = (footprint.shape(request), footprint.resident);
        self.survey().seen(uid, &Sighting { shape: &shape, node, resident });
    }

    /// A pod that was seen has been bound; the watch will say so too, later.
    pub fn bound(&self, uid: &PodUid, node: &NodeName) {
        self.survey().bound(uid, node);
    }

    /// What is left of a node's host.
    pub fn left(&self, node: &str) -> Option<HostAmount> {
        self.survey().left(node)
    }

    /// What a pod takes of its node's host.
    pub fn taken(&self, uid: &PodUid) -> Option<HostAmount> {
        self.survey().taken(uid)
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
