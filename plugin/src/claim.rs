//! Which container an Allocate is for, and which container really got it. Pure: no IO, no clock, no async.
//!
//! Allocate carries ids and nothing else, but kubelet serves one pod at a time, and while it does its own list
//! shows which: the pod is on it as soon as its admission begins, each answer is on it before the next call, and
//! pods that wait for their turn, or were rejected, are not ([`truth`]). So a list that was asked for during a call
//! names the pod the call is for: the one whose containers still lack devices. Only ordinary init containers are
//! not on the list; what was answered for them is remembered here.
//!
//! Where kubelet does not give its list, the call is matched to what waits by its amount, and by the order of
//! binding ([`matching`]); the next list corrects what was wrong, and two records change places (`exchange`).
//! kubelet is steered to ids of the placed card ([`preference`]), so that its own books name it too.
//!
//! ```text
//!            allocate                    kubelet lists it
//!  waiting ------------> claimed (assumed) -------------> confirmed --ended or deleted--> absent
//!     ^                     |    kubelet does not list it, or lists another with its ids
//!     +---------------------+
//! ```
//!
//! Ids of shares by count name the cards that a container has: Allocate is answered by them alone, kubelet is steered
//! to the recorded cards, and a record that kubelet did not follow follows kubelet ([`Claims::take_counted`]).
//!
//! A pod's placement is read once, when the pod is first seen: what a tenant writes over it later is not
//! obeyed, and is corrected once the pod holds its card. Only the end of a pod frees its confirmed claims; that a
//! watch or a list has not shown a pod yet never does.

mod entry;
mod exchange;
mod having;
mod level;
pub mod matching;
pub mod preference;
pub mod truth;
mod unrecorded;
pub mod view;

use std::collections::{BTreeMap, BTreeSet};

use kerf::annotation::isolation::Levels;
use kerf::device::{Device, Health};
use kerf::ids::{ContainerName, DeviceId, NodeName, PodRef, PodUid};
use kerf::isolation::Isolation;
use kerf::plan::{Grant, Placement, Plan, Slice, Taken};
use kerf::request::GpuRequest;
use kerf::units::{Milli, Share};

use crate::claim::entry::Entry;
use crate::ids::Ids;

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
    /// The node it is bound to.
    pub node: NodeName,
    /// When it was created, in nanoseconds since 1970.
    pub created: u64,
    /// What it asks for.
    pub request: GpuRequest,
    /// The placement that its annotations carry now, where it can be believed.
    pub record: Option<Placement>,
    /// Whether `gpu-assigned` is `true` now.
    pub confirmed: bool,
    /// What its annotations say of its isolation now.
    pub isolated: Option<Levels>,
    /// Where it is in its life.
    pub stage: Stage,
    /// The users that containers say they run as, where they do. What an image says is not known here.
    pub users: BTreeMap<ContainerName, u32>,
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
    /// The user that the container says it runs as.
    pub user: Option<u32>,
    /// The least isolation that the pod demands.
    pub demanded: Isolation,
    /// Whether these ids were answered before, with the same content.
    pub repeated: bool,
}

/// Why an Allocate cannot be answered. kubelet then fails the pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No pod of this node waits for this amount.
    #[error("no pod bound to this node has a placement that waits for {units} units of {resource}")]
    NobodyWaits {
        /// The resource of the call: `core` or `memory`.
        resource: String,
        /// Its amount.
        units: u64,
    },
    /// kubelet does not say which pod it is at, and those that wait for this amount need different cards.
    #[error("kubelet does not say which pod it is at, and pods with unlike needs wait for {units} units of core")]
    Ambiguous {
        /// The amount.
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
    /// The card's shares are not enforced as the pod demands.
    #[error("pod {pod} demands isolation {demanded}, and shares of GPU {device} have {found}")]
    Isolation {
        /// The pod.
        pod: PodRef,
        /// The card.
        device: DeviceId,
        /// What the pod demands.
        demanded: Isolation,
        /// What the card has.
        found: Isolation,
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
            Self::Ambiguous { .. } => "ambiguous",
            Self::NoSuchCard { .. } => "no-such-card",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Isolation { .. } => "isolation",
            Self::Overcommitted { .. } => "overcommitted",
        }
    }
}

/// Everything that is known on this node about pods and the ids they hold.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    cards: BTreeMap<DeviceId, Device>,
    pods: BTreeMap<PodUid, Entry>,
    /// Pods that are over, until the watch forgets them: a late event must not bring one back.
    ended: BTreeSet<PodUid>,
    /// The pod of the last call, while it is incomplete.
    open: Option<PodUid>,
    /// Pods that held something and are over, until kubelet's list is without them.
    departed: BTreeSet<PodRef>,
    /// Some have left kubelet's list since [`Claims::struck`] was asked.
    struck: bool,
    /// The pods on kubelet's latest list.
    listed: Option<BTreeSet<PodRef>>,
    /// The list was asked for during a call of kubelet, and no Allocate has come since.
    fresh: bool,
    /// What was answered for a set of ids of core: whoever holds these ids has these cards.
    answers: BTreeMap<Ids, Vec<Slice>>,
    /// What enforces the share of a container, from when it was given these ids of core.
    levels: BTreeMap<Key, (Ids, Isolation)>,
    /// The ids of core on kubelet's latest list.
    listed_core: BTreeSet<(PodRef, Ids)>,
    /// How many Allocates were answered.
    calls: u64,
    /// How many lists were asked for, and the latest that was taken.
    questions: u64,
    taken: u64,
    generation: u64,
    /// A complete list of the node's pods was taken.
    complete: bool,
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
        if let Some(entry) = self.pods.remove(uid)
            && !entry.claims.is_empty()
        {
            self.departed.insert(entry.pod.reference);
        }
    }

    /// Whether pods that are over are still on kubelet's list.
    pub fn departing(&self) -> bool {
        !self.departed.is_empty()
    }

    /// Whether kubelet has struck pods off its list since this was asked last. Its checkpoint has them still.
    pub fn struck(&mut self) -> bool {
        std::mem::take(&mut self.struck)
    }

    /// The pods that are known now.
    pub fn known(&self) -> BTreeSet<PodUid> {
        self.pods.keys().cloned().collect()
    }

    /// The pods that are known, and the ids of core that kubelet lists for others. `None` until both the API server and
    /// kubelet have told theirs.
    pub fn in_use(&self) -> Option<(Vec<view::PodView>, BTreeSet<Ids>)> {
        let known: BTreeSet<&PodRef> = self.pods.values().map(|entry| &entry.pod.reference).collect();
        let strangers =
            self.listed_core.iter().filter(|(pod, _)| !known.contains(pod)).map(|(_, core)| core.clone());
        (self.complete && self.listed.is_some()).then(|| (self.view(), strangers.collect()))
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
        self.complete = true;
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
            let whole = grant.is_whole();
            for slice in &mut grant.slices {
                if let Some(card) = self.card(&slice.device) {
                    *slice = Slice {
                        device: card.id.clone(),
                        index: card.index,
                        share: if whole { card.capacity() } else { slice.share },
                        count: slice.count,
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
            let (device, own) = (hold.device.clone(), hold.is_whole());
            let card = self
                .cards
                .get(&device)
                .ok_or_else(|| Refusal::NoSuchCard { pod: pod(), device: device.clone() })?;
            if card.health == Health::Unhealthy {
                return Err(Refusal::Unhealthy { pod: pod(), device });
            }
            let demanded = entry.pod.request.isolation.unwrap_or_default();
            if !own && card.isolation < demanded {
                return Err(Refusal::Isolation { pod: pod(), device, demanded, found: card.isolation });
            }
            let (taken, sharers, whole) = self.used(&device, Some(&entry.pod.uid));
            let alone = !whole && (!own || sharers == 0);
            let fits = own || taken.saturating_add(hold.share).fits_in(card.capacity());
            if !alone || !fits {
                return Err(Refusal::Overcommitted { pod: pod(), device });
            }
        }
        Ok(())
    }

    /// What pods with claims take of a card: how much, how many pods, and whether it is closed to shares: one has it to
    /// itself, or its memory is not divided.
    fn used(&self, device: &DeviceId, except: Option<&PodUid>) -> (Share, usize, bool) {
        let mut sum = (Share::ZERO, 0, false);
        for entry in self.pods.values().filter(|entry| entry.holds() && Some(&entry.pod.uid) != except) {
            let Some(placement) = &entry.placement else { continue };
            for hold in self.resolve(&placement.plan).holds().iter().filter(|hold| hold.device == *device) {
                sum = (sum.0.saturating_add(hold.share), sum.1 + 1, sum.2 || hold.taken != Taken::Part);
            }
        }
        sum
    }

    /// How much of a card the pods hold that kubelet has allocated.
    pub fn allocated(&self, device: &DeviceId) -> Share {
        self.used(device, None).0
    }

    /// Pods by their name, newest placement last; a name may belong to two lives for a moment.
    fn by_reference(&self, reference: &PodRef) -> Option<PodUid> {
        let named = self.pods.values().filter(|entry| entry.pod.reference == *reference);
        let best = named.max_by_key(|entry| {
            let time = entry.placement.as_ref().map_or(0, |placement| placement.time);
            (entry.placement.is_some(), entry.pod.stage == Stage::Live, time)
        });
        best.map(|entry| entry.pod.uid.clone())
    }
}

#[cfg(test)]
mod tests;
