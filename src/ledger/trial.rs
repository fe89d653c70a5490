//! Copies of a node for planning: pods leave and come back, and only the cards that they are on are counted again.

use std::collections::BTreeSet;

use super::card::{Tallied, take};
use super::node::{NodeLedger, count};
use crate::ids::PodUid;
use crate::plan::{Plan, Taken};

/// Copies for planning; the ledger itself does not change.
impl NodeLedger {
    /// Whether a plan made on the other ledger is valid here: all that the planner looks at is equal.
    pub fn same_cards(&self, other: &Self) -> bool {
        self.known == other.known && self.cards == other.cards
    }

    /// The cards with what is taken of them, without the list of pods; for planning only.
    pub fn cards_alone(&self) -> Self {
        let (cards, rooms) = (self.cards.clone(), self.rooms.clone());
        Self { known: self.known, cards, rooms, free: self.free, roomiest: self.roomiest, ..Self::default() }
    }

    /// The node after `plan`; for planning only.
    pub fn with_plan(&self, plan: &Plan) -> Self {
        let mut cards = self.cards.clone();
        for hold in plan.holds() {
            take(&mut cards, &hold);
        }
        let mut later = Self { known: self.known, cards, ..Self::default() };
        later.derive_rooms();
        later
    }

    /// The node after these pods have left; for planning only.
    pub fn without(&self, gone: impl Fn(&PodUid) -> bool) -> Self {
        let mut later = Self { known: self.known, cards: self.cards.clone(), ..Self::default() };
        let staying = self.commitments.iter().filter(|(uid, _)| !gone(uid));
        count(&mut later.cards, staying.map(|(_, known)| known), &self.transit);
        later.derive_rooms();
        later
    }
}

/// A copy of a node's cards, with the pods on it that may leave.
#[derive(Debug)]
pub struct Trial<'a> {
    node: NodeLedger,
    /// What is taken of each card by everything that stays.
    staying: Vec<Tallied>,
    /// By card: what the pods that may leave take of it.
    taken: Vec<Vec<(usize, &'a Taken)>>,
    /// By pod: its cards.
    cards: Vec<Vec<usize>>,
    gone: Vec<bool>,
}

impl<'a> Trial<'a> {
    /// The node without these pods. Later calls refer to them by their position in `pods`.
    pub fn without(ledger: &'a NodeLedger, pods: &[&'a PodUid]) -> Self {
        let leaving: BTreeSet<&PodUid> = pods.iter().copied().collect();
        let node = ledger.without(|uid| leaving.contains(uid));
        let mut taken = vec![Vec::new(); node.cards.len()];
        let mut cards = vec![Vec::new(); pods.len()];
        for (place, known) in
            pods.iter().enumerate().filter_map(|(p, uid)| Some((p, ledger.commitments.get(*uid)?)))
        {
            for (at, part) in known.on(&node.cards) {
                if let (Some(here), Some(own)) = (taken.get_mut(at), cards.get_mut(place)) {
                    here.push((place, part));
                    own.push(at);
                }
            }
        }
        let staying = node.cards.iter().map(|card| card.tallied).collect();
        Self { node, staying, taken, cards, gone: vec![true; pods.len()] }
    }

    pub fn node(&self) -> &NodeLedger {
        &self.node
    }

    /// Makes the pod at this position leave (`gone`) or come back.
    pub fn set(&mut self, place: usize, gone: bool) {
        if let Some(own) = self.gone.get_mut(place) {
            *own = gone;
        }
        for at in self.cards.get(place).into_iter().flatten() {
            let (Some(card), Some(staying)) = (self.node.cards.get_mut(*at), self.staying.get(*at)) else {
                continue;
            };
            card.tallied = *staying;
            for (owner, taken) in self.taken.get(*at).into_iter().flatten() {
                if self.gone.get(*owner) == Some(&false) {
                    card.take(taken);
                }
            }
        }
        self.node.derive_rooms();
    }
}
