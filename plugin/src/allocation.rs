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
//! to the recorded cards, and a record that kubelet did not follow follows kubelet ([`Allocations::take_counted`]).
//!
//! A pod's placement is read once, when the pod is first seen: what a tenant writes over it later is not
//! obeyed, and is corrected once the pod holds its card. Only the end of a pod frees its confirmed claims; that a
//! watch or a list has not shown a pod yet never does.

mod adopt;
pub mod answers;
mod entry;
mod exchange;
mod ids_to_cards;
pub mod kubelet_list;
mod level;
mod listed;
pub mod matching;
pub mod preference;
mod refusal;
mod room;
mod stray;
pub mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kerf::annotation::isolation::Levels;
use kerf::device::Device;
use kerf::ids::{ContainerName, DeviceId, NodeName, PodRef, PodUid};
use kerf::isolation::Isolation;
use kerf::plan::{Grant, Placement, Plan, Slice};
use kerf::request::GpuRequest;
use kerf::units::Milli;

pub use crate::allocation::refusal::Refusal;

use crate::allocation::answers::AnsweredIds;
use crate::allocation::entry::Entry;
use crate::allocation::kubelet_list::OtherDomain;
use crate::allocation::listed::Listed;
use crate::allocation::stray::Stray;
use crate::device::ids::{Ids, Resource};

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

/// What the API server shows of a pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It asks for cards.
    Claimant(Box<Pod>),
    /// It asks for none.
    Other {
        /// Its identity.
        uid: PodUid,
        /// Its name.
        reference: PodRef,
        /// Where it is in its life.
        stage: Stage,
    },
    /// It is there, and cannot be read.
    Unreadable {
        /// Its identity.
        uid: PodUid,
    },
}

impl Seen {
    /// Its identity.
    pub fn uid(&self) -> &PodUid {
        match self {
            Self::Claimant(pod) => &pod.uid,
            Self::Other { uid, .. } | Self::Unreadable { uid } => uid,
        }
    }
}

/// So many deleted pods are remembered.
const REMEMBERED: usize = 1024;

/// A pod of this node that asks for no card.
#[derive(Clone, Debug)]
struct Other {
    reference: PodRef,
    generation: u64,
}

/// Everything that is known on this node about pods and the ids they hold.
#[derive(Clone, Debug, Default)]
pub struct Allocations {
    cards: BTreeMap<DeviceId, Device>,
    pods: BTreeMap<PodUid, Entry>,
    /// The other pods of the node: who is on kubelet's list and not known may be anybody.
    others: BTreeMap<PodUid, Other>,
    /// Pods that are over, until the watch forgets them: a late event must not bring one back.
    ended: BTreeMap<PodUid, PodRef>,
    /// The pods that were deleted last: an answer that is older than the deletion must not bring one back.
    deleted: VecDeque<PodUid>,
    /// The pod of the last call, while it is incomplete.
    open: Option<PodUid>,
    /// Pods that held something and are over, until kubelet's list is without them.
    departed: BTreeSet<PodRef>,
    /// Some have left kubelet's list since [`Allocations::struck`] was asked.
    struck: bool,
    /// The pods on kubelet's latest list.
    listed: Option<Listed>,
    /// The list was asked for during a call of kubelet, and no Allocate has come since.
    fresh: bool,
    /// What kubelet was advised to take by that call: the Allocate of this very set belongs to it.
    offered: Option<(Resource, Ids)>,
    /// What was answered for sets of ids of core.
    answers: Vec<AnsweredIds>,
    /// Containers on kubelet's latest list that hold cards, as they count without a record.
    listed_holders: Vec<Stray>,
    /// A pod of another resource domain that holds cards of this node.
    other_domain: Option<OtherDomain>,
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

impl Allocations {
    /// Takes the node's cards, as they are now.
    pub fn set_cards(&mut self, devices: impl IntoIterator<Item = Device>) {
        self.cards = devices.into_iter().map(|device| (device.id.clone(), device)).collect();
    }

    /// A pod as the API server shows it now.
    pub fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Claimant(pod) => self.observe(*pod),
            Seen::Other { uid, reference, stage } => self.pass(&uid, &reference, stage),
            Seen::Unreadable { uid } => self.stays(&uid),
        }
    }

    /// A pod that is there; nothing else is known of it than before.
    fn stays(&mut self, uid: &PodUid) {
        let generation = self.generation;
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.generation = generation;
        }
        if let Some(other) = self.others.get_mut(uid) {
            other.generation = generation;
        }
    }

    /// A pod that asks for cards, as the API server shows it now.
    pub fn observe(&mut self, pod: Pod) {
        if self.over(&pod.uid, &pod.reference, pod.stage) {
            return;
        }
        let generation = self.generation;
        self.others.remove(&pod.uid);
        match self.pods.get_mut(&pod.uid) {
            Some(entry) => {
                if entry.placement.is_none() {
                    entry.placement.clone_from(&pod.record);
                }
                entry.pod = pod;
                entry.generation = generation;
            }
            None => {
                self.begins(&pod.reference);
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

    /// A pod that asks for no card, as the API server shows it now. One that did ask keeps what it has: only its end
    /// frees that.
    fn pass(&mut self, uid: &PodUid, reference: &PodRef, stage: Stage) {
        if self.over(uid, reference, stage) {
            return;
        }
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.generation = self.generation;
            entry.pod.stage = stage;
            return;
        }
        let other = Other { reference: reference.clone(), generation: self.generation };
        if self.others.insert(uid.clone(), other).is_none() {
            self.begins(reference);
        }
    }

    /// Whether the pod is over; it is removed then.
    fn over(&mut self, uid: &PodUid, reference: &PodRef, stage: Stage) -> bool {
        if self.deleted.contains(uid) {
            return true;
        }
        if stage == Stage::Ended && !self.ended.contains_key(uid) {
            self.remove(uid);
            self.ended.insert(uid.clone(), reference.clone());
        }
        self.ended.contains_key(uid)
    }

    /// The API server has deleted this pod.
    pub fn forget(&mut self, uid: &PodUid) {
        self.remove(uid);
        if self.deleted.len() == REMEMBERED {
            self.deleted.pop_front();
        }
        self.deleted.push_back(uid.clone());
        if let Some(reference) = self.ended.remove(uid) {
            self.ends(&reference);
        }
    }

    fn remove(&mut self, uid: &PodUid) {
        self.open.take_if(|open| open == uid);
        if let Some(other) = self.others.remove(uid) {
            self.ends(&other.reference);
        }
        if let Some(entry) = self.pods.remove(uid) {
            self.ends(&entry.pod.reference);
            if !entry.claims.is_empty() {
                self.departed.insert(entry.pod.reference);
            }
        }
    }

    fn begins(&mut self, pod: &PodRef) {
        let number = self.questions;
        if let Some(listed) = &mut self.listed {
            listed.begins(pod, number);
        }
    }

    fn ends(&mut self, pod: &PodRef) {
        if let Some(listed) = &mut self.listed {
            listed.over(pod);
        }
    }

    /// kubelet's connection has ended: its next life puts all pods on its list again, in any order.
    pub fn disconnected(&mut self) {
        if let Some(listed) = &mut self.listed {
            listed.forget_order();
        }
    }

    /// A pod that holds cards of this node under another resource domain, by kubelet's latest list.
    pub fn other_domain(&self) -> Option<&OtherDomain> {
        self.other_domain.as_ref()
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
        self.pods.keys().chain(self.others.keys()).chain(self.ended.keys()).cloned().collect()
    }

    /// The pods that are known, and the ids of core that kubelet lists for containers without a record. `None` until both
    /// the API server and kubelet have told theirs.
    pub fn in_use(&self) -> Option<(Vec<view::PodView>, BTreeSet<Ids>)> {
        let strays = self.strays().map(|stray| stray.core.clone());
        (self.complete && self.listed.is_some()).then(|| (self.view(), strays.collect()))
    }

    /// A complete list of the node's pods begins.
    pub fn begin_list(&mut self) {
        self.generation += 1;
    }

    /// The complete list has ended: a pod that was not seen since it began is gone.
    pub fn end_list(&mut self) {
        let seen = self.pods.values().map(|entry| (&entry.pod.uid, entry.generation));
        let seen = seen.chain(self.others.iter().map(|(uid, other)| (uid, other.generation)));
        let gone = seen.filter(|(_, generation)| *generation != self.generation);
        let gone: Vec<PodUid> = gone.map(|(uid, _)| uid.clone()).collect();
        gone.iter().for_each(|uid| self.forget(uid));
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
