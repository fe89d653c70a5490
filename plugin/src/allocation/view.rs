//! What is believed now, for metrics and `/debug/state`.

use std::collections::BTreeSet;

use kerf::ids::PodUid;
use kerf::isolation::Isolation;
use kerf::plan::ContainerGrant;
use kerf::units::Milli;

use crate::allocation::allocations::Allocations;
use crate::allocation::claim::{Claim, State};
use crate::allocation::entry::{Entry, Noted};
use crate::allocation::pod::{Key, Pod};
use crate::device::ids::{Ids, Resource};

/// A pod, for reports.
#[derive(Clone, Debug)]
pub struct PodView {
    /// As the API server shows it.
    pub pod: Pod,
    /// Ceiling for bursts.
    pub limit: Option<Milli>,
    /// Whether it has other GPUs than its record said: it changed places with another pod, or kubelet chose differently.
    pub exchanged: bool,
    /// Whether something was answered for it that kubelet did not note.
    pub answer_lost: bool,
    /// Its containers; none where it has no believable placement.
    pub containers: Vec<ContainerView>,
}

/// A container, for reports.
#[derive(Clone, Debug)]
pub struct ContainerView {
    /// The GPUs it has or will have.
    pub grant: ContainerGrant,
    pub state: ContainerState,
    /// What was answered for it, if anything was.
    pub claim: Option<ClaimView>,
    /// Its ids of `vcuda-core`.
    pub core: Ids,
    /// Its ids of `vcuda-memory`.
    pub memory: Ids,
    /// Its ids of shares by count, as [`crate::roster`] spells them.
    pub counted: Ids,
    /// What enforces its share, where that is known.
    pub level: Option<Isolation>,
}

/// How far a container's claim is, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimView {
    /// `assumed`, `pod-listed`, `confirmed`, `unlisted`, `released`.
    pub state: &'static str,
    /// Number of the last Allocate for it; zero where an earlier life of this process answered it.
    pub call: u64,
}

/// What the next decision rests on besides the pods, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallView {
    /// How many Allocates were answered.
    pub calls: u64,
    /// How often kubelet was asked for its list.
    pub lists: u64,
    /// Whether kubelet has given its list.
    pub heard: bool,
    /// Whether it was asked for during the call that is being answered.
    pub listed_now: bool,
    /// The pod of the last call, while it is incomplete.
    pub open: Option<PodUid>,
}

impl PodView {
    /// Its containers that hold ids of core.
    pub fn holders(&self) -> impl Iterator<Item = Holder<'_>> {
        let held = |container: &&ContainerView| {
            matches!(container.state, ContainerState::Claimed | ContainerState::Confirmed)
        };
        let pod = &self.pod.uid;
        self.containers
            .iter()
            .filter(held)
            .map(move |container| Holder { pod, grant: &container.grant, core: &container.core })
            .filter(|holder| !holder.core.is_empty())
    }
}

/// A container that holds ids of core.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    pub pod: &'a PodUid,
    pub grant: &'a ContainerGrant,
    pub core: &'a Ids,
}

impl Holder<'_> {
    pub fn key(&self) -> Key {
        Key { pod: self.pod.clone(), container: self.grant.container.clone() }
    }
}

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerState {
    /// kubelet has not asked.
    Waiting,
    /// kubelet asked and the call is believed to have been for this container.
    Claimed,
    /// kubelet's own list says that it was.
    Confirmed,
    /// kubelet has given its ids to others.
    Released,
}

impl ContainerState {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Claimed => "claimed",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
        }
    }
}

impl Allocations {
    /// Every pod with its containers, for reports.
    pub fn view(&self) -> Vec<PodView> {
        self.pods.values().map(|entry| self.pod_view(entry)).collect()
    }

    /// What the next decision rests on besides the pods.
    pub fn call_view(&self) -> CallView {
        CallView {
            calls: self.kubelet.calls(),
            lists: self.kubelet.questions(),
            heard: self.kubelet.heard(),
            listed_now: self.kubelet.during_call(),
            open: self.open.clone(),
        }
    }

    /// The pods that are known, and the ids of core that kubelet lists for containers without a record. `None` until both
    /// the API server and kubelet have told theirs.
    pub fn in_use(&self) -> Option<(Vec<PodView>, BTreeSet<Ids>)> {
        let listed = self.without_record().map(|listed| listed.core.clone());
        (self.pods.complete() && self.kubelet.heard()).then(|| (self.view(), listed.collect()))
    }

    fn pod_view(&self, entry: &Entry) -> PodView {
        let placement = entry.placement();
        let grants = placement.map(|placement| self.resolve(&placement.plan).grants).unwrap_or_default();
        PodView {
            pod: entry.pod.clone(),
            limit: placement.and_then(|placement| placement.limit),
            exchanged: entry.corrected(),
            answer_lost: entry.noted == Noted::NotAll,
            containers: grants.into_iter().map(|grant| self.container_view(entry, grant)).collect(),
        }
    }

    fn container_view(&self, entry: &Entry, grant: ContainerGrant) -> ContainerView {
        let claim = entry.claim(&grant.container);
        let memory = claim.and_then(|claim| claim.ids(&Resource::Memory));
        ContainerView {
            state: match claim.map(Claim::state) {
                None => ContainerState::Waiting,
                Some(State::Released) => ContainerState::Released,
                Some(State::Confirmed | State::Unlisted) => ContainerState::Confirmed,
                Some(State::Assumed | State::PodListed) => ContainerState::Claimed,
            },
            claim: claim.map(|claim| ClaimView { state: claim.state().as_str(), call: claim.call() }),
            core: claim.and_then(Claim::core).cloned().unwrap_or_default(),
            memory: memory.cloned().unwrap_or_default(),
            counted: claim.and_then(Claim::counted).cloned().unwrap_or_default(),
            level: claim.and_then(|claim| self.level(entry, &grant.container, claim.core()?)),
            grant,
        }
    }
}
