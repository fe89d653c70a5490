//! What is taken of one node's cards, and by whom. The only place where capacity is counted.
//!
//! Each pod has one commitment on a node, which moves through these states:
//!
//! ```text
//!            assume (plan, deadline)       bound            observe (watch: nodeName + record)
//!   absent ------------------------> Assumed -----> Bound ----------------> Observed --release--> absent
//!      ^                              |  |  |                                  ^   |
//!      |<--- forget (write refused) --+  |  +----------- observe --------------+<--+ observe (another record:
//!      +<--- expire (overdue, and the    |                                     |     drift, reality wins)
//!            API server says: not bound)-+   absent ------- observe -----------+
//! ```
//!
//! * `forget` acts on Assumed only, and on none of which an earlier write has had no answer: that a later one was refused
//!   says nothing of it. `expire` acts on Bound as well: a pod may be deleted between its binding and the
//!   answer to it, so that no watch event follows. Observed leaves only by `release`: the pod was deleted, has
//!   ended, or is missing from a complete list that began after it was bound. A pod seen *unbound* in an older
//!   view releases nothing.
//! * `overdue` only names the commitments that no watch has shown in time. The caller asks the API server about
//!   each, then calls `expire` or `observe`.
//! * What the API server says wins over what was assumed, even where it takes more than a card has. Such a card
//!   is *overcommitted*: it is shown as such and takes nothing more.
//! * A record that moves from one card to another is one half of an exchange: what it leaves stays taken until the
//!   other half is seen, or for a while (`transit`).
//! * A pod whose record cannot be read may sit on any card, so it takes its amount of *every* card: what it has is never
//!   counted as free, and until its record can be read it costs others as much on each further card. Shares by count may sit on any card
//!   that is offered as such: where none is, another plugin serves them, and they take nothing.
//! * A record that names one card twice, by its id and by its index, leaves open on which other card the pod is: what it
//!   says of the card the second time is taken of every card.
//! * Memory is promised once: a card has shares by count, which have its memory undivided, or anything else.

mod card;
mod commitment;
mod doubt;
mod standing;
mod transit;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use card::take;
pub use card::{Card, Offered, Room};
use commitment::holds;
pub use commitment::{Basis, Commitment, Held, Seen, State};
pub use doubt::LONGEST_RETRY_MS;
pub use standing::Standing;
use transit::Transit;
pub use trial::Trial;

use crate::device::Inventory;
use crate::ids::{PodRef, PodUid};
use crate::plan::{Hold, Plan};
use crate::request::GpuRequest;
use crate::unfit::Unfit;
use crate::units::{Share, Timestamp};

/// What the node tells of its cards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cards {
    /// The node was never seen; pods of it may have been.
    #[default]
    Unknown,
    /// There is no list now that can be believed; the cards are those of the last one.
    Closed(Unfit),
    /// As listed.
    Known,
}

/// One node's cards and the pods on them.
#[derive(Clone, Debug, Default)]
pub struct NodeLedger {
    known: Cards,
    /// Whether a plugin has listed the cards of this node, by their ids.
    listed: bool,
    cards: Vec<Card>,
    commitments: BTreeMap<PodUid, Commitment>,
    /// Pods that hold cards under another resource domain: of which, nobody can tell.
    foreign: BTreeSet<PodUid>,
    transit: Transit,
    /// Derived from the cards by [`NodeLedger::recount`], as is `free`.
    rooms: Vec<Room>,
    free: (u64, u64),
    roomiest: Share,
}

impl NodeLedger {
    /// A node with these cards and no pods.
    pub fn new(inventory: &Inventory) -> Self {
        let mut ledger = Self::default();
        ledger.set_inventory(inventory);
        ledger
    }

    /// The cards, in order of index.
    pub fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// The cards as the planner sees them, in the order of [`NodeLedger::cards`].
    pub fn rooms(&self) -> &[Room] {
        &self.rooms
    }

    /// All compute (in 1/1000 of a card) and all memory (in MiB) that is free on the node.
    pub fn free(&self) -> (u64, u64) {
        self.free
    }

    /// What is free on the card with the most free compute, of equals that with the most free memory: a share
    /// within it fits. Nothing where the node takes no pod.
    pub fn roomiest(&self) -> Share {
        self.roomiest
    }

    /// The pods, in order of uid.
    pub fn commitments(&self) -> &BTreeMap<PodUid, Commitment> {
        &self.commitments
    }

    /// Whether the pod takes anything here. One with shares by count whose record cannot be read takes nothing where no
    /// card is offered as such.
    pub fn concerns(&self, commitment: &Commitment) -> bool {
        let perhaps = |card: &Card| commitment.holds.iter().any(|hold| card.may_have(hold));
        matches!(commitment.held, Held::Plan(_))
            || !commitment.request.only_counted()
            || self.cards.iter().any(perhaps)
    }

    /// What the pod takes of cards that the node does not list: they are counted again when those return.
    pub fn missing<'a>(&'a self, commitment: &'a Commitment) -> impl Iterator<Item = &'a Hold> {
        let by_name = matches!(commitment.held, Held::Plan(_));
        let here = |hold: &Hold| self.cards.iter().any(|card| card.is_of(hold));
        commitment.holds.iter().filter(move |hold| by_name && !here(hold))
    }

    /// Whether the ledger says nothing, so that it need not be kept.
    pub fn is_empty(&self) -> bool {
        self.known == Cards::Unknown && self.commitments.is_empty() && self.foreign.is_empty()
    }

    /// Why no card of the node can be used, if none can.
    pub fn without_cards(&self) -> Option<Unfit> {
        match self.known {
            Cards::Unknown => Some(Unfit::UnknownNode),
            Cards::Closed(why) => Some(why),
            Cards::Known if self.cards.is_empty() => Some(Unfit::NoCards),
            Cards::Known if !self.foreign.is_empty() => Some(Unfit::OtherDomain),
            Cards::Known => None,
        }
    }

    /// Takes over the node's list of cards. Pods stay committed to cards that vanished, and are counted again when those
    /// return.
    pub fn set_inventory(&mut self, inventory: &Inventory) {
        let devices = inventory.devices();
        self.listed |= devices.iter().any(|device| device.id.as_index().is_none());
        if self.known != Cards::Known || self.cards.iter().map(Card::device).ne(devices) {
            self.known = Cards::Known;
            self.cards = devices.iter().map(|device| Card::new(device.clone())).collect();
            self.recount();
        }
    }

    /// There is no list of the node's cards any more that can be believed. It keeps those it had, so that what its pods
    /// hold is counted on, and takes no new pod.
    pub fn close(&mut self, why: Unfit) {
        if self.known != Cards::Closed(why) {
            self.known = Cards::Closed(why);
            self.recount();
        }
    }

    /// A plugin has listed the cards of this node before: none are to be inferred.
    pub fn expect_list(&mut self) {
        self.listed = true;
    }

    /// Whether a plugin has listed the cards of this node, by their ids, now or before.
    pub fn listed(&self) -> bool {
        self.listed
    }

    /// A pod was seen on the node that holds cards under another resource domain: the node takes no pod until none is left.
    /// Whether it is the first.
    pub fn foreign_begins(&mut self, uid: &PodUid) -> bool {
        let first = self.foreign.is_empty();
        if self.foreign.insert(uid.clone()) && first {
            self.recount();
        }
        first
    }

    /// Such a pod has ended.
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

    /// Reserves the cards of a plan until `deadline`. Whether it did: a pod that is already here keeps what it has
    /// ([`NodeLedger::keeps`]).
    pub fn reserve(
        &mut self,
        uid: &PodUid,
        pod: &PodRef,
        request: &Arc<GpuRequest>,
        plan: Plan,
        deadline: Timestamp,
        epoch: u64,
    ) -> bool {
        if self.commitments.contains_key(uid) {
            return false;
        }
        let commitment = Commitment {
            pod: pod.clone(),
            request: request.clone(),
            holds: plan.holds(),
            held: Held::Plan(plan),
            state: State::Assumed { deadline },
            confirmed: false,
            standing: Standing::unknown(),
            epoch,
            latest: deadline.plus(LONGEST_RETRY_MS),
            doubtful: false,
            unanswered: false,
        };
        self.commitments.insert(uid.clone(), commitment);
        self.recount();
        true
    }

    /// The API server accepted the binding.
    pub fn bound(&mut self, uid: &PodUid, epoch: u64) {
        if let Some(commitment) = self.commitments.get_mut(uid)
            && let State::Assumed { deadline } = commitment.state
        {
            commitment.state = State::Bound { deadline };
            commitment.epoch = epoch;
            if commitment.doubtful {
                commitment.certain();
                self.recount();
            }
        }
    }

    /// The pod is still there, says a list of `epoch`, and no more can be read of it.
    pub fn keep(&mut self, uid: &PodUid, epoch: u64) {
        if let Some(known) = self.commitments.get_mut(uid) {
            known.epoch = epoch;
        }
    }

    /// The pod was seen bound to this node with this record.
    pub fn observe(
        &mut self,
        uid: &PodUid,
        pod: &PodRef,
        request: &Arc<GpuRequest>,
        held: Held,
        confirmed: bool,
        epoch: u64,
    ) -> Seen {
        let seen = match self.commitments.get_mut(uid) {
            Some(known) if known.held == held && known.request.counts_as(request) => {
                let seen = if known.state == State::Observed { Seen::Same } else { Seen::AsPlanned };
                known.state = State::Observed;
                // a node's confirmation is never taken back: an older view of the pod may arrive late
                known.confirmed |= confirmed;
                known.epoch = epoch;
                if known.doubtful {
                    known.certain();
                    self.recount();
                }
                return seen;
            }
            Some(_) => Seen::Drift,
            None => Seen::New,
        };
        let before = self.commitments.get(uid);
        let commitment = Commitment {
            pod: pod.clone(),
            request: request.clone(),
            holds: holds(&held, request),
            held,
            state: State::Observed,
            confirmed: confirmed || before.is_some_and(|known| known.confirmed),
            standing: before.map_or_else(Standing::unknown, |known| known.standing.clone()),
            epoch,
            latest: Timestamp::default(),
            doubtful: false,
            unanswered: false,
        };
        let known = self.commitments.insert(uid.clone(), commitment);
        // an unreadable record is on every card already, so it leaves none; nor does a plan in the place of another, of which
        // the API server shows that it was not carried out
        if let Some(known) = known.filter(|known| matches!(known.held, Held::Plan(_)) && !known.doubtful)
            && let Some(Commitment { held: Held::Plan(_), holds, .. }) = self.commitments.get(uid)
        {
            self.transit.moved(&known.holds, holds, &self.cards);
        }
        self.recount();
        seen
    }

    /// The latest write was refused: an assumed pod leaves, unless an earlier write may still be carried out
    /// ([`NodeLedger::unanswered`]). Whether it left.
    pub fn forget(&mut self, uid: &PodUid) -> bool {
        let left = |known: &Commitment| matches!(known.state, State::Assumed { .. }) && !known.unanswered;
        self.commitments.get(uid).is_some_and(left) && self.release(uid)
    }

    /// Assumed and bound pods whose deadline has passed: the API server must be asked about each.
    pub fn overdue(&self, now: Timestamp) -> Vec<(PodUid, PodRef)> {
        self.commitments
            .iter()
            .filter(|(_, commitment)| commitment.state.overdue(now))
            .map(|(uid, commitment)| (uid.clone(), commitment.pod.clone()))
            .collect()
    }

    /// The API server says that an overdue pod is not bound here: it leaves. Whether there was one; a pod that
    /// was assumed again in the meantime stays.
    pub fn expire(&mut self, uid: &PodUid, now: Timestamp) -> bool {
        self.commitments.get(uid).is_some_and(|known| known.state.overdue(now)) && self.release(uid)
    }

    /// Frees what moved records left and no other record took up within `patience` milliseconds, counted from the
    /// first call after the latest move. Whether there was any.
    pub fn settle(&mut self, now: Timestamp, patience: u64) -> bool {
        let settled = self.transit.expire(now, patience);
        if settled {
            self.recount();
        }
        settled
    }

    /// The pod was deleted or has ended: what it took is free. Whether there was one.
    pub fn release(&mut self, uid: &PodUid) -> bool {
        let known = self.commitments.remove(uid).is_some();
        if known {
            self.recount();
        }
        known
    }

    /// A complete list of pods began in `epoch` and has ended; pods that were bound before it began and that it
    /// did not show are gone. Returns them.
    pub fn release_missing(&mut self, epoch: u64) -> Vec<PodUid> {
        let gone = |known: &Commitment| known.epoch < epoch && !matches!(known.state, State::Assumed { .. });
        let missing: Vec<PodUid> =
            self.commitments.iter().filter(|(_, known)| gone(known)).map(|(uid, _)| uid.clone()).collect();
        for uid in &missing {
            self.commitments.remove(uid);
        }
        if !missing.is_empty() {
            self.recount();
        }
        missing
    }

    /// Whether a plan made on the other is good here: nothing that the planner looks at is different.
    pub fn same_cards(&self, other: &Self) -> bool {
        self.known == other.known && self.cards == other.cards
    }

    /// The cards as they are, without their pods; for thinking only.
    pub fn cards_alone(&self) -> Self {
        let (cards, rooms) = (self.cards.clone(), self.rooms.clone());
        Self { known: self.known, cards, rooms, free: self.free, roomiest: self.roomiest, ..Self::default() }
    }

    /// The node as it will be once `plan` is bound; for planning ahead only.
    pub fn with_plan(&self, plan: &Plan) -> Self {
        let mut cards = self.cards.clone();
        for hold in plan.holds() {
            take(&mut cards, &hold);
        }
        let mut later = Self { known: self.known, cards, ..Self::default() };
        later.derive_rooms();
        later
    }

    /// The node as it will be once these pods have left; for planning ahead only.
    pub fn without(&self, gone: impl Fn(&PodUid) -> bool) -> Self {
        let mut later = Self { known: self.known, cards: self.cards.clone(), ..Self::default() };
        let staying = self.commitments.iter().filter(|(uid, _)| !gone(uid));
        count(&mut later.cards, staying.map(|(_, known)| known), &self.transit);
        later.derive_rooms();
        later
    }

    /// A pod that is here was seen so.
    pub fn describe(&mut self, uid: &PodUid, standing: Standing) {
        if let Some(known) = self.commitments.get_mut(uid).filter(|known| *known.standing != standing) {
            known.standing = Arc::new(standing);
        }
    }

    /// Counts every card afresh from the commitments. A node has few pods; counting is cheaper than a
    /// difference that is applied twice.
    fn recount(&mut self) {
        let closed = matches!(self.known, Cards::Closed(_)) || !self.foreign.is_empty();
        self.cards.iter_mut().for_each(|card| card.close(closed));
        count(&mut self.cards, self.commitments.values(), &self.transit);
        self.derive_rooms();
    }

    fn derive_rooms(&mut self) {
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

/// Has the cards taken by these commitments, and by what is in transit, alone.
fn count<'a>(cards: &mut [Card], commitments: impl Iterator<Item = &'a Commitment>, transit: &Transit) {
    cards.iter_mut().for_each(Card::clear);
    for commitment in commitments {
        commitment.on(cards).for_each(|(at, hold)| {
            if let Some(card) = cards.get_mut(at) {
                card.take(hold);
            }
        });
    }
    transit.holds().for_each(|hold| take(cards, &hold));
}

#[cfg(test)]
mod tests;
