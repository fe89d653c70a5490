//! Which card gives what to which container, on one node: a value, not an action.

use std::fmt;

use crate::ids::{ContainerName, DeviceId, NodeName, ResourceName};
use crate::request::{Ask, ContainerKind, ContainerRequest, GpuRequest};
use crate::shares::Counted;
use crate::units::{Mib, Milli, Share};

/// In what way a container has its cards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// A part of one card: of its compute and of its memory.
    Share,
    /// Cards of its own.
    Whole,
    /// Shares by count of this resource: parts of cards' compute, their memory undivided.
    Counted(ResourceName),
}

impl Form {
    /// The form in which such a request is served.
    pub fn of(ask: &Ask) -> Self {
        match ask {
            Ask::Share(_) => Self::Share,
            Ask::Whole { .. } => Self::Whole,
            Ask::Counted(counted) => Self::Counted(counted.resource.clone()),
        }
    }
}

/// One card, or a part of it, for one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The card.
    pub device: DeviceId,
    /// The card's index when the choice was made; for people and the compatibility record.
    pub index: u32,
    /// How much of it. A whole card is all compute and all memory, whatever the container named. Of shares by count
    /// the compute of all together, as it was when the choice was made, and no memory.
    pub share: Share,
    /// How many shares by count that is; 1 for a part or a whole card.
    pub count: u32,
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
    /// In what way it has the cards.
    pub form: Form,
    /// The cards, in order of index, each once; one where it is a share.
    pub slices: Vec<Slice>,
}

/// For logs: `main: GPU-a (50 core, 7680 MiB)`, `main: GPU-a, GPU-b (whole)`, `main: GPU-a (2 x amd.com/gpu)`.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.container)?;
        for (at, slice) in self.slices.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}", slice.device)?;
            match &self.form {
                Form::Share => {
                    let Share { compute, memory } = slice.share;
                    write!(f, " ({} core, {} MiB)", compute.to_core_units(), memory.0)?;
                }
                Form::Whole => {}
                Form::Counted(resource) => write!(f, " ({} x {resource})", slice.count)?,
            }
        }
        if self.is_whole() { f.write_str(" (whole)") } else { Ok(()) }
    }
}

/// What every GPU container of a pod gets, in kubelet's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One for each container of the request, in its order.
    pub grants: Vec<Grant>,
}

/// For logs: its containers' cards, joined by semicolons.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, grant) in self.grants.iter().enumerate() {
            let semicolon = if at == 0 { "" } else { "; " };
            write!(f, "{semicolon}{grant}")?;
        }
        Ok(())
    }
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

/// What a pod takes of one card over its whole life. What it takes by different resources are different holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The card.
    pub device: DeviceId,
    /// The card's index when the choice was made.
    pub index: u32,
    /// How much; meaningless where it is whole.
    pub share: Share,
    /// In what way.
    pub taken: Taken,
}

/// In what way a pod takes a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A part of compute and memory.
    Part,
    /// The card is the pod's own, all memory included.
    Whole,
    /// Shares by count: they count for what their card offers them as.
    Counted(Counted),
}

impl Hold {
    /// Whether the card is the pod's own.
    pub fn is_whole(&self) -> bool {
        self.taken == Taken::Whole
    }

    /// Of which resource its shares are, where it is shares by count.
    pub fn resource(&self) -> Option<&ResourceName> {
        match &self.taken {
            Taken::Counted(counted) => Some(&counted.resource),
            Taken::Part | Taken::Whole => None,
        }
    }
}

/// What a pod takes while its containers are added in kubelet's order: of one card, or of one resource of a card.
///
/// A pod takes the larger of what its long-running containers take together and what each init container
/// takes beside the sidecars started before it: the rule by which Kubernetes counts resources, applied to each
/// card by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    running: Amount,
    peak: Amount,
}

/// Parts of a card, and how many shares by count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    share: Share,
    count: u32,
}

impl Tally {
    /// The tally with one more container's part.
    #[must_use]
    pub fn with(self, kind: ContainerKind, share: Share, count: u32) -> Self {
        let now = Amount {
            share: self.running.share.saturating_add(share),
            count: self.running.count.saturating_add(count),
        };
        let peak = Amount { share: self.peak.share.max(now.share), count: self.peak.count.max(now.count) };
        Self { running: if kind == ContainerKind::Init { self.running } else { now }, peak }
    }

    /// The most that the pod takes at any time.
    pub fn peak(self) -> Share {
        self.peak.share
    }

    /// The most shares by count that it takes at any time.
    pub fn count(self) -> u32 {
        self.peak.count
    }
}

impl Plan {
    /// What the pod takes of each card, in the order in which the cards first appear.
    pub fn holds(&self) -> Vec<Hold> {
        // parts and whole cards are one and the same resource; shares by count are another one each
        let mut holds: Vec<(Hold, Tally)> = Vec::new();
        for grant in &self.grants {
            for slice in &grant.slices {
                let same = |(hold, _): &(Hold, Tally)| {
                    hold.device == slice.device
                        && match (&hold.taken, &grant.form) {
                            (Taken::Counted(counted), Form::Counted(resource)) => counted.resource == *resource,
                            (Taken::Counted(_), _) | (_, Form::Counted(_)) => false,
                            (Taken::Part | Taken::Whole, Form::Share | Form::Whole) => true,
                        }
                };
                let at = holds.iter().position(same).unwrap_or_else(|| {
                    let taken = match &grant.form {
                        Form::Counted(resource) => Taken::Counted(Counted { resource: resource.clone(), count: 0 }),
                        Form::Share | Form::Whole => Taken::Part,
                    };
                    let (device, index, share) = (slice.device.clone(), slice.index, Share::ZERO);
                    holds.push((Hold { device, index, share, taken }, Tally::default()));
                    holds.len() - 1
                });
                let Some((hold, tally)) = holds.get_mut(at) else { continue };
                *tally = tally.with(grant.kind, slice.share, slice.count);
                hold.share = tally.peak();
                match (&mut hold.taken, &grant.form) {
                    (Taken::Counted(counted), _) => counted.count = tally.count(),
                    (taken, Form::Whole) => *taken = Taken::Whole,
                    _ => {}
                }
            }
        }
        holds.into_iter().map(|(hold, _)| hold).collect()
    }

    /// Whether no card is named by its id, as in the compatibility record.
    pub fn names_indices_alone(&self) -> bool {
        self.grants.iter().all(|grant| grant.devices().all(|id| id.as_index().is_some()))
    }

    /// Whether the plan gives every container of `request` what it asks for, and nothing else. A record that
    /// does not is not believed: its author may be the tenant. Where shares by count lie is not looked at: kubelet
    /// has the last word there, and the record says what it did.
    pub fn serves(&self, request: &GpuRequest) -> bool {
        self.grants.len() == request.containers.len()
            && self.grants.iter().zip(&request.containers).all(|(grant, asked)| grant.serves(asked))
    }
}

impl Grant {
    fn serves(&self, asked: &ContainerRequest) -> bool {
        let distinct = || {
            let others = |i: usize| self.slices.iter().skip(i + 1);
            self.slices.iter().enumerate().all(|(i, a)| others(i).all(|b| a.device != b.device))
        };
        let all = |is: fn(&Slice) -> bool| self.slices.iter().all(is);
        let amounts = match (&asked.ask, &self.form) {
            (Ask::Share(share), Form::Share) => {
                self.slices.iter().all(|slice| slice.share == *share) && all(|slice| slice.count == 1)
            }
            (Ask::Whole { .. }, Form::Whole) => distinct() && all(|slice| slice.count == 1),
            (Ask::Counted(asked), Form::Counted(resource)) => {
                // each share is at least a thousandth, and one like the other
                let equal = |slice: &Slice| {
                    let Milli(compute) = slice.share.compute;
                    compute >= slice.count && compute.checked_rem(slice.count) == Some(0)
                };
                let count: u64 = self.slices.iter().map(|slice| u64::from(slice.count)).sum();
                *resource == asked.resource
                    && count == u64::from(asked.count)
                    && all(|slice| slice.share.memory == Mib(0))
                    && self.slices.iter().all(equal)
                    && distinct()
            }
            _ => false,
        };
        // a record that calls an app an init container would be counted as ending before the others
        let same = (&self.container, self.kind, self.position) == (&asked.name, asked.kind, asked.position);
        amounts && same && asked.ask.cards().is_none_or(|cards| cards == self.slices.len())
    }

    /// Whether it is a part of a card's compute and memory, which its node holds it to.
    pub fn is_share(&self) -> bool {
        self.form == Form::Share
    }

    /// Whether the cards are the container's own.
    pub fn is_whole(&self) -> bool {
        self.form == Form::Whole
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
            form: Form::Share,
            slices: vec![Slice { device: device.into(), index: 0, share, count: 1 }],
        }
    }

    #[test]
    fn a_plan_is_one_line_for_logs() {
        let share = grant("one", ContainerKind::App, "GPU-a", Share::new(500, 7680));
        let mut whole = grant("two", ContainerKind::App, "GPU-b", Share::new(1000, 15_360));
        whole.form = Form::Whole;
        whole.slices.push(Slice { device: "GPU-c".into(), index: 1, share: Share::new(1000, 15_360), count: 1 });
        let mut counted = grant("three", ContainerKind::App, "GPU-d", Share::new(500, 0));
        (counted.form, counted.slices[0].count) = (Form::Counted("amd.com/gpu".into()), 2);
        assert_eq!(
            Plan { grants: vec![share, whole, counted] }.to_string(),
            "one: GPU-a (50 core, 7680 MiB); two: GPU-b, GPU-c (whole); three: GPU-d (2 x amd.com/gpu)"
        );
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
        let hold = |device: &str, share| Hold { device: device.into(), index: 0, share, taken: Taken::Part };
        assert_eq!(plan.holds(), [hold("a", Share::new(600, 70)), hold("b", Share::new(300, 30))]);
    }
}
