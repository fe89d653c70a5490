//! What the ledger must do, in the plainest way: a list of holds, counted from scratch each time. Beside it the
//! API server, which knows what is really bound, and a watch that may be late.

mod steps;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;
pub use steps::Step;

/// A pod; those of equal remainder ask for the same.
pub type Uid = usize;

/// (compute in thousandths, memory in MiB, whole cards) by pod. Some tie in one amount and differ in the other. Compute
/// alone is shares by count, all on one card.
pub const ASKS: [(u64, u64, usize); 10] = [
    (500, 2560, 0),
    (500, 5120, 0),
    (300, 2560, 0),
    (800, 1280, 0),
    (0, 0, 1),
    (300, 4096, 0),
    (0, 0, 2),
    (500, 2560, 0),
    (200, 0, 0),
    (300, 0, 0),
];
/// What each card is offered as: shares of so much compute.
pub const SHARE: u64 = 100;
/// MiB of the cards that the machine has.
pub const CARDS: [u64; 3] = [6144, 6144, 10240];
/// An index that no card of the machine has.
pub const NO_CARD: usize = 9;
/// How long a write may stay unanswered.
pub const PATIENCE: u64 = 3;

pub fn ask(uid: Uid) -> (u64, u64, usize) {
    ASKS[uid % ASKS.len()]
}

/// Whether the pod has shares by count, with the card's memory undivided.
pub fn undivided(uid: Uid) -> bool {
    let (_, memory, whole) = ask(uid);
    memory == 0 && whole == 0
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    Cards(Vec<usize>),
    Unreadable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Assumed(u64),
    Bound(u64),
    Observed,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub hold: Hold,
    pub stage: Stage,
    pub confirmed: bool,
    epoch: u64,
    /// Cards of earlier plans that may have been carried out in place of `hold`.
    also: BTreeSet<usize>,
    /// A write may be carried out yet, whatever becomes of later ones.
    unanswered: bool,
}

/// A bound pod as the API server has it.
#[derive(Clone, Debug)]
pub struct Truth {
    pub hold: Hold,
    pub confirmed: bool,
}

/// One card as its node tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Fine,
    Ill,
    Cordoned,
    Absent,
}

#[derive(Clone, Debug, Default)]
pub enum Node {
    #[default]
    Unknown,
    /// Its list is gone or cannot be read: the cards that it had.
    Closed(Option<[Condition; 3]>),
    Known([Condition; 3]),
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub node: Node,
    pub entries: BTreeMap<Uid, Entry>,
    pub api: BTreeMap<Uid, Truth>,
    /// Pods that were deleted; no uid comes back.
    gone: BTreeSet<Uid>,
    /// Pods that the ledger was told to be bound.
    pub told: BTreeSet<Uid>,
    /// What a list in progress will show, and what the last one showed.
    list: Option<BTreeMap<Uid, Truth>>,
    pub listed: BTreeMap<Uid, Truth>,
    pub epoch: u64,
    pub now: u64,
    /// (compute, memory, whole cards) that changed records left of each card, less what others gained on it; of shares
    /// by count apart.
    left: BTreeMap<(usize, bool), (i64, i64, i64)>,
    /// When that is given up.
    left_until: Option<u64>,
    /// The first uid that was never used.
    next: Uid,
    /// What the last transition must have answered.
    pub answers: Vec<String>,
}

/// (index, compute, memory, pods) of each card of the node.
pub type Used = Vec<(usize, u64, u64, u32)>;

impl Model {
    fn conditions(&self) -> Vec<(usize, Condition)> {
        match &self.node {
            Node::Known(cards) | Node::Closed(Some(cards)) => {
                cards.iter().copied().enumerate().filter(|(_, c)| *c != Condition::Absent).collect()
            }
            Node::Unknown | Node::Closed(None) => vec![],
        }
    }

    pub fn used(&self) -> Used {
        let count = |(card, _)| {
            let mut used = (card, 0, 0, 0);
            let mut shared = false;
            for (uid, entry) in &self.entries {
                let (compute, memory, whole) = ask(*uid);
                let here = match &entry.hold {
                    Hold::Cards(cards) => cards.contains(&card) || entry.also.contains(&card),
                    Hold::Unreadable => true,
                };
                if here {
                    let taken = if whole > 0 { (1000, CARDS[card]) } else { (compute, memory) };
                    used = (card, used.1 + taken.0, used.2 + taken.1, used.3 + 1);
                    shared |= undivided(*uid);
                }
            }
            for apart in [false, true] {
                let (compute, memory) = self.left_share(card, apart);
                match self.left.get(&(card, apart)) {
                    Some((_, _, whole)) if *whole > 0 => {
                        used = (card, used.1 + compute.max(1000), used.2 + memory.max(CARDS[card]), used.3 + 1);
                    }
                    Some(_) if (compute, memory) != (0, 0) => {
                        used = (card, used.1 + compute, used.2 + memory, used.3 + 1);
                        shared |= apart;
                    }
                    _ => {}
                }
            }
            // all of its memory, once
            (card, used.1, used.2 + if shared { CARDS[card] } else { 0 }, used.3)
        };
        self.conditions().into_iter().map(count).collect()
    }

    /// Whether anything on the card has a part of its memory, or all of it.
    fn divided(&self, card: usize) -> bool {
        let here = |entry: &Entry| match &entry.hold {
            Hold::Unreadable => true,
            Hold::Cards(cards) => cards.contains(&card) || entry.also.contains(&card),
        };
        let whole = self.left.get(&(card, false)).is_some_and(|(.., whole)| *whole > 0);
        whole
            || self.left_share(card, false) != (0, 0)
            || self.entries.iter().any(|(uid, entry)| !undivided(*uid) && here(entry))
    }

    fn left_share(&self, card: usize, apart: bool) -> (u64, u64) {
        let (compute, memory, _) = self.left.get(&(card, apart)).copied().unwrap_or_default();
        (u64::try_from(compute).unwrap_or(0), u64::try_from(memory).unwrap_or(0))
    }

    fn leave(&mut self, uid: Uid, cards: &[usize], sign: i64) {
        let (compute, memory, whole) = ask(uid);
        for card in cards {
            let left = self.left.entry((*card, undivided(uid))).or_default();
            if whole > 0 {
                left.2 += sign;
            } else {
                left.0 += sign * i64::try_from(compute).unwrap();
                left.1 += sign * i64::try_from(memory).unwrap();
            }
        }
    }

    /// Gives up what was left on cards for too long.
    fn settle(&mut self) {
        if self.left.values().any(|left| *left != (0, 0, 0)) {
            let until = *self.left_until.get_or_insert(self.now + PATIENCE);
            if until <= self.now {
                self.left.clear();
                self.left_until = None;
            }
        }
    }

    /// The fullest card that fits, or the smallest untouched ones.
    fn choose(&self, uid: Uid) -> Option<Vec<usize>> {
        let (compute, memory, whole) = ask(uid);
        let open = matches!(self.node, Node::Known(_));
        let fine = |card: usize| open && self.conditions().contains(&(card, Condition::Fine));
        let used: Used = self.used().into_iter().filter(|(card, ..)| fine(*card)).collect();
        if whole > 0 {
            let mut cards: Vec<usize> =
                used.iter().filter(|(.., pods)| *pods == 0).map(|(card, ..)| *card).collect();
            cards.sort_by_key(|card| (CARDS[*card], *card));
            return (cards.len() >= whole).then(|| cards[..whole].to_vec());
        }
        let fits = |(card, c, m, _): &&(usize, u64, u64, u32)| {
            let room = if undivided(uid) { !self.divided(*card) } else { m + memory <= CARDS[*card] };
            c + compute <= 1000 && room
        };
        let fullest = used.iter().filter(fits).min_by_key(|(card, c, m, _)| (1000 - c, CARDS[*card] - m, *card));
        fullest.map(|(card, ..)| vec![*card])
    }

    fn enter(&mut self, uid: Uid, hold: Hold) {
        let stage = Stage::Assumed(self.now + PATIENCE);
        let (epoch, also) = (self.epoch, BTreeSet::new());
        let entry = Entry { hold, stage, confirmed: false, epoch, also, unanswered: false };
        self.entries.insert(uid, entry);
        self.next = self.next.max(uid + 1);
    }

    /// Whether the cards are there, in order and not overcommitted.
    fn sound(&self, cards: &[usize]) -> bool {
        let open = matches!(self.node, Node::Known(_));
        let used = self.used();
        let sound = |card: &usize| {
            let fits = |(at, c, m, _): &(usize, u64, u64, u32)| at == card && *c <= 1000 && *m <= CARDS[*card];
            self.conditions().contains(&(*card, Condition::Fine)) && used.iter().any(fits)
        };
        open && cards.iter().all(sound)
    }

    /// What the pod gets that is here already.
    fn assume_again(&mut self, uid: Uid, entry: &Entry) -> Option<Vec<usize>> {
        let Hold::Cards(cards) = &entry.hold else { return None };
        if !matches!(entry.stage, Stage::Assumed(_)) {
            return Some(cards.clone());
        }
        let (mut cards, mut also) = (cards.clone(), entry.also.clone());
        if !self.sound(&cards) {
            // chosen as if it were not here itself
            let mut without = self.clone();
            without.entries.remove(&uid);
            let chosen = without.choose(uid)?;
            also.extend(cards);
            cards = chosen;
        }
        let stage = Stage::Assumed(self.now + PATIENCE);
        let entry = Entry { hold: Hold::Cards(cards.clone()), stage, epoch: self.epoch, also, ..entry.clone() };
        self.entries.insert(uid, entry);
        Some(cards)
    }

    fn assume(&mut self, uid: Uid) {
        let chosen = match self.entries.get(&uid).cloned() {
            Some(entry) => self.assume_again(uid, &entry),
            None => {
                let chosen = self.choose(uid);
                if let Some(cards) = &chosen {
                    self.enter(uid, Hold::Cards(cards.clone()));
                }
                chosen
            }
        };
        self.answers.push(format!("{chosen:?}"));
    }

    fn observe(&mut self, uid: Uid, truth: &Truth) {
        let before = self.entries.get(&uid);
        let seen = match before {
            None => "New",
            Some(entry) if entry.hold != truth.hold => "Drift",
            Some(entry) if entry.stage == Stage::Observed => "Same",
            Some(_) => "AsPlanned",
        };
        if let (Some(Hold::Cards(old)), Hold::Cards(new)) = (before.map(|entry| entry.hold.clone()), &truth.hold)
            && old != *new
            && before.is_some_and(|entry| entry.also.is_empty())
        {
            self.leave(uid, &old, 1);
            self.leave(uid, new, -1);
            self.left_until = None;
        }
        let before = self.entries.get(&uid);
        let confirmed = truth.confirmed || before.is_some_and(|entry| entry.confirmed);
        let (hold, epoch) = (truth.hold.clone(), self.epoch);
        let (stage, also) = (Stage::Observed, BTreeSet::new());
        self.entries.insert(uid, Entry { hold, stage, confirmed, epoch, also, unanswered: false });
        self.told.insert(uid);
        self.answers.push(seen.into());
    }

    fn overdue(&self, uid: Uid) -> bool {
        let now = self.now;
        let overdue = |entry: &Entry| matches!(entry.stage, Stage::Assumed(deadline) | Stage::Bound(deadline) if deadline <= now);
        self.entries.get(&uid).is_some_and(overdue)
    }

    fn assumed(&self, uid: Uid) -> bool {
        self.entries.get(&uid).is_some_and(|entry| matches!(entry.stage, Stage::Assumed(_)))
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self { node: Node::Known([Condition::Fine; 3]), epoch: 1, ..Self::default() }).boxed()
    }

    fn transitions(model: &Self) -> BoxedStrategy<Step> {
        steps::any(model)
    }

    fn preconditions(model: &Self, step: &Step) -> bool {
        model.possible(step)
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        model.answers.clear();
        match step.clone() {
            Step::Assume(uid) => model.assume(uid),
            Step::Reserve(uid, hold) => {
                let new = !model.entries.contains_key(&uid);
                if new {
                    model.enter(uid, hold);
                }
                model.answers.push(new.to_string());
            }
            Step::Land(uid) => {
                // the write of the last plan, or one before it
                let entry = &model.entries[&uid];
                let hold = match entry.also.first().filter(|_| ask(uid).2 < 2) {
                    Some(earlier) if model.now.is_multiple_of(2) => Hold::Cards(vec![*earlier]),
                    _ => entry.hold.clone(),
                };
                model.api.insert(uid, Truth { hold, confirmed: false });
            }
            Step::Answer(uid) => {
                let epoch = model.epoch;
                model.entries.entry(uid).and_modify(|entry| {
                    if let Stage::Assumed(deadline) = entry.stage {
                        (entry.stage, entry.epoch) = (Stage::Bound(deadline), epoch);
                        entry.also.clear();
                    }
                });
                model.told.insert(uid);
            }
            Step::Silence(uid) => {
                model.entries.entry(uid).and_modify(|entry| entry.unanswered = true);
            }
            Step::Refuse(uid) => {
                let left = !model.entries[&uid].unanswered;
                if left {
                    model.entries.remove(&uid);
                }
                model.answers.push(left.to_string());
            }
            Step::Tick(time) => model.now += time,
            Step::Reap => {
                model.settle();
                let uids = model.entries.keys().copied().filter(|uid| model.overdue(*uid));
                for uid in uids.collect::<Vec<_>>() {
                    match model.api.get(&uid).cloned() {
                        Some(truth) => model.observe(uid, &truth),
                        None => {
                            model.entries.remove(&uid);
                            model.answers.push("true".into());
                        }
                    }
                }
            }
            Step::Expire(uid) => {
                let known = model.overdue(uid);
                if known {
                    model.entries.remove(&uid);
                }
                model.answers.push(known.to_string());
            }
            Step::Watch(uid) => {
                let truth = model.api[&uid].clone();
                model.observe(uid, &truth);
            }
            Step::WatchOld(uid) => {
                let truth = Truth { confirmed: false, ..model.api[&uid].clone() };
                model.observe(uid, &truth);
            }
            Step::Gone(uid) => {
                let known = model.entries.remove(&uid).is_some();
                model.answers.push(known.to_string());
            }
            Step::Appear(uid, hold) => {
                model.api.insert(uid, Truth { hold, confirmed: false });
                model.next = model.next.max(uid + 1);
            }
            Step::Change(uid, hold) => {
                model.api.entry(uid).and_modify(|truth| truth.hold = hold);
            }
            Step::Confirm(uid) => {
                model.api.entry(uid).and_modify(|truth| truth.confirmed = true);
            }
            Step::Delete(uid) => {
                model.api.remove(&uid);
                model.gone.insert(uid);
            }
            Step::ListBegin => {
                model.epoch += 1;
                model.list = Some(model.api.clone());
            }
            Step::ListEnd => {
                model.listed = model.list.take().unwrap();
                for (uid, truth) in model.listed.clone() {
                    model.observe(uid, &truth);
                }
                let old = |entry: &Entry| entry.epoch < model.epoch && !matches!(entry.stage, Stage::Assumed(_));
                let missing: Vec<Uid> = model.entries.iter().filter(|(_, e)| old(e)).map(|(uid, _)| *uid).collect();
                missing.iter().for_each(|uid| drop(model.entries.remove(uid)));
                model.answers.push(format!("{missing:?}"));
            }
            Step::Cards(Some(cards)) => model.node = Node::Known(cards),
            Step::Cards(None) => {
                model.node = match std::mem::take(&mut model.node) {
                    Node::Known(cards) | Node::Closed(Some(cards)) => Node::Closed(Some(cards)),
                    Node::Unknown | Node::Closed(None) => Node::Closed(None),
                }
            }
            Step::ForgetNode => model.node = Node::Unknown,
            Step::Restart => {
                // what the node had before is known to the earlier life alone
                if let Node::Closed(cards) = &mut model.node {
                    *cards = None;
                }
                model.entries.clear();
                (model.left, model.left_until) = (BTreeMap::new(), None);
                model.list = None;
                for (uid, truth) in model.api.clone() {
                    model.observe(uid, &truth);
                }
            }
        }
        model
    }
}
