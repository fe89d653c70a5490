//! The ledger of one node.

use std::collections::{BTreeMap, BTreeSet};

use super::card::{Card, Room, Tallied, take};
use super::commitment::{Commitment, Held};
use super::transit::Transit;
use crate::device::Inventory;
use crate::ids::PodUid;
use crate::plan::Hold;
use crate::unfit::Unfit;
use crate::units::Share;

/// Whether the node's list of cards is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cards {
    /// The node was never seen, though its pods may have been.
    #[default]
    Unknown,
    /// The list is missing or not accepted; the cards are those of the last good one.
    Closed(Unfit),
    Known,
}

/// One node's cards and the pods on them.
#[derive(Clone, Debug, Default)]
pub struct NodeLedger {
    pub(super) known: Cards,
    /// Whether a plugin has ever listed the cards of this node, by their ids.
    pub(super) listed: bool,
    pub(super) cards: Vec<Card>,
    pub(super) commitments: BTreeMap<PodUid, Commitment>,
    /// Pods that hold cards under another resource domain; which cards is not known.
    pub(super) foreign: BTreeSet<PodUid>,
    pub(super) transit: Transit,
    /// Derived from the cards by [`NodeLedger::recount`], as is `free`.
    pub(super) rooms: Vec<Room>,
    pub(super) free: (u64, u64),
    pub(super) roomiest: Share,
}

impl NodeLedger {
    pub fn new(inventory: &Inventory) -> Self {
        let mut ledger = Self::default();
        ledger.set_inventory(inventory);
        ledger
    }

    /// In order of index.
    pub fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// The cards as the planner sees them, in the order of [`NodeLedger::cards`].
    pub fn rooms(&self) -> &[Room] {
        &self.rooms
    }

    /// Free compute (in 1/1000 of a card) and free memory (in MiB) of all cards together.
    pub fn free(&self) -> (u64, u64) {
        self.free
    }

    /// What is free on the card with the most free compute (ties: the most free memory): a share within it fits. Zero
    /// where the node takes no pod.
    pub fn roomiest(&self) -> Share {
        self.roomiest
    }

    pub fn commitments(&self) -> &BTreeMap<PodUid, Commitment> {
        &self.commitments
    }

    /// Whether the pod takes anything here. A pod with counted shares and an unreadable record takes nothing where no
    /// card is offered as such.
    pub fn concerns(&self, commitment: &Commitment) -> bool {
        let perhaps = |card: &Card| commitment.taken().any(|taken| card.may_have(taken));
        matches!(commitment.held, Held::Plan(_))
            || !commitment.request.only_counted()
            || self.cards.iter().any(perhaps)
    }

    /// What the pod takes of cards that the node does not list. It counts again when those return.
    pub fn missing<'a>(&'a self, commitment: &'a Commitment) -> impl Iterator<Item = &'a Hold> {
        let here = |hold: &Hold| self.cards.iter().any(|card| card.is(&hold.device));
        commitment.taking.holds().iter().filter(move |hold| !here(hold))
    }

    /// Whether the ledger holds nothing and need not be kept.
    pub fn is_empty(&self) -> bool {
        self.known == Cards::Unknown && self.commitments.is_empty() && self.foreign.is_empty()
    }

    /// Why no card of the node can be used; `None` where one can.
    pub fn without_cards(&self) -> Option<Unfit> {
        match self.known {
            Cards::Unknown => Some(Unfit::UnknownNode),
            Cards::Closed(why) => Some(why),
            Cards::Known if self.cards.is_empty() => Some(Unfit::NoCards),
            Cards::Known if !self.foreign.is_empty() => Some(Unfit::OtherDomain),
            Cards::Known => None,
        }
    }

    /// Takes over the node's list of cards. Pods stay committed to cards that vanished, and are counted again when
    /// those return.
    pub fn set_inventory(&mut self, inventory: &Inventory) {
        let devices = inventory.devices();
        self.listed |= devices.iter().any(|device| device.id.as_index().is_none());
        if self.known != Cards::Known || self.cards.iter().map(Card::device).ne(devices) {
            self.known = Cards::Known;
            self.cards = devices.iter().map(|device| Card::new(device.clone())).collect();
            self.recount();
        }
    }

    /// The node's list of cards is missing or not accepted now. It keeps the cards it had, so that what its pods hold
    /// still counts, and takes no new pod.
    pub fn close(&mut self, why: Unfit) {
        if self.known != Cards::Closed(why) {
            self.known = Cards::Closed(why);
            self.recount();
        }
    }

    /// A plugin has listed the cards of this node before: do not infer any.
    pub fn expect_list(&mut self) {
        self.listed = true;
    }

    /// Whether a plugin has ever listed the cards of this node, by their ids.
    pub fn listed(&self) -> bool {
        self.listed
    }

    /// A pod on the node holds cards under another resource domain: the node takes no pods until no such pod is left.
    /// True for the first one.
    pub fn foreign_begins(&mut self, uid: &PodUid) -> bool {
        let first = self.foreign.is_empty();
        if self.foreign.insert(uid.clone()) && first {
            self.recount();
        }
        first
    }

    /// A pod that held cards under another resource domain has ended.
    pub fn foreign_ends(&mut self, uid: &PodUid) {
        if self.foreign.remove(uid) && self.foreign.is_empty() {
            self.recount();
        }
    }

    /// The node is gone. Its pods stay until they are released.
    pub fn forget_node(&mut self) {
        self.known = Cards::Unknown;
        self.cards.clear();
        self.recount();
    }

    /// Counts every card again from the commitments. A node has few pods, so this is cheap, and no difference can be
    /// applied twice.
    pub(super) fn recount(&mut self) {
        let closed = matches!(self.known, Cards::Closed(_)) || !self.foreign.is_empty();
        self.cards.iter_mut().for_each(|card| card.close(closed));
        count(&mut self.cards, self.commitments.values(), &self.transit);
        self.derive_rooms();
    }

    pub(super) fn derive_rooms(&mut self) {
        self.rooms.clear();
        self.rooms.extend(self.cards.iter().map(Card::room));
        let add = |(compute, memory): (u64, u64), room: &Room| {
            (compute + u64::from(room.free.compute.0), memory.saturating_add(room.free.memory.0))
        };
        self.free = self.rooms.iter().fold((0, 0), add);
        let divided = self.rooms.iter().filter(|room| !room.undivided).map(|room| room.free);
        let most = divided.max_by_key(|free| (free.compute, free.memory));
        self.roomiest = most.unwrap_or_default();
    }
}

/// Sets what is taken of the cards to these commitments and what is in transit.
pub(super) fn count<'a>(cards: &mut [Card], commitments: impl Iterator<Item = &'a Commitment>, transit: &Transit) {
    cards.iter_mut().for_each(|card| card.tallied = Tallied::default());
    for commitment in commitments {
        // most pods are on one card: no list of them is made
        if let [hold] = commitment.taking.holds() {
            take(cards, hold);
            continue;
        }
        for (at, taken) in commitment.on(cards) {
            if let Some(card) = cards.get_mut(at) {
                card.take(taken);
            }
        }
    }
    transit.holds().for_each(|hold| take(cards, &hold));
}
