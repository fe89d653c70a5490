//! Which container gets what of which device, on one node: a value, not an action.

use std::fmt;

use crate::ids::{ContainerName, DeviceId, NodeName, ResourceName};
use crate::request::{Ask, ContainerKind, ContainerRequest, GpuRequest};
use crate::shares::Counted;
use crate::tally::Tally;
use crate::units::{Mib, Milli, Share};

/// A device as a plan names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRef {
    pub id: DeviceId,
    /// Its index when the choice was made; for people and the compatibility record.
    pub index: u32,
}

/// A device that a container has alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeDevice {
    pub device: DeviceRef,
    /// All its memory; zero from the compatibility record, which does not have it.
    pub memory: Mib,
}

/// Counted shares of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedDevice {
    pub device: DeviceRef,
    /// How many shares, at least one.
    pub count: u32,
    /// Compute of all of them together when the choice was made. Memory is not divided.
    pub compute: Milli,
}

/// What a container gets of a node's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// A part of one device's compute and memory, which the node enforces.
    Share {
        /// The one device of the share.
        device: DeviceRef,
        share: Share,
    },
    /// Devices that the container has alone, in order of index, each once.
    Whole(Vec<WholeDevice>),
    /// Counted shares of one resource.
    Counted {
        resource: ResourceName,
        /// In order of index, each once.
        devices: Vec<CountedDevice>,
    },
}

impl Grant {
    /// The grant for `ask` of these devices, each given with all its memory. `None` where their number is not the one
    /// asked for, or `ask` is for counted shares, whose number the devices do not tell.
    pub fn of(ask: &Ask, devices: impl IntoIterator<Item = (DeviceRef, Mib)>) -> Option<Self> {
        let mut devices = devices.into_iter();
        match ask {
            Ask::Share(share) => {
                let (device, _) = devices.next()?;
                devices.next().is_none().then_some(Self::Share { device, share: *share })
            }
            Ask::Whole { count, .. } => {
                let whole: Vec<_> = devices.map(|(device, memory)| WholeDevice { device, memory }).collect();
                (whole.len() == *count as usize).then_some(Self::Whole(whole))
            }
            Ask::Counted(_) => None,
        }
    }

    pub fn is_share(&self) -> bool {
        matches!(self, Self::Share { .. })
    }

    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    /// Each device with the compute and memory that the container was given. Counted shares have no memory of their
    /// own.
    pub fn amounts(&self) -> impl Iterator<Item = (&DeviceRef, Share)> {
        let (share, whole, counted) = match self {
            Self::Share { device, share } => (Some((device, *share)), &[][..], &[][..]),
            Self::Whole(devices) => (None, &devices[..], &[][..]),
            Self::Counted { devices, .. } => (None, &[][..], &devices[..]),
        };
        let whole = whole.iter().map(|one| (&one.device, Share { compute: Milli::WHOLE, memory: one.memory }));
        let counted = counted.iter().map(|one| (&one.device, Share { compute: one.compute, memory: Mib(0) }));
        share.into_iter().chain(whole).chain(counted)
    }

    pub fn devices(&self) -> impl Iterator<Item = &DeviceRef> {
        self.amounts().map(|(device, _)| device)
    }

    pub fn ids(&self) -> impl Iterator<Item = &DeviceId> {
        self.devices().map(|device| &device.id)
    }

    /// Each device with what the container takes of it, by this grant alone.
    pub fn taken(&self) -> impl Iterator<Item = (&DeviceRef, Taken)> {
        let counted = match self {
            Self::Share { .. } | Self::Whole(_) => None,
            Self::Counted { resource, devices } => Some((resource, devices)),
        };
        let mut counts = counted.into_iter().flat_map(|(resource, devices)| {
            devices.iter().map(move |one| Counted { resource: resource.clone(), count: one.count })
        });
        let whole = self.is_whole();
        self.amounts().map(move |(device, share)| {
            let taken = match counts.next() {
                Some(counted) => Taken::Counted(counted, share.compute),
                None if whole => Taken::Whole(share),
                None => Taken::Part(share),
            };
            (device, taken)
        })
    }

    fn serves(&self, ask: &Ask) -> bool {
        let distinct = || self.ids().enumerate().all(|(at, id)| self.ids().skip(at + 1).all(|other| id != other));
        match (ask, self) {
            (Ask::Share(asked), Self::Share { share, .. }) => asked == share,
            (Ask::Whole { count, .. }, Self::Whole(devices)) => devices.len() == *count as usize && distinct(),
            (Ask::Counted(asked), Self::Counted { resource, devices }) => {
                // each share is at least a thousandth, and all are equal
                let equal = |one: &CountedDevice| {
                    one.compute.0 >= one.count && one.compute.0.checked_rem(one.count) == Some(0)
                };
                let count: u64 = devices.iter().map(|one| u64::from(one.count)).sum();
                *resource == asked.resource
                    && count == u64::from(asked.count)
                    && devices.iter().all(equal)
                    && distinct()
            }
            _ => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerGrant {
    pub container: ContainerName,
    pub kind: ContainerKind,
    /// Its position in `spec.containers` (or `spec.initContainers`).
    pub position: u32,
    pub gpus: Grant,
}

impl ContainerRequest {
    pub fn granted(&self, gpus: Grant) -> ContainerGrant {
        ContainerGrant { container: self.name.clone(), kind: self.kind, position: self.position, gpus }
    }
}

/// For logs: `main: GPU-a (50 core, 7680 MiB)`, `main: GPU-a, GPU-b (whole)`, `main: GPU-a (2 x amd.com/gpu)`.
impl fmt::Display for ContainerGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.container)?;
        match &self.gpus {
            Grant::Share { device, share: Share { compute, memory } } => {
                write!(f, "{} ({} core, {} MiB)", device.id, compute.to_core_units(), memory.0)
            }
            Grant::Whole(devices) => {
                let ids: Vec<&str> = devices.iter().map(|one| one.device.id.as_str()).collect();
                write!(f, "{} (whole)", ids.join(", "))
            }
            Grant::Counted { resource, devices } => {
                let each = |one: &CountedDevice| format!("{} ({} x {resource})", one.device.id, one.count);
                f.write_str(&devices.iter().map(each).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// What every container of a pod that asks for GPUs gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One for each container of the request, in kubelet's order.
    pub grants: Vec<ContainerGrant>,
}

/// For logs: its containers' devices, joined by semicolons.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grants: Vec<String> = self.grants.iter().map(ContainerGrant::to_string).collect();
        f.write_str(&grants.join("; "))
    }
}

/// A plan on its node, as recorded on the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub node: NodeName,
    /// When it was decided, in nanoseconds since 1970. Orders the pods of a node.
    pub time: u64,
    /// Ceiling for bursts of the pod's shares, where it asked for one.
    pub limit: Option<Milli>,
    pub plan: Plan,
}

impl Placement {
    /// With nothing that a pod has to ask for.
    pub fn new(node: impl Into<NodeName>, time: u64, plan: Plan) -> Self {
        Self { node: node.into(), time, limit: None, plan }
    }
}

/// What a pod takes of one device over its whole life, by one resource. Different resources make different holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub device: DeviceRef,
    pub taken: Taken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A part of compute and memory.
    Part(Share),
    /// The whole device, and more memory where the record has more.
    Whole(Share),
    /// Counted shares. They take the compute by their device's offer, or this compute where it has no offer.
    Counted(Counted, Milli),
}

impl Taken {
    /// A whole device of unknown size.
    const ALL: Self = Self::Whole(Share::ZERO);

    /// The resource of counted shares; `None` for parts and whole devices, which count as one resource.
    pub fn resource(&self) -> Option<&ResourceName> {
        match self {
            Self::Counted(counted, _) => Some(&counted.resource),
            Self::Part(_) | Self::Whole(_) => None,
        }
    }

    /// Compute and memory by the record.
    pub fn share(&self) -> Share {
        match self {
            Self::Part(share) | Self::Whole(share) => *share,
            Self::Counted(_, compute) => Share { compute: *compute, memory: Mib(0) },
        }
    }

    fn count(&self) -> u32 {
        match self {
            Self::Counted(counted, _) => counted.count,
            Self::Part(_) | Self::Whole(_) => 0,
        }
    }

    /// Adds `added`, of the same device and resource; `share` and `count` are the new totals.
    fn grown(&mut self, added: &Self, (share, count): (Share, u32)) {
        match (self, added) {
            (Self::Counted(counted, compute), _) => (counted.count, *compute) = (count, share.compute),
            (own, Self::Whole(_)) => *own = Self::Whole(share),
            (Self::Part(own) | Self::Whole(own), _) => *own = share,
        }
    }
}

/// What a pod takes over its life from what its containers take, by device and resource, in order of first appearance.
fn over_life<D>(
    taken: impl Iterator<Item = (ContainerKind, D, Taken)>,
    same: impl Fn(&D, &D) -> bool,
) -> Vec<(D, Taken)> {
    type Tallied<D> = (D, Taken, Tally<(Share, u32)>);
    let mut all: Vec<Tallied<D>> = Vec::new();
    for (kind, device, added) in taken {
        let known = |(own, taken, _): &Tallied<D>| same(own, &device) && taken.resource() == added.resource();
        let amount = (added.share(), added.count());
        match all.iter().position(known).and_then(|at| all.get_mut(at)) {
            Some((_, taken, tally)) => {
                *tally = tally.with(kind, amount);
                taken.grown(&added, tally.peak());
            }
            None => all.push((device, added, Tally::default().with(kind, amount))),
        }
    }
    all.into_iter().map(|(device, taken, _)| (device, taken)).collect()
}

impl GpuRequest {
    /// What the pod takes of each device that it may be on, where its devices are not known.
    pub fn taken_anywhere(&self) -> Vec<Taken> {
        let taken = |ask: &Ask| match ask {
            Ask::Share(share) => Taken::Part(*share),
            Ask::Whole { .. } => Taken::ALL,
            // its compute depends on the device
            Ask::Counted(counted) => Taken::Counted(counted.clone(), Milli(0)),
        };
        let containers = self.containers.iter().map(|container| (container.kind, (), taken(&container.ask)));
        over_life(containers, |(), ()| true).into_iter().map(|((), taken)| taken).collect()
    }
}

impl Plan {
    /// In the order in which the devices first appear.
    pub fn holds(&self) -> Vec<Hold> {
        let taken = self
            .grants
            .iter()
            .flat_map(|grant| grant.gpus.taken().map(move |(device, taken)| (grant.kind, device, taken)));
        let holds = over_life(taken, |one, other| one.id == other.id);
        holds.into_iter().map(|(device, taken)| Hold { device: device.clone(), taken }).collect()
    }

    /// Whether all devices are given by index only, as in the compatibility record.
    pub fn names_indices_alone(&self) -> bool {
        self.grants.iter().all(|grant| grant.gpus.ids().all(|id| id.as_index().is_some()))
    }

    /// Whether the plan gives every container of `request` what it asks for, and nothing else. A record that does not
    /// is not accepted: its author may be the tenant. The cards of counted shares are not checked against the
    /// arrangement: kubelet has the last word there, and the record says what it did.
    pub fn serves(&self, request: &GpuRequest) -> bool {
        // a record that calls an app an init container would be counted as ending before the others
        let same = |grant: &ContainerGrant, asked: &ContainerRequest| {
            (&grant.container, grant.kind, grant.position) == (&asked.name, asked.kind, asked.position)
        };
        self.grants.len() == request.containers.len()
            && self
                .grants
                .iter()
                .zip(&request.containers)
                .all(|(grant, asked)| same(grant, asked) && grant.gpus.serves(&asked.ask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, index: u32) -> DeviceRef {
        DeviceRef { id: id.into(), index }
    }

    fn grant(name: &str, kind: ContainerKind, gpus: Grant) -> ContainerGrant {
        ContainerGrant { container: name.into(), kind, position: 0, gpus }
    }

    fn share(name: &str, kind: ContainerKind, id: &str, share: Share) -> ContainerGrant {
        grant(name, kind, Grant::Share { device: device(id, 0), share })
    }

    #[test]
    fn a_plan_is_one_line_for_logs() {
        use ContainerKind::App;
        let whole = |id, index| WholeDevice { device: device(id, index), memory: Mib(15_360) };
        let counted = CountedDevice { device: device("GPU-d", 3), count: 2, compute: Milli(500) };
        let plan = Plan {
            grants: vec![
                share("one", App, "GPU-a", Share::new(500, 7680)),
                grant("two", App, Grant::Whole(vec![whole("GPU-b", 0), whole("GPU-c", 1)])),
                grant("three", App, Grant::Counted { resource: "amd.com/gpu".into(), devices: vec![counted] }),
            ],
        };
        assert_eq!(
            plan.to_string(),
            "one: GPU-a (50 core, 7680 MiB); two: GPU-b, GPU-c (whole); three: GPU-d (2 x amd.com/gpu)"
        );
    }

    #[test]
    fn a_pod_takes_the_larger_of_its_phases_on_each_card() {
        use ContainerKind::*;
        let plan = Plan {
            grants: vec![
                share("side", Sidecar, "a", Share::new(100, 10)),
                share("init", Init, "a", Share::new(500, 20)),
                share("one", App, "a", Share::new(200, 60)),
                share("two", App, "b", Share::new(300, 30)),
            ],
        };
        let hold = |id: &str, share| Hold { device: device(id, 0), taken: Taken::Part(share) };
        assert_eq!(plan.holds(), [hold("a", Share::new(600, 70)), hold("b", Share::new(300, 30))]);
    }

    #[test]
    fn devices_that_are_not_as_many_as_asked_for_are_no_grant() {
        let two = || [(device("a", 0), Mib(1)), (device("b", 1), Mib(2))];
        let [first, second] = two().map(|(device, memory)| WholeDevice { device, memory });
        assert_eq!(
            Grant::of(&Ask::Whole { count: 2, memory: None }, two()),
            Some(Grant::Whole(vec![first, second]))
        );
        assert_eq!(Grant::of(&Ask::Whole { count: 1, memory: None }, two()), None);
        assert_eq!(Grant::of(&Ask::Share(Share::new(1, 1)), two()), None);
        assert_eq!(Grant::of(&Ask::Share(Share::new(1, 1)), []), None);
    }
}
