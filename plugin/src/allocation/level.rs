//! What enforces a container's share, and for how long what was given with a set of ids is still somebody's.

use kerf::ids::{ContainerName, PodUid};
use kerf::isolation::Isolation;

use crate::allocation::allocations::Allocations;
use crate::allocation::entry::Entry;
use crate::allocation::pod::Key;
use crate::device::ids::Ids;

impl Allocations {
    /// The share of the container that was served with these ids of core is enforced so.
    pub fn enforced(&mut self, key: &Key, core: Ids, level: Isolation) {
        self.answers.set_level(key, core, level);
    }

    /// What enforces the share of a container that holds these ids: its own, or where it was served in another's place,
    /// what was said of that one. Of several such, the least.
    pub(super) fn level(&self, entry: &Entry, container: &ContainerName, core: &Ids) -> Option<Isolation> {
        let key = Key { pod: entry.pod.uid.clone(), container: container.clone() };
        let others = || self.answers.levels(core).filter(|(other, _)| !self.holds(other, core));
        self.answers.own_level(&key, core).or_else(|| others().map(|(_, level)| level).min())
    }

    fn holds(&self, key: &Key, core: &Ids) -> bool {
        let claim = self.pods.get(&key.pod).and_then(|entry| entry.claim(&key.container));
        claim.is_some_and(|claim| !claim.released() && claim.core() == Some(core))
    }

    /// Whether what `key` was served with these ids of core is somebody's, although kubelet has now given some of them to
    /// `pod`: its own, or that of a container that kubelet still lists with them. Before kubelet was heard, everything is.
    pub fn keeps(&self, key: &Key, core: &Ids, pod: &PodUid) -> bool {
        let name = |uid: &PodUid| self.pods.get(uid).map(|entry| &entry.pod.reference);
        let listed = || self.kubelet.lists_core(core, name(pod));
        // ordinary init containers are on no list, but their pods are
        let runs = || name(&key.pod).is_some_and(|name| self.kubelet.contains(name));
        key.pod == *pod || !self.kubelet.heard() || listed() || (self.holds(key, core) && runs())
    }

    /// kubelet has given these ids of core to `pod`, so nobody else has them.
    pub(super) fn vacate(&mut self, core: &Ids, pod: &PodUid) {
        let over = self.answers.given(core).filter(|(key, ids)| !self.keeps(key, ids, pod));
        let over: Vec<Key> = over.map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| self.answers.forget_level(key));
    }
}
