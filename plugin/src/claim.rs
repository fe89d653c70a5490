//! Which container an Allocate is for, and which container really got it. Pure: no IO, no clock, no async.
//!
//! Allocate carries ids and nothing else. What is known: kubelet asks for one container at a time, all
//! containers of a pod in their order, the two resources of a container in any order, and pods roughly in the
//! order in which they were bound. So a call is matched by its amount to the pods that wait here with a
//! placement ([`matching`]), kubelet is steered to ids of the placed card ([`preference`]), and afterwards
//! kubelet's own list says who holds which ids ([`truth`]); where the assumption was wrong, two records change
//! places. That is right because the extender never lets two pods wait on one node that tie in one resource
//! and differ in the other.
//!
//! ```text
//!            allocate                     reconcile / prestart
//!  waiting ------------> claimed (assumed) -------------------> confirmed --ended or deleted--> absent
//!     ^                     |     the ids are another pod's: exchange, both keep a card
//!     +---------------------+
//! ```
//!
//! A pod's placement is read once, when the pod is first seen: what a tenant writes over it later is not
//! obeyed, and is corrected once the pod holds its card. Only the end of a pod frees its claims; that a watch
//! has not shown a pod yet never does.

pub mod matching;
pub mod preference;
pub mod truth;
pub mod view;

use std::collections::{BTreeMap, BTreeSet};

use kerf::device::{Device, Health};
use kerf::ids::{ContainerName, DeviceId, PodRef, PodUid};
use kerf::plan::{Grant, Placement, Plan, Slice};
use kerf::request::{ContainerKind, ContainerRequest, GpuRequest};
use kerf::units::{Milli, Share};

use crate::ids::{Ids, Resource};

/// One container of one life of one pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The pod.
    pub pod: PodUid,
    /// The container in it.
    pub container: ContainerName,
}

/// A pod of this node that asks for cards, as the API server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its identity.
    pub uid: PodUid,
    /// Its name.
    pub reference: PodRef,
    /// What it asks for.
    pub request: GpuRequest,
    /// The placement that its annotations carry now, where it can be believed.
    pub record: Option<Placement>,
    /// Whether `gpu-assigned` is `true` now.
    pub confirmed: bool,
    /// Where it is in its life.
    pub stage: Stage,
    /// Ids that the container runtime gave, without their scheme, and the containers they belong to.
    pub runtime_ids: BTreeMap<String, ContainerName>,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Pending or running.
    Live,
    /// Somebody asked for its deletion; it keeps its cards until it is gone.
    Leaving,
    /// Succeeded or Failed: its cards are free.
    Ended,
}

/// What Allocate answers from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The container that the call is believed to be for.
    pub key: Key,
    /// Its pod's name.
    pub reference: PodRef,
    /// The cards, named as this node knows them now.
    pub grant: Grant,
    /// The ceiling for bursts, where the pod asked for one.
    pub limit: Option<Milli>,
    /// Whether the same call was answered before, with the same content.
    pub repeated: bool,
}

/// Why an Allocate cannot be answered. kubelet then fails the pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No pod of this node waits for this amount.
    #[error("no pod bound to this node has a placement that waits for {units} units of {resource}")]
    NobodyWaits {
        /// The resource of the call: `core` or `memory`.
        resource: &'static str,
        /// Its amount.
        units: u64,
    },
    /// The placement names a card that is not here.
    #[error("pod {pod} was placed on GPU {device}, which this node does not have")]
    NoSuchCard {
        /// The pod.
        pod: PodRef,
        /// The card that was named.
        device: DeviceId,
    },
    /// The card is ill.
    #[error("pod {pod} was placed on GPU {device}, which is unhealthy")]
    Unhealthy {
        /// The pod.
        pod: PodRef,
        /// The card.
        device: DeviceId,
    },
    /// Others hold too much of the card.
    #[error("pod {pod} was placed on GPU {device}, which has no room for it")]
    Overcommitted {
        /// The pod.
        pod: PodRef,
        /// The card.
        device: DeviceId,
    },
}

impl Refusal {
    /// The word used in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NobodyWaits { .. } => "nobody-waits",
            Self::NoSuchCard { .. } => "no-such-card",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Overcommitted { .. } => "overcommitted",
        }
    }
}

/// A container's ids, as far as kubelet has asked.
#[derive(Clone, Debug, Default)]
struct Claim {
    core: Option<Ids>,
    memory: Option<Ids>,
    /// Number of the last call that changed this claim.
    order: u64,
    /// kubelet's latest list names this container with these ids, or PreStartContainer did.
    seen: bool,
    /// It was seen at least once.
    confirmed: bool,
    /// kubelet has since given an id of it to another pod: in kubelet's eyes this one is over.
    released: bool,
}

impl Claim {
    fn ids(&self, resource: Resource) -> Option<&Ids> {
        match resource {
            Resource::Core => self.core.as_ref(),
            Resource::Memory => self.memory.as_ref(),
        }
    }

    fn set(&mut self, resource: Resource, ids: Option<Ids>) {
        match resource {
            Resource::Core => self.core = ids,
            Resource::Memory => self.memory = ids,
        }
    }
}

/// A pod and what is claimed for it.
#[derive(Clone, Debug)]
struct Entry {
    pod: Pod,
    /// The truth about its cards: the first believable record, changed only by an exchange.
    placement: Option<Placement>,
    /// The truth differs from what the extender wrote.
    exchanged: bool,
    claims: BTreeMap<ContainerName, Claim>,
    /// kubelet went on to other pods before this one was complete: it comes last among equals.
    doubtful: bool,
    /// The relist that last showed it.
    generation: u64,
    /// The pod is gone, but kubelet has not said whose its unconfirmed ids really were: kept until the next
    /// comparison that was asked for after this call.
    over: Option<u64>,
}

impl Entry {
    fn claim(&self, name: &ContainerName) -> Option<&Claim> {
        self.claims.get(name)
    }

    fn outstanding(&self, container: &ContainerRequest, resource: Resource) -> bool {
        amount(container, resource) > 0
            && self.claim(&container.name).is_none_or(|claim| claim.ids(resource).is_none())
    }

    /// The container that kubelet asks for next.
    fn next(&self) -> Option<&ContainerRequest> {
        let all = &self.pod.request.containers;
        all.iter().find(|container| Resource::ALL.iter().any(|resource| self.outstanding(container, *resource)))
    }

    /// The next container, if this is an amount that it still lacks.
    fn awaits(&self, resource: Resource, units: u64) -> Option<&ContainerRequest> {
        let next = self.placement.as_ref().filter(|_| self.over.is_none()).and_then(|_| self.next())?;
        (self.outstanding(next, resource) && amount(next, resource) == units).then_some(next)
    }

    /// Whether it ended with ids of which kubelet has not said whose they are: they may be a twin's.
    fn unresolved(&self) -> bool {
        !self.claims.is_empty() && !self.claims.values().any(|claim| claim.confirmed)
    }

    fn holds(&self) -> bool {
        self.over.is_none() && self.claims.values().any(|claim| !claim.released)
    }

    fn grant(&self, name: &ContainerName) -> Option<&Grant> {
        self.placement.as_ref()?.plan.grants.iter().find(|grant| grant.container == *name)
    }

    fn grant_mut(&mut self, name: &ContainerName) -> Option<&mut Grant> {
        self.placement.as_mut()?.plan.grants.iter_mut().find(|grant| grant.container == *name)
    }
}

fn amount(container: &ContainerRequest, resource: Resource) -> u64 {
    match resource {
        Resource::Core => container.ask.core_units(),
        Resource::Memory => container.ask.memory_units(),
    }
}

/// Everything that is known on this node about pods and the ids they hold.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    cards: BTreeMap<DeviceId, Device>,
    pods: BTreeMap<PodUid, Entry>,
    /// Pods that are over, until the watch forgets them: a late event must not bring one back.
    ended: BTreeSet<PodUid>,
    /// The pod in whose middle kubelet is.
    open: Option<PodUid>,
    /// The last container claimed for, by resource.
    last: BTreeMap<Resource, Key>,
    /// What was answered for a set of ids of core, and by which call: whoever holds these ids has these cards.
    answers: BTreeMap<Ids, (Vec<Slice>, u64)>,
    calls: u64,
    generation: u64,
}

impl Claims {
    /// Takes the node's cards, as they are now.
    pub fn set_cards(&mut self, devices: impl IntoIterator<Item = Device>) {
        self.cards = devices.into_iter().map(|device| (device.id.clone(), device)).collect();
    }

    /// A pod as the API server shows it now.
    pub fn observe(&mut self, pod: Pod) {
        if self.ended.contains(&pod.uid) {
            return;
        }
        if pod.stage == Stage::Ended {
            self.ended.insert(pod.uid.clone());
            return self.remove(&pod.uid);
        }
        let generation = self.generation;
        match self.pods.get_mut(&pod.uid) {
            Some(entry) if entry.over.is_some() => {}
            Some(entry) => {
                if entry.placement.is_none() {
                    entry.placement.clone_from(&pod.record);
                }
                entry.pod = pod;
                entry.generation = generation;
            }
            None => {
                let entry = Entry {
                    placement: pod.record.clone(),
                    exchanged: false,
                    claims: BTreeMap::new(),
                    doubtful: false,
                    generation,
                    over: None,
                    pod,
                };
                self.pods.insert(entry.pod.uid.clone(), entry);
            }
        }
    }

    /// The API server has deleted this pod.
    pub fn forget(&mut self, uid: &PodUid) {
        self.ended.remove(uid);
        self.remove(uid);
    }

    fn remove(&mut self, uid: &PodUid) {
        self.open.take_if(|open| open == uid);
        let calls = self.calls;
        match self.pods.get_mut(uid) {
            Some(entry) if entry.unresolved() => entry.over = entry.over.or(Some(calls)),
            _ => drop(self.pods.remove(uid)),
        }
    }

    /// A complete list of the node's pods begins.
    pub fn begin_list(&mut self) {
        self.generation += 1;
    }

    /// The complete list has ended: a pod that was not seen since it began is gone.
    pub fn end_list(&mut self) {
        let gone = self.pods.values().filter(|entry| entry.generation != self.generation);
        let gone: Vec<PodUid> = gone.map(|entry| entry.pod.uid.clone()).collect();
        gone.iter().for_each(|uid| self.remove(uid));
        self.ended.clear();
    }

    /// The card that a record names: by id, or by index where the record knows no more.
    fn card(&self, device: &DeviceId) -> Option<&Device> {
        match self.cards.get(device) {
            Some(card) => Some(card),
            None => {
                let index = device.as_index()?;
                self.cards.values().find(|card| card.index == index)
            }
        }
    }

    /// The plan with each card named as this node knows it; cards that are not here keep their names.
    fn resolve(&self, plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        for grant in &mut plan.grants {
            for slice in &mut grant.slices {
                if let Some(card) = self.card(&slice.device) {
                    *slice = Slice {
                        device: card.id.clone(),
                        index: card.index,
                        share: if grant.whole { card.capacity() } else { slice.share },
                    };
                }
            }
        }
        plan
    }

    /// Whether the cards of `entry`'s container are here, well, and have room for all that the pod takes.
    fn room(&self, entry: &Entry, container: &ContainerName) -> Result<(), Refusal> {
        let pod = || entry.pod.reference.clone();
        let Some(placement) = &entry.placement else { return Ok(()) };
        let plan = self.resolve(&placement.plan);
        let named: BTreeSet<&DeviceId> =
            plan.grants.iter().filter(|grant| grant.container == *container).flat_map(Grant::devices).collect();
        for hold in plan.holds().into_iter().filter(|hold| named.contains(&hold.device)) {
            let device = hold.device;
            let card = self
                .cards
                .get(&device)
                .ok_or_else(|| Refusal::NoSuchCard { pod: pod(), device: device.clone() })?;
            if card.health == Health::Unhealthy {
                return Err(Refusal::Unhealthy { pod: pod(), device });
            }
            let (taken, sharers, whole) = self.taken(&device, Some(&entry.pod.uid));
            let alone = !whole && (!hold.whole || sharers == 0);
            let fits = hold.whole || taken.saturating_add(hold.share).fits_in(card.capacity());
            if !alone || !fits {
                return Err(Refusal::Overcommitted { pod: pod(), device });
            }
        }
        Ok(())
    }

    /// What pods with claims take of a card: how much, how many pods, and whether one has it to itself.
    fn taken(&self, device: &DeviceId, except: Option<&PodUid>) -> (Share, usize, bool) {
        let mut sum = (Share::ZERO, 0, false);
        for entry in self.pods.values().filter(|entry| entry.holds() && Some(&entry.pod.uid) != except) {
            let Some(placement) = &entry.placement else { continue };
            for hold in self.resolve(&placement.plan).holds().iter().filter(|hold| hold.device == *device) {
                sum = (sum.0.saturating_add(hold.share), sum.1 + 1, sum.2 || hold.whole);
            }
        }
        sum
    }

    /// How much of a card the pods hold that kubelet has allocated.
    pub fn allocated(&self, device: &DeviceId) -> Share {
        self.taken(device, None).0
    }

    /// Pods by their name, newest placement last; a name may belong to two lives for a moment.
    fn by_reference(&self, reference: &PodRef) -> Option<PodUid> {
        let named = self.pods.values().filter(|entry| entry.over.is_none() && entry.pod.reference == *reference);
        let best = named.max_by_key(|entry| {
            let time = entry.placement.as_ref().map_or(0, |placement| placement.time);
            (entry.placement.is_some(), entry.pod.stage == Stage::Live, time)
        });
        best.map(|entry| entry.pod.uid.clone())
    }

    /// Number of the latest call; what was learned from outside before a call says nothing about it.
    pub fn calls(&self) -> u64 {
        self.calls
    }
}

/// Whether a container's ids may be given again within its pod.
fn lends(kind: ContainerKind) -> bool {
    kind == ContainerKind::Init
}

#[cfg(test)]
mod tests;
