//! What the plugin holds to be true now, for metrics and `/debug/state`.

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

#[derive(Clone, Debug)]
pub struct PodView {
    pub pod: Pod,
    pub limit: Option<Milli>,
    /// Whether it has other GPUs than its record said: it changed places with another pod, or kubelet chose
    /// differently.
    pub exchanged: bool,
    /// Whether kubelet did not note an answer for it.
    pub answer_lost: bool,
    /// Its containers; none where it has no trusted placement.
    pub containers: Vec<ContainerView>,
}

#[derive(Clone, Debug)]
pub struct ContainerView {
    /// The GPUs it has or will have.
    pub grant: ContainerGrant,
    pub state: ContainerState,
    /// `None` where no Allocate was answered for it.
    pub claim: Option<ClaimView>,
    pub core: Ids,
    pub memory: Ids,
    /// Its ids of shares by count, as [`crate::roster`] spells them.
    pub counted: Ids,
    /// What enforces its share, where that is known.
    pub level: Option<Isolation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimView {
    /// `assumed`, `pod-listed`, `confirmed`, `unlisted`, `released`.
    pub state: &'static str,
    /// Number of the last Allocate for it; zero where a previous run of the plugin answered it.
    pub call: u64,
}

/// What the next decision rests on besides the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallView {
    /// How many Allocates were answered.
    pub calls: u64,
    /// How often kubelet was asked for its list.
    pub lists: u64,
    /// Whether kubelet has given its list.
    pub heard: bool,
    /// Whether the list was asked for during the call that is being answered.
    pub listed_now: bool,
    /// The pod of the last call, while it is incomplete.
    pub open: Option<PodUid>,
}

impl PodView {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerState {
    /// kubelet has not asked for it.
    Waiting,
    /// An Allocate was matched to this container.
    Claimed,
    /// kubelet's own list shows it.
    Confirmed,
    /// kubelet has given its ids to other containers.
    Released,
}

impl ContainerState {
    /// The name in reports.
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
    pub fn view(&self) -> Vec<PodView> {
        self.pods.values().map(|entry| self.pod_view(entry)).collect()
    }

    pub fn call_view(&self) -> CallView {
        CallView {
            calls: self.kubelet.calls(),
            lists: self.kubelet.questions(),
            heard: self.kubelet.heard(),
            listed_now: self.kubelet.during_call(),
            open: self.open.clone(),
        }
    }

    /// The pods that are known, and the ids of core that kubelet lists for containers without a record. `None`
    /// before the first complete list of the API server and of kubelet.
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
