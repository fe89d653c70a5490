//! The pods of the node, as the API server shows them.

use std::collections::btree_map::{Values, ValuesMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kerf::ids::{PodRef, PodUid};

use crate::allocation::entry::Entry;
use crate::allocation::pod::{Pod, Stage};

/// So many deleted pods are remembered.
const REMEMBERED: usize = 1024;

/// A pod is in one of the first three maps, or in none.
#[derive(Clone, Debug, Default)]
pub(super) struct Pods {
    asking: BTreeMap<PodUid, Entry>,
    /// Pods that ask for no GPU. Any pod on kubelet's list that is not known may be one that asks.
    others: BTreeMap<PodUid, PodRef>,
    /// Pods that are over, until the watch forgets them: a late event must not bring one back.
    ended: BTreeMap<PodUid, PodRef>,
    /// The pods that were deleted last: an answer that is older than the deletion must not bring one back.
    deleted: VecDeque<PodUid>,
    /// The pods that were seen since a complete list of the node's pods began, while it is read.
    reading: Option<BTreeSet<PodUid>>,
    /// A complete list was read.
    complete: bool,
}

/// What a change of a pod means for its name, by which kubelet knows it.
#[derive(Debug)]
pub(super) enum Change {
    None,
    /// A new pod has the name.
    Began(PodRef),
    /// The pod of this name is over.
    Over {
        reference: PodRef,
        /// kubelet was answered an Allocate for it.
        held: bool,
    },
}

impl Pods {
    pub(super) fn get(&self, uid: &PodUid) -> Option<&Entry> {
        self.asking.get(uid)
    }

    pub(super) fn get_mut(&mut self, uid: &PodUid) -> Option<&mut Entry> {
        self.asking.get_mut(uid)
    }

    /// The pods that ask for GPUs.
    pub(super) fn values(&self) -> Values<'_, PodUid, Entry> {
        self.asking.values()
    }

    pub(super) fn values_mut(&mut self) -> ValuesMut<'_, PodUid, Entry> {
        self.asking.values_mut()
    }

    /// The uids of all pods that are known now.
    pub(super) fn known(&self) -> BTreeSet<PodUid> {
        self.asking.keys().chain(self.others.keys()).chain(self.ended.keys()).cloned().collect()
    }

    pub(super) fn complete(&self) -> bool {
        self.complete
    }

    /// The names of pods that ask for GPUs.
    pub(super) fn asking(&self) -> impl Iterator<Item = &PodRef> {
        self.asking.values().map(|entry| &entry.pod.reference)
    }

    /// The names of pods that are not over.
    pub(super) fn alive(&self) -> BTreeSet<&PodRef> {
        self.asking().chain(self.others.values()).collect()
    }

    /// The names of all known pods, also of those that are over.
    pub(super) fn names(&self) -> BTreeSet<&PodRef> {
        self.asking().chain(self.others.values()).chain(self.ended.values()).collect()
    }

    /// The names that belong only to pods that are over.
    pub(super) fn over(&self) -> BTreeSet<&PodRef> {
        let alive = self.alive();
        self.ended.values().filter(|pod| !alive.contains(pod)).collect()
    }

    /// By name, newest placement last; a pod and its successor of the same name may both be known for a moment.
    pub(super) fn by_reference(&self, reference: &PodRef) -> Option<PodUid> {
        let named = self.values().filter(|entry| entry.pod.reference == *reference);
        let best = named.max_by_key(|entry| {
            let time = entry.placement().map_or(0, |placement| placement.time);
            (entry.placement().is_some(), entry.pod.stage == Stage::Live, time)
        });
        best.map(|entry| entry.pod.uid.clone())
    }

    /// A pod that exists; nothing else about it has changed.
    pub(super) fn stays(&mut self, uid: &PodUid) {
        if let Some(seen) = &mut self.reading {
            seen.insert(uid.clone());
        }
    }

    pub(super) fn observe(&mut self, pod: Pod) -> Change {
        self.stays(&pod.uid);
        if let Some(change) = self.ends(&pod.uid, &pod.reference, pod.stage) {
            return change;
        }
        self.others.remove(&pod.uid);
        if let Some(entry) = self.asking.get_mut(&pod.uid) {
            entry.observe(pod);
            return Change::None;
        }
        let reference = pod.reference.clone();
        self.asking.insert(pod.uid.clone(), Entry::new(pod));
        Change::Began(reference)
    }

    /// A pod that asks for no GPU now. One that did ask keeps its GPUs: only its end frees them.
    pub(super) fn observe_other(&mut self, uid: &PodUid, reference: &PodRef, stage: Stage) -> Change {
        self.stays(uid);
        if let Some(change) = self.ends(uid, reference, stage) {
            return change;
        }
        if let Some(entry) = self.asking.get_mut(uid) {
            entry.pod.stage = stage;
            return Change::None;
        }
        match self.others.insert(uid.clone(), reference.clone()) {
            None => Change::Began(reference.clone()),
            Some(_) => Change::None,
        }
    }

    /// What changes where the pod is over. `None`: it is not over.
    fn ends(&mut self, uid: &PodUid, reference: &PodRef, stage: Stage) -> Option<Change> {
        if self.deleted.contains(uid) || self.ended.contains_key(uid) {
            return Some(Change::None);
        }
        (stage == Stage::Ended).then(|| {
            let change = self.remove(uid);
            self.ended.insert(uid.clone(), reference.clone());
            change
        })
    }

    pub(super) fn delete(&mut self, uid: &PodUid) -> Change {
        let change = self.remove(uid);
        if self.deleted.len() == REMEMBERED {
            self.deleted.pop_front();
        }
        self.deleted.push_back(uid.clone());
        match self.ended.remove(uid) {
            Some(reference) => Change::Over { reference, held: false },
            None => change,
        }
    }

    fn remove(&mut self, uid: &PodUid) -> Change {
        if let Some(reference) = self.others.remove(uid) {
            return Change::Over { reference, held: false };
        }
        match self.asking.remove(uid) {
            Some(entry) => Change::Over { held: !entry.claims.is_empty(), reference: entry.pod.reference },
            None => Change::None,
        }
    }

    pub(super) fn begin_list(&mut self) {
        self.reading = Some(BTreeSet::new());
    }

    /// The complete list has ended. Returns the pods that were not seen since it began: they are gone.
    pub(super) fn end_list(&mut self) -> Vec<PodUid> {
        self.complete = true;
        let Some(seen) = self.reading.take() else { return Vec::new() };
        self.asking.keys().chain(self.others.keys()).filter(|uid| !seen.contains(*uid)).cloned().collect()
    }

    /// The watch has no more to show of pods that are over.
    pub(super) fn forget_ended(&mut self) {
        self.ended.clear();
    }
}
