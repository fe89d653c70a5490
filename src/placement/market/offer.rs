//! What one machine offers one class of pods, before the prices of the moment.

use std::cmp::Reverse;

use super::super::Policy;
use super::super::shape::{Cards, Kind};
use super::fgd;
use super::host::{Host, Need, Slot};
use super::outlook::Outlook;
use crate::units::Share;

/// A way to put the pod on the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// How good it is; more is better. In thousandths of a card for [`Policy::Fragmentation`].
    pub score: f64,
    /// The card of a share, or the first of several; anything for a pod without cards.
    pub slot: u16,
    /// What kind of card that is.
    pub kind: Kind,
}

/// The best ways: on a card that is in use, and on one that is free as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offer {
    pub used: Option<Way>,
    pub fresh: Option<Way>,
}

impl Offer {
    /// What the machine offers under a policy.
    pub fn of(policy: Policy, host: &Host, need: &Need, outlook: &Outlook) -> Self {
        if !host.takes(need) {
            return Self::default();
        }
        match policy {
            Policy::Fragmentation => Self::by_worth(host, need, outlook),
            Policy::Fgd => {
                Self { used: fgd::score(host, need, &outlook.typical).map(|(score, at)| way(host, score, at)), fresh: None }
            }
            Policy::Binpack | Policy::BestFit | Policy::Spread => {
                let Some(at) = card(policy, host, need) else { return Self::default() };
                let score = match (policy, need.cards) {
                    (Policy::BestFit, _) => best_fit(host, need),
                    (_, Cards::None) => least_allocated(host, need),
                    _ => 0.0,
                };
                Self { used: Some(way(host, score, at)), fresh: None }
            }
        }
    }

    fn by_worth(host: &Host, need: &Need, outlook: &Outlook) -> Self {
        let worth = host.slots.iter().map(|slot| outlook.worth(slot)).sum::<f64>();
        let stranded = outlook.stranded(worth, host.cpu as f64);
        let taken = need.cards.compute() as f64;
        // what the placement takes does not count as lost; what it makes worthless does
        let score = |lost: f64| taken - lost + stranded - outlook.stranded(worth - lost, (host.cpu - need.cpu) as f64);
        match need.cards {
            Cards::None => Self { used: Some(Way { score: score(0.0), slot: 0, kind: 0 }), fresh: None },
            Cards::Whole(count) if host.whole(need.kinds) < count.into() => Self::default(),
            Cards::Whole(count) => {
                let first = host.first_whole(need.kinds, count).next().unwrap_or_default();
                Self { used: None, fresh: Some(way(host, score(1000.0 * f64::from(count)), first)) }
            }
            Cards::Share(share) => {
                let best = |whole: bool| {
                    let (lost, at) = least_lost(host, need, share, outlook, whole)?;
                    Some(way(host, score(lost), at))
                };
                Self { used: best(false), fresh: best(true) }
            }
        }
    }
}

fn way(host: &Host, score: f64, at: usize) -> Way {
    Way { score, slot: u16::try_from(at).unwrap_or(u16::MAX), kind: host.slots.get(at).map_or(0, |slot| slot.kind) }
}

/// The card on which the share costs least worth; of equals the fullest, then the first. On one machine nothing
/// else tells its cards apart: what is stranded for want of cores never grows faster than the worth that is left.
fn least_lost(host: &Host, need: &Need, share: Share, outlook: &Outlook, whole: bool) -> Option<(f64, usize)> {
    let fitting = host.slots.iter().enumerate().filter(|(_, slot)| slot.whole == whole && slot.takes(share, need.kinds));
    let lost = |slot: &Slot| outlook.worth(slot) - outlook.worth_of(slot.kind, slot.free.saturating_sub(share));
    let rated = fitting.map(|(at, slot)| (lost(slot), slot.free.compute, slot.free.memory, at));
    let better = |a: &(f64, _, _, usize), b: &(f64, _, _, usize)| a.0.total_cmp(&b.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)));
    rated.min_by(better).map(|(lost, .., at)| (lost, at))
}

/// The card for a share, or the first of whole ones; of equals the first.
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

/// The simulator's best fit: cores against 128, compute against 8 cards, half each, as whole numbers up to 100.
fn best_fit(host: &Host, need: &Need) -> f64 {
    let cpu = host.cpu.saturating_sub(need.cpu) as f64 / 128_000.0;
    let gpu = host.compute().saturating_sub(need.cards.compute()) as f64 / 8000.0;
    (100.0 * (1.0 - 0.5 * cpu - 0.5 * gpu)).trunc()
}

/// kube-scheduler's default for pods that no extender looks at: the machine with the most left, in whole percent.
fn least_allocated(host: &Host, need: &Need) -> f64 {
    let percent = |free: u64, capacity: u64| (free * 100).checked_div(capacity).unwrap_or_default();
    let cpu = percent(host.cpu.saturating_sub(need.cpu), host.cpu_capacity);
    let memory = percent(host.memory.0.saturating_sub(need.memory), host.memory_capacity.0);
    ((cpu + memory) / 2) as f64
}
