//! What one machine offers to one class of pods, before the prices of the moment.

use std::cmp::Reverse;

use super::super::shape::{Cards, Kind};
use super::fgd;
use super::host::{Host, Need, Slot};
use super::outlook::Outlook;
use crate::policy::Policy;
use crate::units::Share;

/// The best way to put the pod on a card that is in use, and the best on one that is free as a whole. Small, since
/// one decision looks at those of every machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub used: Way,
    pub fresh: Way,
}

/// The offers of every machine to one class of pods under one policy.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    pub offers: Vec<Offer>,
    /// The machines' versions for which the offers were made.
    pub versions: Vec<u64>,
}

/// A way to put the pod on the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// More is better. In thousandths of a card for [`Policy::Fragmentation`]; minus infinity where the pod does not
    /// fit.
    pub score: f32,
    /// Position of the card, or of the first of several; without meaning for a pod without cards.
    pub slot: u8,
    pub kind: Kind,
}

/// Numbers that every decision needs of a machine, computed once for each of its versions.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Free compute of all cards, in thousandths of a card.
    pub compute: u64,
    /// Free memory of all cards, in MiB.
    pub memory: u64,
    /// By card.
    worth: Vec<f64>,
    all_worth: f64,
    /// The part of `all_worth` that will be stranded for want of cores.
    stranded: f64,
}

impl Facts {
    pub fn new(host: &Host, outlook: &Outlook) -> Self {
        let worth: Vec<f64> = host.slots.iter().map(|slot| outlook.worth(slot)).collect();
        let all_worth = worth.iter().sum();
        let stranded = outlook.stranded(all_worth, host.cpu as f64);
        Self { compute: host.compute(), memory: host.card_memory(), worth, all_worth, stranded }
    }

    /// The worth of all cards in 1/1024 of a thousandth of a card: a whole number, so that sums do not depend on their
    /// order.
    pub fn exact_worth(&self) -> u64 {
        self.worth.iter().map(|worth| (worth * 1024.0) as u64).sum()
    }
}

impl Offer {
    /// For a machine where the pod does not fit.
    pub const NONE: Self = Self { used: Way::NONE, fresh: Way::NONE };

    pub fn of(policy: Policy, host: &Host, facts: &Facts, need: &Need, outlook: &Outlook) -> Self {
        if !host.takes(need) {
            return Self::NONE;
        }
        let used = |score: f64, at: usize| Self { used: way(host, score, at), fresh: Way::NONE };
        match policy {
            Policy::Fragmentation => Self::by_worth(host, facts, need, outlook),
            Policy::Fgd => {
                fgd::score(host, need, &outlook.typical).map_or(Self::NONE, |(score, at)| used(score, at))
            }
            Policy::Binpack | Policy::BestFit | Policy::Spread => {
                let Some(at) = card(policy, host, need) else { return Self::NONE };
                let score = match (policy, need.cards) {
                    (Policy::BestFit, _) => best_fit(host, need),
                    (_, Cards::None) => least_allocated(host, need),
                    _ => 0.0,
                };
                used(score, at)
            }
        }
    }

    fn by_worth(host: &Host, facts: &Facts, need: &Need, outlook: &Outlook) -> Self {
        let taken = need.cards.compute() as f64;
        let cpu = (host.cpu - need.cpu) as f64;
        // compute that the pod uses does not count as lost; compute that becomes worthless does
        let score = |lost: f64| taken - lost + facts.stranded - outlook.stranded(facts.all_worth - lost, cpu);
        match need.cards {
            Cards::None => {
                let score = -without_cards(host, facts, need, outlook);
                Self { used: Way { score: score as f32, slot: 0, kind: 0 }, fresh: Way::NONE }
            }
            Cards::Whole(count) if host.whole(need.kinds) < count.into() => Self::NONE,
            Cards::Whole(count) => {
                let first = host.first_whole(need.kinds, count).next().unwrap_or_default();
                Self { used: Way::NONE, fresh: way(host, score(1000.0 * f64::from(count)), first) }
            }
            Cards::Share(share) => {
                let (used, fresh) = least_lost(host, facts, need, share, outlook);
                let best =
                    |found: Option<Loss>| found.map_or(Way::NONE, |loss| way(host, score(loss.worth), loss.at));
                Self { used: best(used), fresh: best(fresh) }
            }
        }
    }
}

/// What a pod without cards strands on the machine for want of cores, counting cards and cores that will be free while
/// it stays: of what is in use, the part given by the turnover.
fn without_cards(host: &Host, facts: &Facts, need: &Need, outlook: &Outlook) -> f64 {
    let capacity: f64 = host.slots.iter().map(|slot| f64::from(slot.capacity.compute.0)).sum();
    let cards = facts.all_worth + outlook.turnover * (capacity - facts.all_worth);
    let cpu = host.cpu as f64 + outlook.turnover * host.cpu_capacity.saturating_sub(host.cpu) as f64;
    outlook.stranded(cards, cpu - need.cpu as f64) - outlook.stranded(cards, cpu)
}

impl Way {
    const NONE: Self = Self { score: f32::NEG_INFINITY, slot: 0, kind: 0 };

    pub fn exists(self) -> bool {
        self.score > f32::NEG_INFINITY
    }
}

fn way(host: &Host, score: f64, at: usize) -> Way {
    let kind = host.slots.get(at).map_or(0, |slot| slot.kind);
    Way { score: score as f32, slot: u8::try_from(at).unwrap_or(u8::MAX), kind }
}

/// What a share costs on one card.
#[derive(Clone, Copy)]
struct Loss {
    worth: f64,
    free: Share,
    at: usize,
}

/// The card that loses the least worth, among those in use and among those free as a whole; ties go to the fullest,
/// then to the first. On one machine no other part of the score differs between cards: what is stranded for want of
/// cores never grows faster than the worth that is left.
fn least_lost(
    host: &Host,
    facts: &Facts,
    need: &Need,
    share: Share,
    outlook: &Outlook,
) -> (Option<Loss>, Option<Loss>) {
    let mut best: (Option<Loss>, Option<Loss>) = (None, None);
    for (at, (slot, worth)) in host.slots.iter().zip(&facts.worth).enumerate() {
        if !slot.takes(share, need.kinds) {
            continue;
        }
        let best = if slot.whole { &mut best.1 } else { &mut best.0 };
        let worth = worth - outlook.worth_of(slot.kind, slot.free.saturating_sub(share));
        let free = |share: Share| (share.compute, share.memory);
        let better = |best: &Loss| worth < best.worth || (worth == best.worth && free(slot.free) < free(best.free));
        if best.as_ref().is_none_or(better) {
            *best = Some(Loss { worth, free: slot.free, at });
        }
    }
    best
}

/// The card for a share, or the first of whole ones; ties go to the first.
fn card(policy: Policy, host: &Host, need: &Need) -> Option<usize> {
    match need.cards {
        Cards::None => Some(0),
        Cards::Whole(count) => {
            (host.whole(need.kinds) >= count.into()).then(|| host.first_whole(need.kinds, count).next()).flatten()
        }
        Cards::Share(share) => {
            let fitting = host.slots.iter().enumerate().filter(|(_, slot)| slot.takes(share, need.kinds));
            let free = |slot: &Slot| (slot.free.compute, slot.free.memory);
            match policy {
                Policy::Spread => fitting.min_by_key(|(at, slot)| (Reverse(free(slot)), *at)),
                _ => fitting.min_by_key(|(at, slot)| (free(slot), *at)),
            }
            .map(|(at, _)| at)
        }
    }
}

/// The simulator's best fit: free cores of 128 and compute of 8 cards, half each, as whole numbers up to 100.
fn best_fit(host: &Host, need: &Need) -> f64 {
    let cpu = host.cpu.saturating_sub(need.cpu) as f64 / 128_000.0;
    let gpu = host.compute().saturating_sub(need.cards.compute()) as f64 / 8000.0;
    (100.0 * (1.0 - 0.5 * cpu - 0.5 * gpu)).trunc()
}

/// kube-scheduler's default for pods without an extender: the machine with the most left, in whole percent.
fn least_allocated(host: &Host, need: &Need) -> f64 {
    let percent = |free: u64, capacity: u64| (free * 100).checked_div(capacity).unwrap_or_default();
    let cpu = percent(host.cpu.saturating_sub(need.cpu), host.cpu_capacity);
    let memory = percent(host.memory.0.saturating_sub(need.memory), host.memory_capacity.0);
    ((cpu + memory) / 2) as f64
}
