//! What is believed now, for metrics and `/debug/state`.

use kerf::isolation::Isolation;
use kerf::plan::Grant;
use kerf::units::Milli;

use super::entry::Claim;
use super::{Claims, Pod};
use crate::ids::{Ids, Resource};

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
    pub state: State,
    /// Its ids of `vcuda-core`.
    pub core: Ids,
    /// Its ids of `vcuda-memory`.
    pub memory: Ids,
    /// Its ids of shares by count, as [`crate::roster`] spells them.
    pub counted: Ids,
    /// What enforces its share, where that is known.
    pub level: Option<Isolation>,
}

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// kubelet has not asked.
    Waiting,
    /// kubelet asked and the call is believed to have been for this container.
    Claimed,
    /// kubelet's own list says that it was.
    Confirmed,
    /// kubelet has given its ids to others.
    Released,
}

impl State {
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

impl Claims {
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
                                None => State::Waiting,
                                Some(claim) if claim.released => State::Released,
                                Some(claim) if claim.confirmed => State::Confirmed,
                                Some(_) => State::Claimed,
                            },
                            core: claim.and_then(Claim::core).cloned().unwrap_or_default(),
                            memory: claim
                                .and_then(|claim| claim.ids(&Resource::Memory))
                                .cloned()
                                .unwrap_or_default(),
                            counted: claim.and_then(Claim::counted).cloned().unwrap_or_default(),
                            level: claim.and_then(|claim| self.levels.get(claim.core()?)).copied(),
                            grant,
                        }
                    })
                    .collect(),
            })
            .collect()
    }
}
