//! Fragmentation gradient descent (Weng, Yang and others, "Beware of Fragmentation: Scheduling GPU-Sharing Workloads
//! with Fragmentation Gradient Descent", USENIX ATC 2023), as its authors' simulator computes it.
//!
//! A machine's fragmentation is how much of its idle compute a pod of typical shape cannot use there; the pod goes
//! where that grows least. Scores are whole numbers from 0 to 100 and ties go to a fixed order of machines: the
//! published figures rest on both. With two resources of a card, a remainder is usable where both suffice.

use super::super::shape::{Cards, Kinds};
use super::host::{Host, Need, Slot};
use super::outlook::Typical;
use crate::units::{Milli, Share};

/// Why idle compute is of no use to a typical pod. The sums are kept apart and added in this order, as in the
/// simulator: scores are cut to whole numbers, so the last bit of a sum can decide.
#[derive(Clone, Copy)]
enum Why {
    BothShort,
    CardsShort,
    CpuShort,
    NeedsNone,
    NeedsNoneCpuShort,
    WrongModel,
}

/// The idle compute of the machine that a pod of typical shape cannot use, in thousandths of a card.
pub(super) fn fragment(cpu: u64, slots: &[Slot], typical: &[Typical]) -> f64 {
    let idle: u64 = slots.iter().map(|slot| u64::from(slot.free.compute.0)).sum();
    if idle == 0 {
        return 0.0;
    }
    let mut sums = [0.0; 6];
    for class in typical {
        let (why, lost) = unusable(cpu, slots, &class.need, idle);
        if let Some(sum) = sums.get_mut(why as usize) {
            *sum += class.part * lost as f64;
        }
    }
    sums.iter().sum()
}

fn unusable(cpu: u64, slots: &[Slot], need: &Need, idle: u64) -> (Why, u64) {
    let short = cpu < need.cpu;
    let (share, count) = match need.cards {
        Cards::None if short => return (Why::NeedsNoneCpuShort, idle),
        Cards::None => return (Why::NeedsNone, idle),
        Cards::Share(share) => (share, 1),
        Cards::Whole(count) => (Share { compute: Milli::WHOLE, ..Share::ZERO }, count),
    };
    if !slots.iter().any(|slot| need.kinds.contains(slot.kind)) {
        return (Why::WrongModel, idle);
    }
    let whole = matches!(need.cards, Cards::Whole(_));
    let large = |slot: &&Slot| slot.takes(share, need.kinds) && (slot.whole || !whole);
    let (cards, free) = slots
        .iter()
        .filter(large)
        .fold((0, 0), |(cards, free), slot| (cards + 1, free + u64::from(slot.free.compute.0)));
    match (cards >= count, short) {
        (true, false) => (Why::CardsShort, idle - free),
        (true, true) => (Why::CpuShort, idle),
        (false, false) => (Why::CardsShort, idle),
        (false, true) => (Why::BothShort, idle),
    }
}

/// The score of the best way to put the pod on the machine, and the card for a share. `None` where it does not fit.
pub(super) fn score(host: &Host, need: &Need, typical: &[Typical]) -> Option<(f64, usize)> {
    if !host.fits(need) {
        return None;
    }
    let before = fragment(host.cpu, &host.slots, typical);
    let after = |slots: &[usize]| {
        let mut later = host.clone();
        later.take(need, slots);
        fragment(later.cpu, &later.slots, typical)
    };
    let rate = |after: f64| (100.0 / (1.0 + (-(before - after) / 1000.0).exp())).trunc();
    match need.cards {
        Cards::None => Some((rate(after(&[])), 0)),
        Cards::Whole(count) => {
            let slots: Vec<usize> = host.first_whole(need.kinds, count).collect();
            Some((rate(after(&slots)), slots.first().copied().unwrap_or_default()))
        }
        Cards::Share(share) => best_card(host, share, need.kinds, |slot| rate(after(&[slot]))),
    }
}

/// Ties go to the first card.
fn best_card(host: &Host, share: Share, kinds: Kinds, rate: impl Fn(usize) -> f64) -> Option<(f64, usize)> {
    let mut best: Option<(f64, usize)> = None;
    for (at, slot) in host.slots.iter().enumerate().filter(|(_, slot)| slot.takes(share, kinds)) {
        // a card like an earlier one has the same score
        if host.slots.iter().take(at).any(|earlier| earlier == slot) {
            continue;
        }
        let score = rate(at);
        if best.is_none_or(|(most, _)| score > most) {
            best = Some((score, at));
        }
    }
    best
}
