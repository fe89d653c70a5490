//! A whole cluster as a policy sees it, and the choice of machine and card for a pod.
//!
//! # The policy `fragmentation`
//!
//! A placement's score is what it does to the worth of what is left on the machine, less what it costs the pods to come:
//!
//! * The rest of a card is worth the best that can still be cut from it for the shares that are asked for, at the prices
//!   of a cutting-stock problem (`cutting`). Worth that will be stranded for want of cores counts as lost (`outlook`).
//! * Taking room from pods that need several whole cards, taking a kind of card that other pods are confined to, and
//!   opening a free card while whole ones are wanted cost what they are likely to be missed (`prices`).
//! * Scores are rounded to a tenth of a card. Ties go to the fullest machine (cards, then cores), then to the first.
//!
//! What is expected is learnt after 16, 32, 64, 128, 256 and then every 500 pods, from all pods seen so far.
//!
//! # Two resources of a card
//!
//! A share asks for compute and memory, so a card is cut in two dimensions: a remainder `(compute, memory)` is worth the
//! best set of shares that fits in both, at prices for which no cut of a whole card is worth more than one card. That is
//! the dual of the same program as in one dimension, and each size of card has its own: where memory is plenty, a share's
//! price is that of its compute, and where it is scarce, that of its memory. Where every share has its compute's part of
//! the memory, both constraints are the same one; the memory is not counted then, and the choice is exactly that of one
//! dimension. A share that only large cards can hold is confined to them, and the price of scarce kinds keeps them free
//! for it, as it does for models.

mod cutting;
mod fgd;
mod host;
mod offer;
mod outlook;
mod prices;
mod tail;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use host::{Host, Slot};

use super::shape::{Cards, Kind, Kinds, Shape};
use super::{Policy, Rank};
use crate::units::Mib;
use host::Need;
use offer::{Facts, Offer, Way};
use outlook::{Outlook, Room};
use prices::Prices;

/// A class of pods, for one [`Market`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(usize);

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The machine, by the number that [`Market::add`] gave it.
    pub host: usize,
    /// Its cards, by position.
    pub slots: Vec<usize>,
}

/// Machines, what was seen of the demand, and what follows from both.
#[derive(Clone, Debug, Default)]
pub struct Market {
    kinds: Vec<(Arc<str>, Mib)>,
    hosts: Vec<Host>,
    facts: Vec<Facts>,
    /// Grows with every change of the machine.
    versions: Vec<u64>,
    shapes: Vec<Shape>,
    classes: BTreeMap<Shape, usize>,
    needs: Vec<Need>,
    census: Census,
    outlook: Outlook,
    totals: Totals,
    /// How many pods of each room of the outlook fit on each machine, machine by machine.
    slots: Vec<u64>,
    books: BTreeMap<(Policy, usize), Book>,
    /// Scratch memory of one decision.
    prices: Prices,
    bounds: Vec<i32>,
}

/// How often each class of pods was seen.
#[derive(Clone, Debug, Default)]
struct Census {
    counts: Vec<u64>,
    /// The same when it was last learnt from: what follows depends on the pods alone, and not on when a kind of card
    /// comes to be known.
    learnt: Vec<u64>,
    total: u64,
    /// Whether the demand was told in advance, so that nothing is learnt.
    known: bool,
}

/// Sums over all machines. Whole numbers, so that the order in which they came about leaves no trace.
#[derive(Clone, Debug, Default)]
struct Totals {
    compute: u64,
    /// By kind of card.
    by_kind: Vec<u64>,
    whole: u64,
    /// For each room of the outlook.
    slots: Vec<u64>,
    /// In 1/1024 of a thousandth of a card.
    worth: u64,
}

/// What every machine offers one class of pods under one policy.
#[derive(Clone, Debug, Default)]
struct Book {
    offers: Vec<Offer>,
    /// The machines' versions that the offers were made for.
    versions: Vec<u64>,
}

impl Totals {
    fn free_of(&self, kinds: Kinds) -> u64 {
        (0..).zip(&self.by_kind).filter(|(kind, _)| kinds.contains(*kind)).map(|(_, free)| free).sum()
    }

    fn worth(&self) -> f64 {
        self.worth as f64 / 1024.0
    }

    fn change(&mut self, host: &Host, facts: &Facts, slots: &[u64], by: impl Fn(u64, u64) -> u64) {
        for slot in &host.slots {
            let free = u64::from(slot.free.compute.0);
            if let Some(sum) = self.by_kind.get_mut(usize::from(slot.kind)) {
                *sum = by(*sum, free);
            }
            self.whole = by(self.whole, slot.whole.into());
        }
        self.compute = by(self.compute, facts.compute);
        self.worth = by(self.worth, facts.exact_worth());
        self.slots.iter_mut().zip(slots).for_each(|(sum, slots)| *sum = by(*sum, *slots));
    }
}

impl Census {
    /// After 16, 32, 64, ... pods, and then after every 500.
    fn due(&self) -> bool {
        !self.known
            && ((self.total >= 16 && self.total < 500 && self.total.is_power_of_two())
                || (self.total > 0 && self.total.is_multiple_of(500)))
    }
}

// === machines ===

impl Market {
    /// The number of a kind of card; a new one where it was not known.
    pub fn kind(&mut self, model: &str, memory: Mib) -> Kind {
        let known = self.kinds.iter().position(|(name, size)| (&**name, *size) == (model, memory));
        let number = known.unwrap_or_else(|| {
            if self.kinds.len() < Kinds::MOST {
                self.kinds.push((model.into(), memory));
                self.totals.by_kind.push(0);
                self.needs = self.shapes.iter().map(|shape| Need::new(shape, &self.kinds)).collect();
                self.relearn();
            }
            self.kinds.len() - 1
        });
        Kind::try_from(number).unwrap_or(Kind::MAX)
    }

    /// Adds a machine. Numbers start at zero; where all else is equal, a pod goes to the lowest.
    pub fn add(&mut self, host: Host) -> usize {
        let number = self.hosts.len();
        self.hosts.push(Host::default());
        self.facts.push(Facts::default());
        self.versions.push(1);
        self.slots.resize(self.hosts.len() * self.outlook.rooms.len(), 0);
        self.set(number, host);
        number
    }

    /// A machine, as it is now.
    pub fn host(&self, number: usize) -> Option<&Host> {
        self.hosts.get(number)
    }

    /// How many machines there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Replaces what is known of a machine.
    pub fn set(&mut self, number: usize, host: Host) {
        self.change(number, |old| *old = host);
    }

    /// Puts a pod where it was chosen to go.
    pub fn take(&mut self, class: Class, choice: &Choice) {
        if let Some(need) = self.needs.get(class.0).copied() {
            self.change(choice.host, |host| host.take(&need, &choice.slots));
        }
    }

    /// A pod that was put there has left.
    pub fn give(&mut self, class: Class, choice: &Choice) {
        if let Some(need) = self.needs.get(class.0).copied() {
            self.change(choice.host, |host| host.give(&need, &choice.slots));
        }
    }

    fn change(&mut self, number: usize, change: impl FnOnce(&mut Host)) {
        let rooms = self.outlook.rooms.len();
        let slots = self.slots.get_mut(number * rooms..(number + 1) * rooms).unwrap_or_default();
        let (Some(host), Some(facts)) = (self.hosts.get_mut(number), self.facts.get_mut(number)) else { return };
        self.totals.change(host, facts, slots, u64::wrapping_sub);
        change(host);
        *facts = Facts::new(host, &self.outlook);
        count_slots(slots, &self.outlook.rooms, host);
        self.totals.change(host, facts, slots, u64::wrapping_add);
        if let Some(version) = self.versions.get_mut(number) {
            *version += 1;
        }
    }
}

/// How many pods of each room fit on the machine.
fn count_slots(slots: &mut [u64], rooms: &[Room], host: &Host) {
    for (slots, room) in slots.iter_mut().zip(rooms) {
        let whole = host.whole(room.need.kinds);
        *slots =
            if whole < room.cards.into() { 0 } else { room.need.slots(host.cpu, host.memory.0, host.pods, whole) };
    }
}

// === demand ===

impl Market {
    /// The class of a shape; a new one where it was not known.
    pub fn class(&mut self, shape: &Shape) -> Class {
        if let Some(known) = self.classes.get(shape) {
            return Class(*known);
        }
        let number = self.shapes.len();
        self.needs.push(Need::new(shape, &self.kinds));
        self.shapes.push(shape.clone());
        self.classes.insert(shape.clone(), number);
        self.census.counts.push(0);
        Class(number)
    }

    /// A pod of this class has come; counts towards what is expected of later ones.
    pub fn arrived(&mut self, class: Class) {
        if let Some(count) = self.census.counts.get_mut(class.0) {
            *count += 1;
            self.census.total += 1;
        }
        if self.census.due() {
            self.census.learnt.clone_from(&self.census.counts);
            self.relearn();
        }
    }

    /// Tells the demand in advance, as how often each shape comes: from now on nothing is learnt.
    pub fn know(&mut self, demand: &[(Shape, u64)]) {
        for (shape, count) in demand {
            let class = self.class(shape);
            if let Some(sum) = self.census.counts.get_mut(class.0) {
                *sum += count;
            }
        }
        self.census.known = true;
        self.census.learnt.clone_from(&self.census.counts);
        self.relearn();
    }

    fn relearn(&mut self) {
        // classes that are newer than the last lesson were not seen in it
        self.census.learnt.resize(self.shapes.len(), 0);
        self.outlook = Outlook::learn(&self.shapes, &self.needs, &self.census.learnt, &self.kinds);
        self.books.clear();
        let rooms = self.outlook.rooms.len();
        self.totals = Totals { by_kind: vec![0; self.kinds.len()], slots: vec![0; rooms], ..Totals::default() };
        self.slots = vec![0; self.hosts.len() * rooms];
        for (number, (host, facts)) in self.hosts.iter().zip(&mut self.facts).enumerate() {
            let slots = self.slots.get_mut(number * rooms..(number + 1) * rooms).unwrap_or_default();
            *facts = Facts::new(host, &self.outlook);
            count_slots(slots, &self.outlook.rooms, host);
            self.totals.change(host, facts, slots, u64::wrapping_add);
        }
    }
}

// === choice ===

/// How much a policy likes a way; more is better. What is free breaks ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Liking {
    score: i32,
    tie: (u64, u64),
}

impl Market {
    /// Where a pod of this class goes; `None` where it fits nowhere.
    pub fn choose(&mut self, policy: Policy, class: Class) -> Option<Choice> {
        let need = *self.needs.get(class.0)?;
        self.prices.of(policy, &self.outlook, &self.totals, class.0, &need);
        self.refresh(policy, class, &need);
        let book = self.books.get(&(policy, class.0))?;
        // What room costs is dear to compute and makes no way better. So those that could be best without that cost
        // come first, and the others only while what was found is worse than they could be.
        let mut level = self.bounds.iter().copied().max()?;
        let mut best: Option<(Liking, usize, Way)> = None;
        while level > i32::MIN && best.as_ref().is_none_or(|(liking, ..)| liking.score <= level) {
            let mut next = i32::MIN;
            for (number, bound) in self.bounds.iter().enumerate() {
                if *bound == level {
                    let Some(offer) = book.offers.get(number) else { continue };
                    let Some((liking, way)) = self.like(policy, number, &need, offer) else { continue };
                    if best.as_ref().is_none_or(|(most, ..)| liking > *most) {
                        best = Some((liking, number, way));
                    }
                } else if *bound < level {
                    next = next.max(*bound);
                }
            }
            level = next;
        }
        let (_, host, way) = best?;
        let slots = self.hosts.get(host).map(|host| cards(host, &need, way)).unwrap_or_default();
        Some(Choice { host, slots })
    }

    /// Brings the class's book up to date and bounds every machine's score from above; no way at all is `i32::MIN`.
    fn refresh(&mut self, policy: Policy, class: Class, need: &Need) {
        let book = self.books.entry((policy, class.0)).or_default();
        book.offers.resize(self.hosts.len(), Offer::NONE);
        book.versions.resize(self.hosts.len(), 0);
        let current = self.versions.iter().zip(&mut book.versions).enumerate();
        for (number, (version, made_for)) in current.filter(|(_, (version, made_for))| *version != &**made_for) {
            *made_for = *version;
            if let (Some(offer), Some(host), Some(facts)) =
                (book.offers.get_mut(number), self.hosts.get(number), self.facts.get(number))
            {
                *offer = Offer::of(policy, host, facts, need, &self.outlook);
            }
        }
        self.bounds.clear();
        let prices = &self.prices;
        let opening = if matches!(need.cards, Cards::Share(_)) { prices.open as f32 } else { 0.0 };
        if prices.any_scarce() {
            let net = |way: Way| way.score - prices.scarcity(way.kind) as f32;
            let bound = |offer: &Offer| rounded(policy, net(offer.used).max(net(offer.fresh) - opening));
            self.bounds.extend(book.offers.iter().map(bound));
        } else {
            let bound = |offer: &Offer| rounded(policy, offer.used.score.max(offer.fresh.score - opening));
            self.bounds.extend(book.offers.iter().map(bound));
        }
    }

    /// The better way of the two that a machine offers.
    fn like(&self, policy: Policy, number: usize, need: &Need, offer: &Offer) -> Option<(Liking, Way)> {
        let (host, facts) = (self.hosts.get(number)?, self.facts.get(number)?);
        let rooms = self.outlook.rooms.len();
        let before = self.slots.get(number * rooms..(number + 1) * rooms).unwrap_or_default();
        like(policy, host, facts, before, need, offer, &self.outlook.rooms, &self.prices)
    }

    /// How well each of these machines suits a pod of this class; `None`: not at all.
    pub fn ranks(&mut self, policy: Policy, class: Class, hosts: &[usize]) -> Vec<Option<Rank>> {
        let Some(need) = self.needs.get(class.0).copied() else { return vec![None; hosts.len()] };
        self.prices.of(policy, &self.outlook, &self.totals, class.0, &need);
        self.refresh(policy, class, &need);
        let Some(book) = self.books.get(&(policy, class.0)) else { return vec![None; hosts.len()] };
        let rank = |number: &usize| Some(self.like(policy, *number, &need, book.offers.get(*number)?)?.0.rank());
        hosts.iter().map(rank).collect()
    }

    /// How well a machine that need not be one of these suits a pod of this class, and the cards that the pod would get; `None`: not at all.
    pub fn rate(&mut self, policy: Policy, class: Class, host: &Host) -> Option<(Rank, Vec<usize>)> {
        let need = *self.needs.get(class.0)?;
        self.prices.of(policy, &self.outlook, &self.totals, class.0, &need);
        let facts = Facts::new(host, &self.outlook);
        let mut before = vec![0; self.outlook.rooms.len()];
        count_slots(&mut before, &self.outlook.rooms, host);
        let offer = Offer::of(policy, host, &facts, &need, &self.outlook);
        let (liking, way) = like(policy, host, &facts, &before, &need, &offer, &self.outlook.rooms, &self.prices)?;
        Some((liking.rank(), cards(host, &need, way)))
    }
}

impl Liking {
    /// The same order as a [`Rank`], of which less is better.
    fn rank(self) -> Rank {
        let score = i64::from(i32::MAX) - i64::from(self.score);
        Rank(score.unsigned_abs(), !self.tie.0, !self.tie.1)
    }
}

fn like(
    policy: Policy,
    host: &Host,
    facts: &Facts,
    before: &[u64],
    need: &Need,
    offer: &Offer,
    rooms: &[Room],
    prices: &Prices,
) -> Option<(Liking, Way)> {
    let net = |way: Way, opens: bool| {
        if !way.exists() {
            return i32::MIN;
        }
        let share = matches!(need.cards, Cards::Share(_));
        let mut score =
            way.score - prices.scarcity(way.kind) as f32 - if opens && share { prices.open as f32 } else { 0.0 };
        if prices.any_room() {
            score -= prices.room(rooms, host, before, need, opens.then_some(way.kind)) as f32;
        }
        rounded(policy, score)
    };
    let (used, fresh) = (net(offer.used, false), net(offer.fresh, true));
    // of equals the card that is in use already
    let (score, way) = if fresh > used { (fresh, offer.fresh) } else { (used, offer.used) };
    way.exists().then(|| (Liking { score, tie: tie(policy, host, facts, need) }, way))
}

/// Under [`Policy::Fragmentation`] differences below a tenth of a card are noise of the estimate: the fullest machine
/// shall decide then. The other policies' scores are whole numbers already.
fn rounded(policy: Policy, score: f32) -> i32 {
    if score == f32::NEG_INFINITY {
        return i32::MIN;
    }
    if policy != Policy::Fragmentation {
        return score as i32;
    }
    /// Makes what is rounded positive, since casting cuts towards zero; far more than any score.
    const SHIFT: i32 = 1 << 14;
    (score * 0.01 + (SHIFT as f32 + 0.5)) as i32 - SHIFT
}

/// More is better.
fn tie(policy: Policy, host: &Host, facts: &Facts, need: &Need) -> (u64, u64) {
    match (policy, need.cards) {
        (Policy::Fragmentation, _) => (!facts.compute, !host.cpu),
        (Policy::Binpack, Cards::Share(_) | Cards::Whole(_)) => (!facts.compute, !facts.memory),
        (Policy::Spread, Cards::Share(_) | Cards::Whole(_)) => (facts.compute, facts.memory),
        _ => (0, 0),
    }
}

fn cards(host: &Host, need: &Need, way: Way) -> Vec<usize> {
    match need.cards {
        Cards::None => Vec::new(),
        Cards::Share(_) => vec![way.slot.into()],
        Cards::Whole(count) => host.first_whole(need.kinds, count).collect(),
    }
}
