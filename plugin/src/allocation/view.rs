//! What the plugin holds to be true now, for metrics and `/debug/state`.

use std::collections::BTreeSet;

use kerf::ids::PodUid;
use kerf::isolation::Isolation;
use kerf::plan::ContainerGrant;
use kerf::units::Milli;

use crate::allocation::{Allocations, Bystander, Claim, Entry, Key, Pod, State};
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
    /// `None` where kubelet has not asked for it.
    pub state: Option<State>,
    /// Number of the last Allocate for it; zero where this run of the plugin answered none.
    pub call: u64,
    pub core: Ids,
    pub memory: Ids,
    /// Its ids of shares by count, as [`crate::roster`] spells them.
    pub counted: Ids,
    /// What enforces its share, where that is known.
    pub level: Option<Isolation>,
}

impl ContainerView {
    /// Whether an Allocate was matched to it, and kubelet has not given its ids to other containers since.
    pub fn held(&self) -> bool {
        self.state.is_some_and(|state| state != State::Released)
    }
}

impl PodView {
    pub fn key(&self, container: &ContainerView) -> Key {
        Key { pod: self.pod.uid.clone(), container: container.grant.container.clone() }
    }

    pub fn holders(&self) -> impl Iterator<Item = Holder<'_>> {
        let pod = &self.pod.uid;
        let held = self.containers.iter().filter(|container| container.held() && !container.core.is_empty());
        held.map(move |container| Holder { pod, grant: &container.grant, core: &container.core })
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

impl Allocations {
    pub fn view(&self) -> Vec<PodView> {
        let pod = |entry: &Entry| {
            let placement = entry.placement.as_ref();
            let grants = placement.map(|placement| self.resolve(&placement.plan).grants).unwrap_or_default();
            PodView {
                pod: entry.pod.clone(),
                limit: placement.and_then(|placement| placement.limit),
                exchanged: entry.corrected,
                answer_lost: entry.answer_lost,
                containers: grants.into_iter().map(|grant| self.container_view(entry, grant)).collect(),
            }
        };
        self.pods.values().map(pod).collect()
    }

    pub fn bystanders(&self) -> Vec<Bystander> {
        self.others.values().cloned().collect()
    }

    /// The pod of the last call, while it is incomplete.
    pub fn open(&self) -> Option<&PodUid> {
        self.open.as_ref()
    }

    /// The pods that are known, and the ids of core that kubelet lists for containers without a record. `None`
    /// before the first complete list of the API server and of kubelet.
    pub fn in_use(&self) -> Option<(Vec<PodView>, BTreeSet<Ids>)> {
        let listed = self.without_record().map(|listed| listed.core.clone());
        (self.complete && self.kubelet.heard()).then(|| (self.view(), listed.collect()))
    }

    fn container_view(&self, entry: &Entry, grant: ContainerGrant) -> ContainerView {
        let claim = entry.claims.get(&grant.container);
        let memory = claim.and_then(|claim| claim.ids(&Resource::Memory));
        ContainerView {
            state: claim.map(Claim::state),
            call: claim.map(Claim::call).unwrap_or_default(),
            core: claim.and_then(Claim::core).cloned().unwrap_or_default(),
            memory: memory.cloned().unwrap_or_default(),
            counted: claim.and_then(Claim::counted).cloned().unwrap_or_default(),
            level: claim.and_then(|claim| self.level(&entry.key(&grant.container), claim.core()?)),
            grant,
        }
    }
}
