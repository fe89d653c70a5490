//! Which card gives what to which container, on one node: a value, not an action.

use crate::ids::{ContainerName, DeviceId, NodeName};
use crate::request::{Ask, ContainerKind, ContainerRequest, GpuRequest};
use crate::units::{Milli, Share};

/// One card, or a part of it, for one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The card.
    pub device: DeviceId,
    /// The card's index when the choice was made; for people and the compatibility record.
    pub index: u32,
    /// How much of it. A whole card is all compute and all memory, whatever the container named.
    pub share: Share,
}

/// What one container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The container.
    pub container: ContainerName,
    /// When it runs.
    pub kind: ContainerKind,
    /// Its position in `spec.containers` (or `spec.initContainers`).
    pub position: u32,
    /// Whether the cards are the container's own.
    pub whole: bool,
    /// The cards, in order of index; one where it is a share.
    pub slices: Vec<Slice>,
}

/// What every GPU container of a pod gets, in kubelet's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One for each container of the request, in its order.
    pub grants: Vec<Grant>,
}

/// A plan on its node, as recorded on the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The node.
    pub node: NodeName,
    /// When it was decided, in nanoseconds since 1970. Orders the pods of a node.
    pub time: u64,
    /// Ceiling for bursts of the pod's shares, where it asked for one.
    pub limit: Option<Milli>,
    /// The cards.
    pub plan: Plan,
}

/// What a pod takes of one card over its whole life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The card.
    pub device: DeviceId,
    /// The card's index when the choice was made.
    pub index: u32,
    /// How much; meaningless where `whole`.
    pub share: Share,
    /// Whether the card is the pod's own, all memory included.
    pub whole: bool,
}

/// What a pod takes of one card while its containers are added in kubelet's order.
///
/// A pod takes the larger of what its long-running containers take together and what each init container
/// takes beside the sidecars started before it: the rule by which Kubernetes counts resources, applied to each
/// card by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    running: Share,
    peak: Share,
    whole: bool,
}

impl Tally {
    /// The tally with one more container's part of this card.
    #[must_use]
    pub fn with(self, kind: ContainerKind, share: Share, whole: bool) -> Self {
        let now = self.running.saturating_add(share);
        Self {
            running: if kind == ContainerKind::Init { self.running } else { now },
            peak: self.peak.max(now),
            whole: self.whole || whole,
        }
    }

    /// The most that the pod takes at any time.
    pub fn peak(self) -> Share {
        self.peak
    }
}

impl Plan {
    /// What the pod takes of each card, in the order in which the cards first appear.
    pub fn holds(&self) -> Vec<Hold> {
        let mut tallies: Vec<(&Slice, Tally)> = Vec::new();
        for grant in &self.grants {
            for slice in &grant.slices {
                let at = tallies.iter().position(|(first, _)| first.device == slice.device).unwrap_or_else(|| {
                    tallies.push((slice, Tally::default()));
                    tallies.len() - 1
                });
                if let Some((_, tally)) = tallies.get_mut(at) {
                    *tally = tally.with(grant.kind, slice.share, grant.whole);
                }
            }
        }
        tallies
            .into_iter()
            .map(|(first, tally)| Hold {
                device: first.device.clone(),
                index: first.index,
                share: tally.peak,
                whole: tally.whole,
            })
            .collect()
    }

    /// Whether the plan gives every container of `request` what it asks for, and nothing else. A record that
    /// does not is not believed: its author may be the tenant.
    pub fn serves(&self, request: &GpuRequest) -> bool {
        self.grants.len() == request.containers.len()
            && self.grants.iter().zip(&request.containers).all(|(grant, asked)| grant.serves(asked))
    }
}

impl Grant {
    fn serves(&self, asked: &ContainerRequest) -> bool {
        let distinct = |slices: &[Slice]| {
            slices.iter().enumerate().all(|(i, a)| slices.iter().skip(i + 1).all(|b| a.device != b.device))
        };
        let amounts = match &asked.ask {
            Ask::Share(share) => !self.whole && self.slices.iter().all(|slice| slice.share == *share),
            Ask::Whole { .. } => self.whole && distinct(&self.slices),
        };
        // a record that calls an app an init container would be counted as ending before the others
        let same = (&self.container, self.kind, self.position) == (&asked.name, asked.kind, asked.position);
        amounts && same && self.slices.len() == asked.ask.cards()
    }

    /// The cards' ids.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.slices.iter().map(|slice| &slice.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(name: &str, kind: ContainerKind, device: &str, share: Share) -> Grant {
        Grant {
            container: name.into(),
            kind,
            position: 0,
            whole: false,
            slices: vec![Slice { device: device.into(), index: 0, share }],
        }
    }

    #[test]
    fn a_pod_takes_the_larger_of_its_phases_on_each_card() {
        use ContainerKind::*;
        let plan = Plan {
            grants: vec![
                grant("side", Sidecar, "a", Share::new(100, 10)),
                grant("init", Init, "a", Share::new(500, 20)),
                grant("one", App, "a", Share::new(200, 60)),
                grant("two", App, "b", Share::new(300, 30)),
            ],
        };
        let hold = |device: &str, share| Hold { device: device.into(), index: 0, share, whole: false };
        assert_eq!(plan.holds(), [hold("a", Share::new(600, 70)), hold("b", Share::new(300, 30))]);
    }
}
