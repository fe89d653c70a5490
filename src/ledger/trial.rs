//! A node to think with: its pods leave and come back, and only the cards that they are on are counted anew.

use std::collections::BTreeSet;

use super::NodeLedger;
use super::card::{Card, Tallied};
use crate::ids::PodUid;
use crate::plan::Hold;

/// A copy of a node's cards, and those of its pods that may leave.
#[derive(Debug)]
pub struct Trial<'a> {
    node: NodeLedger,
    /// What is taken of each card by everything that stays.
    staying: Vec<Tallied>,
    /// By card: what the pods that may leave take of it.
    holds: Vec<Vec<(usize, &'a Hold)>>,
    /// By pod: its cards.
    cards: Vec<Vec<usize>>,
    gone: Vec<bool>,
}

impl<'a> Trial<'a> {
    /// The node without these pods. They are known by their places in the list from now on.
    pub fn without(ledger: &'a NodeLedger, pods: &[&'a PodUid]) -> Self {
        let leaving: BTreeSet<&PodUid> = pods.iter().copied().collect();
        let node = ledger.without(|uid| leaving.contains(uid));
        let mut holds = vec![Vec::new(); node.cards.len()];
        let mut cards = vec![Vec::new(); pods.len()];
        for (place, known) in
            pods.iter().enumerate().filter_map(|(p, uid)| Some((p, ledger.commitments.get(*uid)?)))
        {
            for (at, hold) in known.on(&node.cards) {
                if let (Some(here), Some(own)) = (holds.get_mut(at), cards.get_mut(place)) {
                    here.push((place, hold));
                    own.push(at);
                }
            }
        }
        let staying = node.cards.iter().map(Card::tallied).collect();
        Self { node, staying, holds, cards, gone: vec![true; pods.len()] }
    }

    /// The node as it is now.
    pub fn node(&self) -> &NodeLedger {
        &self.node
    }

    /// Has a pod come back, or leave again.
    pub fn set(&mut self, place: usize, gone: bool) {
        if let Some(own) = self.gone.get_mut(place) {
            *own = gone;
        }
        for at in self.cards.get(place).into_iter().flatten() {
            let (Some(card), Some(staying)) = (self.node.cards.get_mut(*at), self.staying.get(*at)) else {
                continue;
            };
            card.restart(*staying);
            for (owner, hold) in self.holds.get(*at).into_iter().flatten() {
                if self.gone.get(*owner) == Some(&false) {
                    card.take(hold);
                }
            }
        }
        self.node.derive_rooms();
    }
}
