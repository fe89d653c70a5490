//! What was answered for a set of ids of core: whoever holds these ids has these cards.
//!
//! Records follow it, and while two of them change places only one may be written yet: a later life of this process needs
//! to know the answers, not the records, to say who has what.

use kerf::plan::Slice;

use crate::allocation::{Allocations, Key};
use crate::device::ids::Ids;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredIds {
    /// The container that the call was believed to be for.
    pub key: Key,
    /// The ids.
    pub ids: Ids,
    /// The cards, and how much of them.
    pub cards: Vec<Slice>,
}

impl Allocations {
    /// What was answered so far, as far as somebody may hold it.
    pub fn answers(&self) -> &[AnsweredIds] {
        &self.answers
    }

    /// Takes what an earlier life answered.
    pub fn remember(&mut self, answers: Vec<AnsweredIds>) {
        self.answers = answers;
    }

    /// An answer. kubelet gives ids anew only where it takes them for free: what they stood for is over, unless it still
    /// lists somebody with them.
    pub(super) fn given(&mut self, new: AnsweredIds) {
        let held = |old: &AnsweredIds| {
            let holders = self.pods.values().filter(|entry| entry.pod.uid != new.key.pod);
            holders
                .flat_map(|entry| entry.claims.values())
                .any(|claim| claim.seen && claim.core() == Some(&old.ids))
        };
        let mut answers: Vec<AnsweredIds> =
            self.answers.iter().filter(|old| !old.ids.intersects(&new.ids) || held(old)).cloned().collect();
        answers.push(new);
        self.answers = answers;
    }

    /// The cards of who holds these ids: its own answer, where there is more than one.
    pub(super) fn answered(&self, key: &Key, ids: &Ids) -> Option<&Vec<Slice>> {
        let all = || self.answers.iter().rev().filter(|given| given.ids == *ids);
        all().find(|given| given.key == *key).or_else(|| all().next()).map(|given| &given.cards)
    }

    /// Two containers change places: what the one was answered is the other's.
    pub(super) fn exchange_answers(&mut self, a: &Key, b: &Key) {
        for given in &mut self.answers {
            if given.key == *a {
                given.key = b.clone();
            } else if given.key == *b {
                given.key = a.clone();
            }
        }
    }
}
