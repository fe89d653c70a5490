//! A pod, and what is claimed for its containers.

use std::collections::{BTreeMap, BTreeSet};

use kerf::ids::ContainerName;
use kerf::plan::{Grant, Placement};
use kerf::request::{Ask, ContainerKind, ContainerRequest};

use crate::allocation::Pod;
use crate::device::ids::{Ids, Resource};

/// A container's ids, as far as kubelet has asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim {
    /// By resource: each is asked for by a call of its own.
    held: BTreeMap<Resource, Ids>,
    /// Number of the last call that changed this claim.
    pub(super) order: u64,
    /// kubelet's latest list names this container; for an ordinary init container, its pod.
    pub(super) seen: bool,
    /// kubelet listed it with these ids at least once; or PreStartContainer named them.
    pub(super) confirmed: bool,
    /// kubelet has since given an id of it to another pod: in kubelet's eyes this one is over.
    pub(super) released: bool,
}

impl Claim {
    pub(super) fn ids(&self, resource: &Resource) -> Option<&Ids> {
        self.held.get(resource)
    }

    pub(super) fn core(&self) -> Option<&Ids> {
        self.ids(&Resource::Core)
    }

    /// Whether these are its ids of core or of memory.
    pub(super) fn names(&self, ids: &Ids) -> bool {
        !self.released && Resource::VCUDA.iter().any(|resource| self.ids(resource) == Some(ids))
    }

    pub(super) fn counted(&self) -> Option<&Ids> {
        self.held.iter().find(|(resource, _)| matches!(resource, Resource::Counted(_))).map(|(_, ids)| ids)
    }

    pub(super) fn set(&mut self, resource: &Resource, ids: Option<Ids>) {
        match ids {
            Some(ids) => drop(self.held.insert(resource.clone(), ids)),
            None => drop(self.held.remove(resource)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// How a container comes to be the one that kubelet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// It is next.
    Next,
    /// If the init containers before it are over, of which no call is known.
    Skipping,
    /// An init container that was answered; kubelet may have ended before it noted that.
    Again,
}

/// A pod and what is claimed for it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) pod: Pod,
    /// The truth about its cards: the first believable record, changed only by an exchange.
    pub(super) placement: Option<Placement>,
    /// The truth differs from what the extender wrote.
    pub(super) exchanged: bool,
    pub(super) claims: BTreeMap<ContainerName, Claim>,
    /// Its cards were answered once and kubelet did not note it: it comes last among equals.
    pub(super) doubtful: bool,
    /// The relist that last showed it.
    pub(super) generation: u64,
}

impl Entry {
    pub(super) fn claim(&self, name: &ContainerName) -> Option<&Claim> {
        self.claims.get(name)
    }

    pub(super) fn outstanding(&self, container: &ContainerRequest, resource: &Resource) -> bool {
        amount(container, resource) > 0
            && self.claim(&container.name).is_none_or(|claim| claim.ids(resource).is_none())
    }

    /// Whether kubelet has still to ask for something of this container.
    pub(super) fn lacks(&self, container: &ContainerRequest) -> bool {
        resources(container).iter().any(|resource| self.outstanding(container, resource))
    }

    /// Containers that lack something, up to and with the one that kubelet asks for next. An ordinary init
    /// container may be among them although it is over: kubelet does not list it, and this process may be younger
    /// than it. Once something later is known to be claimed, it is not.
    pub(super) fn next(&self) -> impl Iterator<Item = &ContainerRequest> {
        let all = &self.pod.request.containers;
        let reached = all.iter().rposition(|container| self.claims.contains_key(&container.name)).unwrap_or(0);
        let mut ended = false;
        all.iter()
            .enumerate()
            .filter(move |(at, container)| *at >= reached || !lends(container.kind))
            .map(|(_, container)| container)
            .filter(|container| self.lacks(container))
            .take_while(move |container| !std::mem::replace(&mut ended, !lends(container.kind)))
    }

    /// The container that this amount can be for, and how.
    pub(super) fn awaits(&self, resource: &Resource, units: u64) -> Option<(Reach, &ContainerRequest)> {
        let mut next = self.next().enumerate();
        let found = next.find(|(_, next)| self.outstanding(next, resource) && amount(next, resource) == units);
        if let Some((at, container)) = found {
            return Some((if at == 0 { Reach::Next } else { Reach::Skipping }, container));
        }
        let last =
            self.pod.request.containers.iter().rfind(|container| self.claims.contains_key(&container.name))?;
        let again = lends(last.kind) && amount(last, resource) == units;
        again.then_some((Reach::Again, last))
    }

    pub(super) fn position(&self, name: &ContainerName) -> Option<usize> {
        self.pod.request.containers.iter().position(|container| container.name == *name)
    }

    pub(super) fn lent(&self, name: &ContainerName) -> bool {
        self.pod.request.containers.iter().any(|container| container.name == *name && lends(container.kind))
    }

    /// The claimed ones among the ordinary init containers.
    pub(super) fn lent_claims(&self) -> BTreeSet<ContainerName> {
        self.claims.keys().filter(|name| self.lent(name)).cloned().collect()
    }

    /// Whether kubelet has confirmed every container; ordinary init containers with those after them.
    pub(super) fn complete(&self) -> bool {
        let all = &self.pod.request.containers;
        let lasting = all.iter().any(|container| !lends(container.kind));
        all.iter().filter(|container| !lasting || !lends(container.kind)).all(|container| {
            let listed = |claim: &Claim| claim.confirmed && (claim.seen || self.pod.confirmed) && !claim.released;
            self.claim(&container.name).is_some_and(listed) && !self.lacks(container)
        })
    }

    /// Whether it may be on its cards: kubelet has allocated something for it, or it runs. That kubelet has given its ids
    /// to others says nothing of that; the API server tells its end.
    pub(super) fn holds(&self) -> bool {
        !self.claims.is_empty() || self.settled()
    }

    /// Whether it runs, or says of itself that it has its cards.
    pub(super) fn settled(&self) -> bool {
        self.pod.confirmed || !self.pod.runtime_ids.is_empty()
    }

    pub(super) fn grant(&self, name: &ContainerName) -> Option<&Grant> {
        self.placement.as_ref()?.plan.grants.iter().find(|grant| grant.container == *name)
    }

    pub(super) fn grant_mut(&mut self, name: &ContainerName) -> Option<&mut Grant> {
        self.placement.as_mut()?.plan.grants.iter_mut().find(|grant| grant.container == *name)
    }
}

/// What a container asks kubelet for.
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
pub(super) fn lends(kind: ContainerKind) -> bool {
    kind == ContainerKind::Init
}
