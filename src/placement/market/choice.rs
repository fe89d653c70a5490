//! The choice of machine and cards, by each machine's offer and the prices of the moment.

use super::super::rank::Rank;
use super::super::shape::Cards;
use super::host::{Host, Need};
use super::offer::{Facts, Offer, Way};
use super::outlook::Room;
use super::prices::Prices;
use super::state::{Choice, Class, Market, count_slots};
use crate::policy::Policy;

/// A way's net score; more is better. `tie` compares what is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Liking {
    score: i32,
    tie: (u64, u64),
}

impl Market {
    /// `None` where the pod fits nowhere.
    pub fn choose(&mut self, policy: Policy, class: Class) -> Option<Choice> {
        let need = *self.needs.get(class.0)?;
        self.prices.of(policy, &self.outlook, &self.totals, class.0, &need);
        self.refresh(policy, class, &need);
        let book = self.books.get(&(policy, class.0))?;
        // The price of room is expensive to compute and only lowers a score. So ways are tried in order of their bound
        // without it, and only while what was found is worse than the bound.
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

    /// Brings the class's book up to date and bounds every machine's score from above; `i32::MIN` where there is no
    /// way.
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
        if prices.scarce.is_empty() {
            let bound = |offer: &Offer| rounded(policy, offer.used.score.max(offer.fresh.score - opening));
            self.bounds.extend(book.offers.iter().map(bound));
        } else {
            let net = |way: Way| way.score - prices.scarcity(way.kind) as f32;
            let bound = |offer: &Offer| rounded(policy, net(offer.used).max(net(offer.fresh) - opening));
            self.bounds.extend(book.offers.iter().map(bound));
        }
    }

    /// The better of a machine's two ways.
    fn like(&self, policy: Policy, number: usize, need: &Need, offer: &Offer) -> Option<(Liking, Way)> {
        let (host, facts) = (self.hosts.get(number)?, self.facts.get(number)?);
        let rooms = self.outlook.rooms.len();
        let before = self.slots.get(number * rooms..(number + 1) * rooms).unwrap_or_default();
        like(policy, &Seen { host, facts, before }, need, offer, &self.outlook.rooms, &self.prices)
    }

    /// The rank of each of these machines; `None` where the pod does not fit.
    pub fn ranks(&mut self, policy: Policy, class: Class, hosts: &[usize]) -> Vec<Option<Rank>> {
        let Some(need) = self.needs.get(class.0).copied() else { return vec![None; hosts.len()] };
        self.prices.of(policy, &self.outlook, &self.totals, class.0, &need);
        self.refresh(policy, class, &need);
        let Some(book) = self.books.get(&(policy, class.0)) else { return vec![None; hosts.len()] };
        let rank = |number: &usize| Some(self.like(policy, *number, &need, book.offers.get(*number)?)?.0.rank());
        hosts.iter().map(rank).collect()
    }

    /// The rank of a machine, which need not be in the market, and the cards that the pod would get; `None` where it
    /// does not fit.
    pub fn rate(&mut self, policy: Policy, class: Class, host: &Host) -> Option<(Rank, Vec<usize>)> {
        let need = *self.needs.get(class.0)?;
        self.prices.of(policy, &self.outlook, &self.totals, class.0, &need);
        let facts = Facts::new(host, &self.outlook);
        let mut before = vec![0; self.outlook.rooms.len()];
        count_slots(&mut before, &self.outlook.rooms, host);
        let offer = Offer::of(policy, host, &facts, &need, &self.outlook);
        let seen = Seen { host, facts: &facts, before: &before };
        let (liking, way) = like(policy, &seen, &need, &offer, &self.outlook.rooms, &self.prices)?;
        Some((liking.rank(), cards(host, &need, way)))
    }
}

impl Liking {
    /// The same order as a [`Rank`], where less is better.
    fn rank(self) -> Rank {
        let score = i64::from(i32::MAX) - i64::from(self.score);
        Rank(score.unsigned_abs(), !self.tie.0, !self.tie.1)
    }
}

struct Seen<'a> {
    host: &'a Host,
    facts: &'a Facts,
    /// For each room of the outlook, how many such pods fit on it.
    before: &'a [u64],
}

fn like(
    policy: Policy,
    seen: &Seen<'_>,
    need: &Need,
    offer: &Offer,
    rooms: &[Room],
    prices: &Prices,
) -> Option<(Liking, Way)> {
    let Seen { host, facts, before } = *seen;
    let net = |way: Way, opens: bool| {
        if !way.exists() {
            return i32::MIN;
        }
        let share = matches!(need.cards, Cards::Share(_));
        let mut score =
            way.score - prices.scarcity(way.kind) as f32 - if opens && share { prices.open as f32 } else { 0.0 };
        if !prices.rooms.is_empty() {
            score -= prices.room(rooms, host, before, need, opens.then_some(way.kind)) as f32;
        }
        rounded(policy, score)
    };
    let (used, fresh) = (net(offer.used, false), net(offer.fresh, true));
    // of equals the card in use
    let (score, way) = if fresh > used { (fresh, offer.fresh) } else { (used, offer.used) };
    way.exists().then(|| (Liking { score, tie: tie(policy, host, facts, need, way) }, way))
}

/// Under [`Policy::Fragmentation`] differences below a tenth of a card are noise of the estimate: the tie-breaks decide
/// then. The other policies' scores are whole numbers already.
fn rounded(policy: Policy, score: f32) -> i32 {
    if score == f32::NEG_INFINITY {
        return i32::MIN;
    }
    if policy != Policy::Fragmentation {
        return score as i32;
    }
    /// Makes the number positive, since casts truncate towards zero; far more than any score.
    const SHIFT: i32 = 1 << 14;
    (score * 0.01 + (SHIFT as f32 + 0.5)) as i32 - SHIFT
}

/// Tie-breaks; more is better.
fn tie(policy: Policy, host: &Host, facts: &Facts, need: &Need, way: Way) -> (u64, u64) {
    match (policy, need.cards) {
        // shares go to the fullest card: other cards then become empty as pods leave
        (Policy::Fragmentation, Cards::Share(_)) => {
            let card = host.slots.get(usize::from(way.slot));
            (!card.map_or(0, |slot| u64::from(slot.free.compute.0)), !facts.compute)
        }
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
