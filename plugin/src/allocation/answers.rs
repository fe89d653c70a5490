//! What was answered for sets of ids of core: whoever holds these ids has these GPUs, and is held to its share in this way.
//!
//! Records follow it, and while two of them change places only one may be written yet: a later life of this process needs
//! to know the answers, not the records, to say who has what.

use std::collections::BTreeMap;

use kerf::isolation::Isolation;
use kerf::plan::DeviceRef;
use kerf::units::Share;

use crate::allocation::pod::Key;
use crate::device::ids::Ids;

/// What was answered for one set of ids of core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredIds {
    /// The container that the call was believed to be for.
    pub key: Key,
    pub ids: Ids,
    /// The GPUs, and how much of them.
    pub cards: Vec<(DeviceRef, Share)>,
}

/// What was answered, as far as somebody may hold it.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    /// In the order of the calls.
    all: Vec<AnsweredIds>,
    /// What enforces the share of a container, from when it was given these ids.
    levels: BTreeMap<Key, (Ids, Isolation)>,
}

impl Answers {
    pub(super) fn all(&self) -> &[AnsweredIds] {
        &self.all
    }

    pub(super) fn restore(&mut self, all: Vec<AnsweredIds>) {
        self.all = all;
    }

    /// kubelet gives ids anew only where it takes them for free: what they stood for is over, unless `held` says that
    /// kubelet still lists somebody with them.
    pub(super) fn add(&mut self, new: AnsweredIds, held: impl Fn(&Ids) -> bool) {
        self.all.retain(|old| !old.ids.intersects(&new.ids) || held(&old.ids));
        self.all.push(new);
    }

    pub(super) fn has(&self, ids: &Ids) -> bool {
        self.all.iter().any(|answered| answered.ids == *ids)
    }

    /// The GPUs of who holds these ids: its own answer, where there is more than one.
    pub(super) fn of(&self, key: &Key, ids: &Ids) -> Option<&[(DeviceRef, Share)]> {
        let all = || self.all.iter().rev().filter(|answered| answered.ids == *ids);
        all()
            .find(|answered| answered.key == *key)
            .or_else(|| all().next())
            .map(|answered| answered.cards.as_slice())
    }

    pub(super) fn set_level(&mut self, key: &Key, core: Ids, level: Isolation) {
        self.levels.insert(key.clone(), (core, level));
    }

    /// What was said of containers that were given these ids.
    pub(super) fn levels<'a>(&'a self, core: &'a Ids) -> impl Iterator<Item = (&'a Key, Isolation)> {
        self.levels.iter().filter(move |(_, (ids, _))| ids == core).map(|(key, (_, level))| (key, *level))
    }

    /// The container's own level, if it was given these ids.
    pub(super) fn own_level(&self, key: &Key, core: &Ids) -> Option<Isolation> {
        self.levels.get(key).filter(|(ids, _)| ids == core).map(|(_, level)| *level)
    }

    /// The containers that were given some of these ids, and all that they were given.
    pub(super) fn given(&self, core: &Ids) -> impl Iterator<Item = (&Key, &Ids)> {
        self.levels.iter().map(|(key, (ids, _))| (key, ids)).filter(|(_, ids)| ids.intersects(core))
    }

    pub(super) fn forget_level(&mut self, key: &Key) {
        self.levels.remove(key);
    }

    /// Two containers change places: what the one was answered is the other's.
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
