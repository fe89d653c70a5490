//! Which isolation enforces a container's share, and for how long a container still has what was given with a set
//! of ids.

use kerf::ids::{ContainerName, PodUid};
use kerf::isolation::Isolation;

use crate::allocation::allocations::Allocations;
use crate::allocation::entry::Entry;
use crate::allocation::pod::Key;
use crate::device::ids::Ids;

impl Allocations {
    /// This isolation enforces the share of the container that was served with these ids of core.
    pub fn enforced(&mut self, key: &Key, core: Ids, level: Isolation) {
        self.answers.set_level(key, core, level);
    }

    /// The isolation that enforces the share of a container that holds these ids: its own, or, where it was served
    /// in another's place, that of the other. Of several such, the weakest.
    pub(super) fn level(&self, entry: &Entry, container: &ContainerName, core: &Ids) -> Option<Isolation> {
        let key = Key { pod: entry.pod.uid.clone(), container: container.clone() };
        let others = || self.answers.levels(core).filter(|(other, _)| !self.holds(other, core));
        self.answers.own_level(&key, core).or_else(|| others().map(|(_, level)| level).min())
    }

    fn holds(&self, key: &Key, core: &Ids) -> bool {
        let claim = self.pods.get(&key.pod).and_then(|entry| entry.claim(&key.container));
        claim.is_some_and(|claim| !claim.released() && claim.core() == Some(core))
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
        let over = self.answers.given(core).filter(|(key, ids)| !self.keeps(key, ids, pod));
        let over: Vec<Key> = over.map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| self.answers.forget_level(key));
    }
}
