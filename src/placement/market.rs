//! A whole cluster as a policy sees it, and the choice of machine and card for a pod.

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
use offer::{Offer, Way};
use outlook::Outlook;
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
    /// Grows with every change of the machine.
    versions: Vec<u64>,
    shapes: Vec<Shape>,
    classes: BTreeMap<Shape, usize>,
    needs: Vec<Need>,
    census: Census,
    outlook: Outlook,
    totals: Totals,
    books: BTreeMap<(Policy, usize), Book>,
    prices: Prices,
}

/// How often each class of pods was seen.
#[derive(Clone, Debug, Default)]
struct Census {
    counts: Vec<u64>,
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

    fn add(&mut self, host: &Host, outlook: &Outlook) {
        self.change(host, outlook, u64::wrapping_add);
    }

    fn remove(&mut self, host: &Host, outlook: &Outlook) {
        self.change(host, outlook, u64::wrapping_sub);
    }

    fn change(&mut self, host: &Host, outlook: &Outlook, by: impl Fn(u64, u64) -> u64) {
        for slot in &host.slots {
            let free = u64::from(slot.free.compute.0);
            self.compute = by(self.compute, free);
            if let Some(sum) = self.by_kind.get_mut(usize::from(slot.kind)) {
                *sum = by(*sum, free);
            }
            self.whole = by(self.whole, slot.whole.into());
            self.worth = by(self.worth, (outlook.worth(slot) * 1024.0).round() as u64);
        }
        for (sum, room) in self.slots.iter_mut().zip(&outlook.rooms) {
            *sum = by(*sum, Outlook::slots(room, host));
        }
    }
}

impl Census {
    /// After 16, 32, 64, ... pods, and then after every 500.
    fn due(&self) -> bool {
        !self.known && ((self.total >= 16 && self.total < 500 && self.total.is_power_of_two()) || (self.total > 0 && self.total.is_multiple_of(500)))
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
        self.totals.add(&host, &self.outlook);
        self.hosts.push(host);
        self.versions.push(1);
        self.hosts.len() - 1
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
        let (Some(host), Some(version)) = (self.hosts.get_mut(number), self.versions.get_mut(number)) else { return };
        self.totals.remove(host, &self.outlook);
        change(host);
        self.totals.add(host, &self.outlook);
        *version += 1;
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
        self.relearn();
    }

    fn relearn(&mut self) {
        self.outlook = Outlook::learn(&self.needs, &self.census.counts, &self.kinds);
        self.books.clear();
        self.totals = Totals {
            by_kind: vec![0; self.kinds.len()],
            slots: vec![0; self.outlook.rooms.len()],
            ..Totals::default()
        };
        for host in &self.hosts {
            self.totals.add(host, &self.outlook);
        }
    }
}

// === choice ===

/// How much a policy likes a way; more is better. What is free breaks ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Liking {
    score: i64,
    tie: (u64, u64),
}

impl Market {
    /// Where a pod of this class goes; `None` where it fits nowhere.
    pub fn choose(&mut self, policy: Policy, class: Class) -> Option<Choice> {
        let need = *self.needs.get(class.0)?;
        if policy == Policy::Fragmentation {
            self.prices.of(&self.outlook, &self.totals, class.0, &need);
        }
        let book = self.books.entry((policy, class.0)).or_default();
        book.offers.resize(self.hosts.len(), Offer::default());
        book.versions.resize(self.hosts.len(), 0);
        let mut best: Option<(Liking, usize, Way)> = None;
        let known = book.offers.iter_mut().zip(&mut book.versions);
        for (number, ((host, version), (offer, made_for))) in self.hosts.iter().zip(&self.versions).zip(known).enumerate() {
            if made_for != version {
                *offer = Offer::of(policy, host, &need, &self.outlook);
                *made_for = *version;
            }
            let least = best.as_ref().map(|(liking, ..)| *liking);
            let Some((liking, way)) = like(policy, host, &need, offer, &self.outlook, &self.prices, least) else { continue };
            if least.is_none_or(|least| liking > least) {
                best = Some((liking, number, way));
            }
        }
        let (_, host, way) = best?;
        let slots = self.hosts.get(host).map(|host| cards(host, &need, way)).unwrap_or_default();
        Some(Choice { host, slots })
    }

    /// How well one machine suits a pod of this class, and the cards that the pod would get; `None`: not at all.
    pub fn rate(&mut self, policy: Policy, class: Class, host: &Host) -> Option<(Rank, Vec<usize>)> {
        let need = *self.needs.get(class.0)?;
        self.prices.of(&self.outlook, &self.totals, class.0, &need);
        let offer = Offer::of(policy, host, &need, &self.outlook);
        let (liking, way) = like(policy, host, &need, &offer, &self.outlook, &self.prices, None)?;
        Some((liking.rank(), cards(host, &need, way)))
    }
}

impl Liking {
    /// The same order as a [`Rank`], of which less is better.
    fn rank(self) -> Rank {
        // flipping the sign bit keeps the order of signed numbers among unsigned ones
        let score = (self.score as u64) ^ (1 << 63);
        Rank(!score, !self.tie.0, !self.tie.1)
    }
}

/// The better way of the two that a machine offers, unless it cannot be better than `least`.
fn like(
    policy: Policy,
    host: &Host,
    need: &Need,
    offer: &Offer,
    outlook: &Outlook,
    prices: &Prices,
    least: Option<Liking>,
) -> Option<(Liking, Way)> {
    if policy != Policy::Fragmentation {
        let way = offer.used?;
        return Some((Liking { score: way.score as i64, tie: tie(policy, host, need) }, way));
    }
    let net = |way: Way, opens: bool| {
        let share = matches!(need.cards, Cards::Share(_));
        let before_room = way.score - prices.scarcity(way.kind) - if opens && share { prices.open } else { 0.0 };
        // room is dear to compute and can only cost
        if least.is_some_and(|least| rounded(before_room) < least.score) {
            return None;
        }
        if !prices.any_room() {
            return Some((rounded(before_room), way));
        }
        let slots = cards(host, need, way);
        Some((rounded(before_room - prices.room(&outlook.rooms, host, need, &slots, opens)), way))
    };
    let used = offer.used.and_then(|way| net(way, false));
    let fresh = offer.fresh.and_then(|way| net(way, true));
    // of equals the card that is in use already
    let (score, way) = match (used, fresh) {
        (Some(used), Some(fresh)) if fresh.0 > used.0 => fresh,
        (Some(used), _) => used,
        (None, fresh) => fresh?,
    };
    Some((Liking { score, tie: tie(policy, host, need) }, way))
}

/// Differences below a tenth of a card are noise of the estimate: the fullest machine shall decide then.
fn rounded(score: f64) -> i64 {
    (score / 100.0).round() as i64
}

/// More is better.
fn tie(policy: Policy, host: &Host, need: &Need) -> (u64, u64) {
    match (policy, need.cards) {
        (Policy::Fragmentation, _) => (!host.compute(), !host.cpu),
        (Policy::Binpack, Cards::Share(_) | Cards::Whole(_)) => (!host.compute(), !host.card_memory()),
        (Policy::Spread, Cards::Share(_) | Cards::Whole(_)) => (host.compute(), host.card_memory()),
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
