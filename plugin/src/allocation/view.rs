//! What is believed now, for metrics and `/debug/state`.

use kerf::ids::PodUid;
use kerf::isolation::Isolation;
use kerf::plan::Grant;
use kerf::units::Milli;

use crate::allocation::entry::Claim;
use crate::allocation::{Allocations, Key, Pod};
use crate::device::ids::{Ids, Resource};

/// A pod, for reports.
#[derive(Clone, Debug)]
pub struct PodView {
    /// As the API server shows it.
    pub pod: Pod,
    /// Ceiling for bursts.
    pub limit: Option<Milli>,
    /// Whether it changed places with another pod.
    pub exchanged: bool,
    /// Its containers; none where it has no believable placement.
    pub containers: Vec<ContainerView>,
}

/// A container, for reports.
#[derive(Clone, Debug)]
pub struct ContainerView {
    /// The cards it has or will have.
    pub grant: Grant,
    /// How far it is.
    pub state: ContainerState,
    /// Its ids of `vcuda-core`.
    pub core: Ids,
    /// Its ids of `vcuda-memory`.
    pub memory: Ids,
    /// Its ids of shares by count, as [`crate::roster`] spells them.
    pub counted: Ids,
    /// What enforces its share, where that is known.
    pub level: Option<Isolation>,
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
    /// Its pod.
    pub pod: &'a PodUid,
    /// What it was given.
    pub grant: &'a Grant,
    /// The ids.
    pub core: &'a Ids,
}

impl Holder<'_> {
    /// Which container it is.
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
        self.pods
            .values()
            .map(|entry| PodView {
                pod: entry.pod.clone(),
                limit: entry.placement.as_ref().and_then(|placement| placement.limit),
                exchanged: entry.exchanged,
                containers: entry
                    .placement
                    .as_ref()
                    .map(|placement| self.resolve(&placement.plan).grants)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|grant| {
                        let claim = entry.claim(&grant.container);
                        ContainerView {
                            state: match claim {
                                None => ContainerState::Waiting,
                                Some(claim) if claim.released => ContainerState::Released,
                                Some(claim) if claim.confirmed => ContainerState::Confirmed,
                                Some(_) => ContainerState::Claimed,
                            },
                            core: claim.and_then(Claim::core).cloned().unwrap_or_default(),
                            memory: claim
                                .and_then(|claim| claim.ids(&Resource::Memory))
                                .cloned()
                                .unwrap_or_default(),
                            counted: claim.and_then(Claim::counted).cloned().unwrap_or_default(),
                            level: claim.and_then(|claim| self.level(entry, &grant.container, claim.core()?)),
                            grant,
                        }
                    })
                    .collect(),
            })
            .collect()
    }
}
