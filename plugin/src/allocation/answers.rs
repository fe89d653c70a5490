//! What was answered for sets of ids of core: the holder of these ids has these GPUs, and this isolation enforces
//! its share.
//!
//! Records follow the answers, and while two of them change places only one may be written yet. So after a restart
//! the plugin needs the answers, not the records, to know which container has which GPUs.

use std::collections::BTreeMap;

use kerf::isolation::Isolation;
use kerf::plan::DeviceRef;
use kerf::units::Share;

use crate::allocation::Key;
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
    pub(super) levels: BTreeMap<Key, (Ids, Isolation)>,
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
