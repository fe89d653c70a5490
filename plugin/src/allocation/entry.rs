//! A pod of this node, as the API server shows it, and the claims of its containers.

use std::collections::BTreeMap;

use kerf::annotation::isolation::Levels;
use kerf::ids::{ContainerName, NodeName, PodRef, PodUid};
use kerf::plan::{ContainerGrant, Placement};
use kerf::request::{Ask, ContainerKind, ContainerRequest, GpuRequest};

use crate::allocation::{Claim, State};
use crate::device::ids::Resource;

/// One container of one pod: a new pod of the same name has another key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub pod: PodUid,
    pub container: ContainerName,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub uid: PodUid,
    pub reference: PodRef,
    pub node: NodeName,
    /// Nanoseconds since 1970.
    pub created: u64,
    pub request: GpuRequest,
    /// The placement in its annotations now, where it can be trusted.
    pub record: Option<Placement>,
    /// Whether `gpu-assigned` is `true` now.
    pub confirmed: bool,
    /// The isolation in its annotations now.
    pub isolated: Option<Levels>,
    pub stage: Stage,
    /// The users that containers say they run as, where they say so. An image's user is not known here.
    pub users: BTreeMap<ContainerName, u32>,
    /// Container ids of the runtime, without their scheme, and the containers they belong to.
    pub runtime_ids: BTreeMap<String, ContainerName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Live,
    /// Its deletion was requested; it keeps its GPUs until it is gone.
    Terminating,
    /// Succeeded or Failed: its GPUs are free.
    Ended,
}

/// A pod that asks for no GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bystander {
    pub uid: PodUid,
    pub reference: PodRef,
    /// Container ids of the runtime, without their scheme, and the containers they belong to.
    pub runtime_ids: BTreeMap<String, ContainerName>,
}

/// What the API server shows of any pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It asks for GPUs.
    Claimant(Box<Pod>),
    /// It asks for no GPU.
    Other { pod: Bystander, stage: Stage },
    /// It exists, but cannot be read.
    Unreadable { uid: PodUid },
}

impl Seen {
    pub fn uid(&self) -> &PodUid {
        match self {
            Self::Claimant(pod) => &pod.uid,
            Self::Other { pod, .. } => &pod.uid,
            Self::Unreadable { uid } => uid,
        }
    }
}

/// What must have happened for a container to be the one that kubelet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Nothing more: it is next.
    Next,
    /// The init containers before it are over, although no call for them is known.
    Skipping,
    /// kubelet asks again for an init container that was answered: it may have ended before it noted the answer.
    Again,
}

/// A pod that asks for GPUs, and the claims of its containers.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) pod: Pod,
    /// The GPUs that it has or will have: those of the first record that could be trusted, unless corrected.
    pub(super) placement: Option<Placement>,
    /// It has other GPUs than the extender wrote: its containers changed places with others, or kubelet chose
    /// differently.
    pub(super) corrected: bool,
    pub(super) claims: BTreeMap<ContainerName, Claim>,
    /// Whether kubelet did not note an answer for the pod: it comes last among equals.
    pub(super) answer_lost: bool,
}

impl Entry {
    pub(super) fn new(pod: Pod) -> Self {
        let placement = pod.record.clone();
        Self { pod, placement, corrected: false, claims: BTreeMap::new(), answer_lost: false }
    }

    /// The pod as the API server shows it now. A record that replaces its first one is not obeyed.
    pub(super) fn observe(&mut self, pod: Pod) {
        if self.placement.is_none() {
            self.placement.clone_from(&pod.record);
        }
        self.pod = pod;
    }

    /// When it was placed; zero where that is unknown.
    pub(super) fn placed(&self) -> u64 {
        self.placement.as_ref().map_or(0, |placement| placement.time)
    }

    pub(super) fn key(&self, container: &ContainerName) -> Key {
        Key { pod: self.pod.uid.clone(), container: container.clone() }
    }

    pub(super) fn containers(&self) -> &[ContainerRequest] {
        &self.pod.request.containers
    }

    pub(super) fn container(&self, name: &ContainerName) -> Option<&ContainerRequest> {
        self.containers().iter().find(|container| container.name == *name)
    }

    /// The containers that last as long as the pod; the ordinary init containers where there are no others.
    pub(super) fn lasting(&self) -> impl Iterator<Item = &ContainerRequest> {
        let lasting = self.containers().iter().any(|container| !is_init(container));
        self.containers().iter().filter(move |container| !lasting || !is_init(container))
    }

    /// The claims, each with whether it is that of an ordinary init container.
    pub(super) fn claims_mut(&mut self) -> impl Iterator<Item = (&ContainerName, &mut Claim, bool)> {
        let request = &self.pod.request;
        self.claims.iter_mut().map(move |(name, claim)| (name, claim, has_init(request, name)))
    }

    /// Drops the claims that are not to be kept: kubelet has lost these answers. `keep` is also given whether a
    /// claim is that of an ordinary init container.
    pub(super) fn retain_claims(&mut self, keep: impl Fn(&mut Claim, bool) -> bool) {
        let before = self.claims.len();
        let request = &self.pod.request;
        self.claims.retain(|name, claim| keep(claim, has_init(request, name)));
        self.answer_lost |= self.claims.len() < before;
    }

    pub(super) fn outstanding(&self, container: &ContainerRequest, resource: &Resource) -> bool {
        amount(container, resource) > 0
            && self.claims.get(&container.name).is_none_or(|claim| claim.ids(resource).is_none())
    }

    /// Whether kubelet has still to ask for a resource of this container.
    pub(super) fn lacks(&self, container: &ContainerRequest) -> bool {
        resources(container).iter().any(|resource| self.outstanding(container, resource))
    }

    /// Containers that lack ids, up to and including the one that kubelet asks for next. An ordinary init container
    /// may be among them although it is over: kubelet does not list it, and it may have run before this process
    /// started. Once a later container is known to be claimed, it is not.
    pub(super) fn next(&self) -> impl Iterator<Item = &ContainerRequest> {
        let all = self.containers();
        let reached = all.iter().rposition(|container| self.claims.contains_key(&container.name)).unwrap_or(0);
        let mut ended = false;
        all.iter()
            .enumerate()
            .filter(move |(at, container)| *at >= reached || !is_init(container))
            .map(|(_, container)| container)
            .filter(|container| self.lacks(container))
            .take_while(move |container| !std::mem::replace(&mut ended, !is_init(container)))
    }

    /// The container that this amount can be for, and how.
    pub(super) fn awaits(&self, resource: &Resource, units: u64) -> Option<(Reach, &ContainerRequest)> {
        let mut next = self.next().enumerate();
        let found = next.find(|(_, next)| self.outstanding(next, resource) && amount(next, resource) == units);
        if let Some((at, container)) = found {
            return Some((if at == 0 { Reach::Next } else { Reach::Skipping }, container));
        }
        let last = self.containers().iter().rfind(|container| self.claims.contains_key(&container.name))?;
        let again = is_init(last) && amount(last, resource) == units;
        again.then_some((Reach::Again, last))
    }

    pub(super) fn is_init(&self, name: &ContainerName) -> bool {
        has_init(&self.pod.request, name)
    }

    /// Whether kubelet has confirmed every container; an ordinary init container counts as confirmed with those
    /// after it.
    pub(super) fn complete(&self) -> bool {
        self.lasting().all(|container| {
            self.claims.get(&container.name).is_some_and(|claim| self.believed(claim)) && !self.lacks(container)
        })
    }

    /// Whether kubelet's latest list has it, or the pod's record says that it has its GPUs and kubelet listed it
    /// once.
    pub(super) fn believed(&self, claim: &Claim) -> bool {
        match claim.state() {
            State::Confirmed => true,
            State::Unlisted => self.pod.confirmed,
            State::Assumed | State::PodListed | State::Released => false,
        }
    }

    /// Whether it may use its GPUs: kubelet has allocated ids for it, or it runs. That kubelet has given its ids to
    /// others does not end this; only the API server tells that a pod is over.
    pub(super) fn holds(&self) -> bool {
        !self.claims.is_empty() || self.settled()
    }

    /// Whether it runs, or its record says that it has its GPUs.
    pub(super) fn settled(&self) -> bool {
        self.pod.confirmed || !self.pod.runtime_ids.is_empty()
    }

    pub(super) fn grant(&self, name: &ContainerName) -> Option<&ContainerGrant> {
        self.placement.as_ref()?.plan.grants.iter().find(|grant| grant.container == *name)
    }

    /// The container's grant, to be changed: it differs from the record from now on.
    pub(super) fn correct(&mut self, name: &ContainerName) -> Option<&mut ContainerGrant> {
        let placement = self.placement.as_mut()?;
        self.corrected = true;
        placement.plan.grants.iter_mut().find(|grant| grant.container == *name)
    }
}

/// The resources that a container requests.
pub(super) fn resources(container: &ContainerRequest) -> Vec<Resource> {
    match &container.ask {
        Ask::Counted(counted) => vec![Resource::Counted(counted.resource.clone())],
        Ask::Share(_) | Ask::Whole { .. } => Resource::VCUDA.to_vec(),
    }
}

pub(super) fn amount(container: &ContainerRequest, resource: &Resource) -> u64 {
    match (resource, &container.ask) {
        (Resource::Core, ask) => ask.core_units(),
        (Resource::Memory, ask) => ask.memory_units(),
        (Resource::Counted(name), Ask::Counted(counted)) if counted.resource == *name => counted.count.into(),
        (Resource::Counted(_), _) => 0,
    }
}

/// Whether a container's ids may be given again within its pod.
pub(super) fn is_init(container: &ContainerRequest) -> bool {
    container.kind == ContainerKind::Init
}

fn has_init(request: &GpuRequest, name: &ContainerName) -> bool {
    request.containers.iter().any(|container| container.name == *name && is_init(container))
}
