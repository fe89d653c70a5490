//! What a placement costs the pods to come, as the whole cluster stands now.

use super::super::shape::{Cards, Kind, Kinds};
use super::host::{Host, Need};
use super::outlook::{Outlook, Room};
use super::tail;
use super::totals::Totals;
use crate::policy::Policy;

/// A card's worth of lost room costs this much where it is sure to be missed, in thousandths of a card.
const ROOM: f64 = 300.0;
/// Kinds of card are scarce once their expected demand reaches this part of what is free of them.
const SCARCE: f64 = 0.85;
/// A chance below this is none.
const NEVER: f64 = 1e-4;

/// Prices for one pod, at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Prices {
    /// The rooms that cost something, by position, and the price of one slot.
    rooms: Vec<(usize, f64)>,
    /// Scarce kinds of card and what it costs to be on one of them.
    scarce: Vec<(Kinds, f64)>,
    /// What it costs a share to open a card that is free as a whole.
    pub open: f64,
}

impl Prices {
    /// For a pod of class `shape`; other policies than [`Policy::Fragmentation`] know no prices.
    pub fn of(&mut self, policy: Policy, outlook: &Outlook, totals: &Totals, shape: usize, need: &Need) {
        self.rooms.clear();
        self.scarce.clear();
        self.open = 0.0;
        if policy != Policy::Fragmentation || outlook.per_pod <= 0.0 {
            return;
        }
        let horizon = totals.compute as f64 / outlook.per_pod;
        for (at, (room, slots)) in outlook.rooms.iter().zip(&totals.slots).enumerate() {
            let coming = room.rate * horizon + 1.0;
            let missed = if (*slots as f64) > coming + 6.0 * coming.sqrt() + 6.0 {
                0.0
            } else {
                tail::poisson_at_least(coming, *slots)
            };
            if room.shape != shape && missed > NEVER {
                self.rooms.push((at, ROOM * f64::from(room.cards) * missed));
            }
        }
        let milli = need.cards.compute() as f64;
        if need.cards == Cards::None {
            return;
        }
        // pods that stand are replaced while this one stays: their successors may ask for other kinds than they did
        let replaced = outlook.turnover * totals.capacity.saturating_sub(totals.compute) as f64 / outlook.per_pod;
        for set in outlook.confined.iter().filter(|set| !need.kinds.within(set.kinds)) {
            let free = totals.free_of(set.kinds) as f64;
            let variance = set.variance * (horizon + replaced);
            let missed = tail::normal_at_least(set.mean * horizon, variance, SCARCE * free);
            if missed > NEVER {
                self.scarce.push((set.kinds, milli * missed));
            }
        }
        if let Cards::Share(_) = need.cards {
            let horizon = totals.worth() / outlook.per_pod;
            let (mean, variance) = (outlook.whole_mean * horizon, outlook.whole_variance * horizon);
            self.open = ROOM * tail::normal_at_least(mean, variance, totals.whole as f64);
        }
    }

    /// What it costs to be on a card of this kind.
    pub fn scarcity(&self, kind: Kind) -> f64 {
        self.scarce.iter().filter(|(kinds, _)| kinds.contains(kind)).map(|(_, price)| price).sum()
    }

    /// Whether any kind of card is scarce.
    pub fn any_scarce(&self) -> bool {
        !self.scarce.is_empty()
    }

    /// Whether any placement can cost anything for room.
    pub fn any_room(&self) -> bool {
        !self.rooms.is_empty()
    }

    /// What the pods that need several whole cards lose where this pod comes to the machine; `opens`: the kind of card
    /// that was free as a whole until then. `before`: for each room, how many such pods fit now.
    pub fn room(&self, rooms: &[Room], host: &Host, before: &[u64], need: &Need, opens: Option<Kind>) -> f64 {
        let cpu = host.cpu.saturating_sub(need.cpu);
        let memory = host.memory.0.saturating_sub(need.memory);
        let pods = host.pods.saturating_sub(1);
        let lost = |room: &Room, before: u64| {
            if before == 0 {
                return 0;
            }
            let of_kind = |at: &usize| host.slots.get(*at).is_some_and(|slot| room.need.kinds.contains(slot.kind));
            let taken = match need.cards {
                Cards::Whole(count) => host.first_whole(need.kinds, count).filter(of_kind).count() as u64,
                _ => opens.is_some_and(|kind| room.need.kinds.contains(kind)).into(),
            };
            // products are cheaper than quotients, and mostly nothing is lost
            let scarce =
                taken > 0 || pods < before || cpu < before * room.need.cpu || memory < before * room.need.memory;
            if !scarce {
                return 0;
            }
            let whole = host.whole(room.need.kinds).saturating_sub(taken);
            before.saturating_sub(room.need.slots(cpu, memory, pods, whole))
        };
        let price =
            |(at, price): &(usize, f64)| Some(price * lost(rooms.get(*at)?, before.get(*at).copied()?) as f64);
        self.rooms.iter().filter_map(price).sum()
    }
}
