//! What a placement costs the pods to come, by the present state of the whole cluster.

use super::super::shape::{Cards, Kind, Kinds};
use super::host::{Host, Need};
use super::outlook::{Outlook, Room};
use super::tail;
use super::totals::Totals;
use crate::policy::Policy;

/// The price per card of a lost room that will certainly be missed, in thousandths of a card.
const ROOM: f64 = 300.0;
/// A kind of card is scarce once its expected demand reaches this part of what is free of it.
const SCARCE: f64 = 0.85;
/// Smaller probabilities count as zero.
const NEVER: f64 = 1e-4;

#[derive(Clone, Debug, Default)]
pub(super) struct Prices {
    /// Rooms with a price: position in the outlook, and the price of one such room.
    pub rooms: Vec<(usize, f64)>,
    /// Sets of scarce kinds of card, and the price of being on one of them.
    pub scarce: Vec<(Kinds, f64)>,
    /// The price for a share that opens a card that is free as a whole.
    pub open: f64,
}

impl Prices {
    /// For a pod of class `shape`. Only [`Policy::Fragmentation`] has prices.
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
        // running pods are replaced while this one stays: their successors may ask for other kinds
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

    pub fn scarcity(&self, kind: Kind) -> f64 {
        self.scarce.iter().filter(|(kinds, _)| kinds.contains(kind)).map(|(_, price)| price).sum()
    }

    /// The price of the rooms that this pod takes on the machine; `opens`: the kind of the free card that it opens.
    /// `before`: for each room of the outlook, how many such pods fit now.
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
            // usually nothing is lost, and multiplications are cheaper than divisions
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
