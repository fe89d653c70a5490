//! Everything that is known on this node about pods and the ids they hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kerf::device::Device;
use kerf::ids::{DeviceId, PodRef, PodUid};
use kerf::isolation::Isolation;
use kerf::plan::{ContainerGrant, DeviceRef, Grant, Plan};
use kerf::request::ContainerRequest;

use crate::allocation::{Answers, Bystander, Claim, Entry, Key, KubeletList, Pod, Seen, Stage};
use crate::device::ids::Ids;

/// So many deleted pods are remembered.
const REMEMBERED: usize = 1024;

/// What the API server shows, what kubelet lists, and what kubelet was answered. The other files of this folder say
/// what follows from these together.
///
/// A pod is in `pods`, `others` or `ended`, or in none.
#[derive(Clone, Debug, Default)]
pub struct Allocations {
    pub(super) cards: BTreeMap<DeviceId, Device>,
    /// Pods that ask for GPUs.
    pub(super) pods: BTreeMap<PodUid, Entry>,
    /// Pods that ask for no GPU. Any pod on kubelet's list that is not known may be one that asks.
    pub(super) others: BTreeMap<PodUid, Bystander>,
    /// Pods that are over, until the watch forgets them: a late event must not bring one back.
    ended: BTreeMap<PodUid, PodRef>,
    /// The pods that were deleted last: an answer that is older than the deletion must not bring one back.
    deleted: VecDeque<PodUid>,
    /// The pods that were seen since a complete list of the node's pods began, while it is read.
    reading: Option<BTreeSet<PodUid>>,
    /// A complete list was read.
    pub(super) complete: bool,
    pub kubelet: KubeletList,
    pub answers: Answers,
    /// The pod of the last call, while it is incomplete. It asks for GPUs.
    pub(super) open: Option<PodUid>,
}

impl Allocations {
    /// The uid of a pod that asks for GPUs. Of two pods of this name, one of which is over, that of the other.
    pub fn uid_of(&self, reference: &PodRef) -> Option<PodUid> {
        self.pods.iter().find(|(_, entry)| entry.pod.reference == *reference).map(|(uid, _)| uid.clone())
    }

    pub fn set_cards(&mut self, devices: impl IntoIterator<Item = Device>) {
        self.cards = devices.into_iter().map(|device| (device.id.clone(), device)).collect();
    }

    /// A pod as the API server shows it now.
    pub fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Claimant(pod) => self.observe(*pod),
            Seen::Other { pod, stage } => self.observe_other(pod, stage),
            Seen::Unreadable { uid } => self.stays(&uid),
        }
    }

    /// A pod that asks for GPUs, as the API server shows it now.
    pub fn observe(&mut self, pod: Pod) {
        if self.is_over(&pod.uid, &pod.reference, pod.stage) {
            return;
        }
        self.others.remove(&pod.uid);
        if let Some(entry) = self.pods.get_mut(&pod.uid) {
            entry.observe(pod);
        } else {
            self.kubelet.pod_began(&pod.reference);
            self.pods.insert(pod.uid.clone(), Entry::new(pod));
        }
    }

    /// A pod that asks for no GPU now. One that did ask keeps its GPUs: only its end frees them.
    fn observe_other(&mut self, pod: Bystander, stage: Stage) {
        if self.is_over(&pod.uid, &pod.reference, stage) {
            return;
        }
        if let Some(entry) = self.pods.get_mut(&pod.uid) {
            entry.pod.stage = stage;
            return;
        }
        let reference = pod.reference.clone();
        if self.others.insert(pod.uid.clone(), pod).is_none() {
            self.kubelet.pod_began(&reference);
        }
    }

    /// A pod that exists; nothing else about it has changed.
    fn stays(&mut self, uid: &PodUid) {
        if let Some(seen) = &mut self.reading {
            seen.insert(uid.clone());
        }
    }

    /// Takes the end of a pod that the API server shows in this stage. Returns whether it is over.
    fn is_over(&mut self, uid: &PodUid, reference: &PodRef, stage: Stage) -> bool {
        self.stays(uid);
        let known = self.deleted.contains(uid) || self.ended.contains_key(uid);
        if !known && stage == Stage::Ended {
            self.remove(uid);
            self.ended.insert(uid.clone(), reference.clone());
        }
        known || stage == Stage::Ended
    }

    pub fn forget(&mut self, uid: &PodUid) {
        self.remove(uid);
        if let Some(reference) = self.ended.remove(uid) {
            self.kubelet.pod_over(reference, false);
        }
        if self.deleted.len() == REMEMBERED {
            self.deleted.pop_front();
        }
        self.deleted.push_back(uid.clone());
    }

    fn remove(&mut self, uid: &PodUid) {
        if let Some(other) = self.others.remove(uid) {
            self.kubelet.pod_over(other.reference, false);
        } else if let Some(entry) = self.pods.remove(uid) {
            self.open.take_if(|open| open == uid);
            self.kubelet.pod_over(entry.pod.reference, !entry.claims.is_empty());
        }
    }

    pub fn begin_list(&mut self) {
        self.reading = Some(BTreeSet::new());
    }

    /// The complete list has ended: a pod that was not seen since it began is gone.
    pub fn end_list(&mut self) {
        self.complete = true;
        if let Some(seen) = self.reading.take() {
            let known = self.pods.keys().chain(self.others.keys());
            let gone: Vec<PodUid> = known.filter(|uid| !seen.contains(*uid)).cloned().collect();
            gone.iter().for_each(|uid| self.forget(uid));
        }
        // the watch has no more to show of these
        self.ended.clear();
    }

    /// The uids of all pods that are known now.
    pub fn known(&self) -> BTreeSet<PodUid> {
        self.pods.keys().chain(self.others.keys()).chain(self.ended.keys()).cloned().collect()
    }

    /// The names of pods that are not over.
    fn alive(&self) -> impl Iterator<Item = &PodRef> {
        self.pods
            .values()
            .map(|entry| &entry.pod.reference)
            .chain(self.others.values().map(|other| &other.reference))
    }

    /// The names of all known pods, also of those that are over.
    pub(super) fn names(&self) -> BTreeSet<&PodRef> {
        self.alive().chain(self.ended.values()).collect()
    }

    /// The names that belong only to pods that are over.
    pub(super) fn over(&self) -> BTreeSet<PodRef> {
        let alive: BTreeSet<&PodRef> = self.alive().collect();
        self.ended.values().filter(|pod| !alive.contains(pod)).cloned().collect()
    }

    /// By name, newest placement last; a pod and its successor of the same name may both be known for a moment.
    pub(super) fn by_reference(&self, reference: &PodRef) -> Option<&Entry> {
        let named = self.pods.values().filter(|entry| entry.pod.reference == *reference);
        named.max_by_key(|entry| (entry.placement.is_some(), entry.pod.stage == Stage::Live, entry.placed()))
    }

    pub(super) fn claimed(&self, key: &Key) -> Option<&Claim> {
        self.pods.get(&key.pod)?.claims.get(&key.container)
    }

    pub(super) fn requested(&self, key: &Key) -> Option<&ContainerRequest> {
        self.pods.get(&key.pod)?.container(&key.container)
    }

    pub(super) fn granted(&self, key: &Key) -> Option<&ContainerGrant> {
        self.pods.get(&key.pod)?.grant(&key.container)
    }

    /// The container's grant, to be changed: it differs from the record from now on.
    pub(super) fn correct(&mut self, key: &Key) -> Option<&mut ContainerGrant> {
        self.pods.get_mut(&key.pod)?.correct(&key.container)
    }

    /// The GPU that a record names: by id, or by index where the record has only that.
    pub(super) fn card(&self, device: &DeviceId) -> Option<&Device> {
        self.cards.get(device).or_else(|| {
            let index = device.as_index()?;
            self.cards.values().find(|card| card.index == index)
        })
    }

    /// The plan with each GPU named as this node knows it; GPUs that are not here keep their names.
    pub(super) fn resolve(&self, plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        let resolve = |device: &mut DeviceRef| {
            let card = self.card(&device.id)?;
            *device = DeviceRef { id: card.id.clone(), index: card.index };
            Some(card)
        };
        for grant in &mut plan.grants {
            match &mut grant.gpus {
                Grant::Share { device, .. } => _ = resolve(device),
                Grant::Whole(devices) => {
                    for one in devices {
                        one.memory = resolve(&mut one.device).map_or(one.memory, |card| card.memory);
                    }
                }
                Grant::Counted { devices, .. } => devices.iter_mut().for_each(|one| _ = resolve(&mut one.device)),
            }
        }
        plan
    }
}

impl Allocations {
    /// This isolation enforces the share of the container that was served with these ids of core.
    pub fn enforced(&mut self, key: &Key, core: Ids, level: Isolation) {
        self.answers.levels.insert(key.clone(), (core, level));
    }

    /// The isolation that enforces the share of a container that holds these ids: its own, or, where it was served
    /// in another's place, that of the other. Of several such, the weakest.
    pub(super) fn level(&self, key: &Key, core: &Ids) -> Option<Isolation> {
        let served = || self.answers.levels.iter().filter(|(_, (ids, _))| ids == core);
        let own = served().find(|(other, _)| *other == key);
        let others = || served().filter(|(other, _)| !self.holds(other, core));
        own.map(|(_, (_, level))| *level).or_else(|| others().map(|(_, (_, level))| *level).min())
    }

    fn holds(&self, key: &Key, core: &Ids) -> bool {
        self.claimed(key).is_some_and(|claim| !claim.released() && claim.core() == Some(core))
    }

    /// Whether a container still has what `key` was served with these ids of core, although kubelet has now given
    /// some of them to `pod`: its own container, or one that kubelet still lists with them. Before kubelet's first
    /// list, every one is kept.
    pub fn keeps(&self, key: &Key, core: &Ids, pod: &PodUid) -> bool {
        let name = |uid: &PodUid| self.pods.get(uid).map(|entry| &entry.pod.reference);
        let listed = || self.kubelet.lists_core(core, name(pod));
        // ordinary init containers are on no list, but their pods are
        let runs = || name(&key.pod).is_some_and(|name| self.kubelet.contains(name));
        key.pod == *pod || !self.kubelet.heard() || listed() || (self.holds(key, core) && runs())
    }

    /// Whether what `key` was served with these ids of core is over, since kubelet has given `ids` to the container `to`. Not
    /// where those were given to another one since: the work of a call goes on when kubelet has restarted, and may then be
    /// later than that of the next call.
    pub fn ends(&self, key: &Key, core: &Ids, (to, ids): (&Key, &Ids)) -> bool {
        self.holds(to, ids) && !self.keeps(key, core, &to.pod)
    }

    /// kubelet has given these ids of core to `pod`, so no other container has them.
    pub(super) fn vacate(&mut self, core: &Ids, pod: &PodUid) {
        let given = self.answers.levels.iter().filter(|(_, (ids, _))| ids.intersects(core));
        let over: Vec<Key> =
            given.filter(|(key, (ids, _))| !self.keeps(key, ids, pod)).map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| drop(self.answers.levels.remove(key)));
    }
}
