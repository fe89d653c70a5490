//! What was answered for sets of ids of core: the holder of these ids has these GPUs, and this isolation enforces
//! its share.
//!
//! Records follow the answers, and while two of them change places only one may be written yet. So after a restart
//! the plugin needs the answers, not the records, to know which container has which GPUs.

use std::collections::BTreeMap;

use kerf::ids::PodUid;
use kerf::isolation::Isolation;
use kerf::plan::DeviceRef;
use kerf::units::Share;

use crate::allocation::{Allocations, Key};
use crate::device::ids::Ids;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredIds {
    /// The container that the call was matched to.
    pub key: Key,
    pub ids: Ids,
    /// The GPUs, and how much of each.
    pub cards: Vec<(DeviceRef, Share)>,
}

/// The answers whose ids some container may still hold.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// In the order of the calls.
    all: Vec<AnsweredIds>,
    /// The isolation that enforces a container's share, since it was given these ids.
    levels: BTreeMap<Key, (Ids, Isolation)>,
}

impl Answers {
    pub fn all(&self) -> &[AnsweredIds] {
        &self.all
    }

    /// Takes the answers of previous runs of the plugin.
    pub fn restore(&mut self, all: Vec<AnsweredIds>) {
        self.all = all;
    }

    /// kubelet gives ids again only when it takes them for free: an older answer for them is over, unless `held`
    /// says that kubelet still lists a container with them.
    pub(super) fn add(&mut self, new: AnsweredIds, held: impl Fn(&Ids) -> bool) {
        self.all.retain(|old| !old.ids.intersects(&new.ids) || held(&old.ids));
        self.all.push(new);
    }

    pub(super) fn has(&self, ids: &Ids) -> bool {
        self.all.iter().any(|answered| answered.ids == *ids)
    }

    /// The GPUs of the container that holds these ids: its own answer, where there are several for them.
    pub(super) fn of(&self, key: &Key, ids: &Ids) -> Option<&[(DeviceRef, Share)]> {
        let all = || self.all.iter().rev().filter(|answered| answered.ids == *ids);
        let found = all().find(|answered| answered.key == *key).or_else(|| all().next())?;
        Some(&found.cards)
    }

    /// Two containers change places: each gets the answers of the other.
    pub(super) fn exchange(&mut self, a: &Key, b: &Key) {
        for answered in &mut self.all {
            if answered.key == *a {
                answered.key = b.clone();
            } else if answered.key == *b {
                answered.key = a.clone();
            }
        }
        let (of_a, of_b) = (self.levels.remove(a), self.levels.remove(b));
        self.levels.extend(of_b.map(|level| (a.clone(), level)));
        self.levels.extend(of_a.map(|level| (b.clone(), level)));
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

    /// kubelet has given these ids of core to `pod`, so no other container has them.
    pub(super) fn vacate(&mut self, core: &Ids, pod: &PodUid) {
        let given = self.answers.levels.iter().filter(|(_, (ids, _))| ids.intersects(core));
        let over: Vec<Key> =
            given.filter(|(key, (ids, _))| !self.keeps(key, ids, pod)).map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| drop(self.answers.levels.remove(key)));
    }
}
