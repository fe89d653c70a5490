//! The market: machines, what was seen of the demand, and what follows from both.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::shape::{Kind, Kinds, Shape};
use super::host::{Host, Need};
use super::offer::{Book, Facts};
use super::outlook::{Outlook, Room};
use super::prices::Prices;
use super::totals::Totals;
use crate::policy::Policy;
use crate::units::Mib;

/// A class of pods, valid for one [`Market`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub(super) usize);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The machine, by the number that [`Market::add`] gave it.
    pub host: usize,
    /// Positions of its cards.
    pub slots: Vec<usize>,
}

/// How often each class of pods was seen, and when a market learns from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Census {
    pub counts: Vec<u64>,
    /// `counts` when the outlook was last learnt: so the outlook depends on the pods alone, and not on when a kind of
    /// card becomes known.
    pub learnt: Vec<u64>,
    pub total: u64,
    /// How many of the pods seen have left.
    pub left: u64,
    /// The part of the pods that had left when it was last learnt, from 0 to 1.
    pub turnover: f64,
    /// Whether the demand was given in advance, so that only the turnover is learnt.
    pub known: bool,
}

impl Census {
    /// After 16, 32, 64, ... pods, and then after every 500.
    pub fn due(&self) -> bool {
        (self.total >= 16 && self.total < 500 && self.total.is_power_of_two())
            || (self.total > 0 && self.total.is_multiple_of(500))
    }
}

#[derive(Clone, Debug, Default)]
pub struct Market {
    pub(super) kinds: Vec<(Arc<str>, Mib)>,
    pub(super) hosts: Vec<Host>,
    pub(super) facts: Vec<Facts>,
    /// By machine; grows with each change of it.
    pub(super) versions: Vec<u64>,
    pub(super) shapes: Vec<Shape>,
    pub(super) classes: BTreeMap<Shape, usize>,
    pub(super) needs: Vec<Need>,
    pub(super) census: Census,
    pub(super) outlook: Outlook,
    pub(super) totals: Totals,
    /// For each machine, and in it for each room of the outlook, how many such pods fit.
    pub(super) slots: Vec<u64>,
    pub(super) books: BTreeMap<(Policy, usize), Book>,
    /// Scratch memory of one decision.
    pub(super) prices: Prices,
    pub(super) bounds: Vec<i32>,
}

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

    /// Returns the machine's number. Numbers start at zero; where all else is equal, a pod goes to the lowest.
    pub fn add(&mut self, host: Host) -> usize {
        let number = self.hosts.len();
        self.hosts.push(Host::default());
        self.facts.push(Facts::default());
        self.versions.push(1);
        self.slots.resize(self.hosts.len() * self.outlook.rooms.len(), 0);
        self.set(number, host);
        number
    }

    pub fn host(&self, number: usize) -> Option<&Host> {
        self.hosts.get(number)
    }

    pub fn set(&mut self, number: usize, host: Host) {
        self.change(number, |old| *old = host);
    }

    pub fn take(&mut self, class: Class, choice: &Choice) {
        if let Some(need) = self.needs.get(class.0).copied() {
            self.change(choice.host, |host| host.take(&need, &choice.slots));
        }
    }

    /// A pod that `Market::take` put there has left.
    pub fn give(&mut self, class: Class, choice: &Choice) {
        if let Some(need) = self.needs.get(class.0).copied() {
            self.change(choice.host, |host| host.give(&need, &choice.slots));
            self.left();
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

pub(super) fn count_slots(slots: &mut [u64], rooms: &[Room], host: &Host) {
    for (slots, room) in slots.iter_mut().zip(rooms) {
        let whole = host.whole(room.need.kinds);
        *slots =
            if whole < room.cards.into() { 0 } else { room.need.slots(host.cpu, host.memory.0, host.pods, whole) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::Slot;
    use super::*;
    use crate::placement::shape::{Cards, models};
    use crate::units::Share;

    fn pod(cpu: u64, cards: Cards, model: &str) -> Shape {
        Shape { cpu, memory: Mib(0), cards, models: models(model) }
    }

    /// Adds a machine whose first `free` cards are free.
    fn machine(market: &mut Market, model: &str, cards: usize, free: usize, cpu: u64, free_cpu: u64) -> usize {
        let kind = market.kind(model, Mib(0));
        let capacity = Share::new(1000, 0);
        let slot =
            |at| Slot { free: if at < free { capacity } else { Share::ZERO }, capacity, kind, whole: at < free };
        market.add(Host {
            cpu: free_cpu,
            cpu_capacity: cpu,
            memory: Mib(1),
            memory_capacity: Mib(1),
            pods: 100,
            slots: (0..cards).map(slot).collect(),
        })
    }

    /// 256 pods of these shapes come in turn; with `leave`, each leaves again.
    fn see(market: &mut Market, shapes: &[Shape], leave: bool) {
        for shape in shapes.iter().cycle().take(256) {
            let class = market.class(shape);
            if leave {
                market.left();
            }
            market.arrived(class);
        }
    }

    fn chosen(market: &mut Market, shape: &Shape) -> Option<usize> {
        let class = market.class(shape);
        market.choose(Policy::Fragmentation, class).map(|choice| choice.host)
    }

    #[test]
    fn where_pods_leave_more_is_kept_of_a_kind_that_some_are_confined_to() {
        let any = pod(0, Cards::Whole(1), "");
        let shapes: Vec<Shape> =
            (0..10).map(|at| if at == 0 { pod(0, Cards::Whole(1), "B") } else { any.clone() }).collect();
        let choice = |leave| {
            let mut market = Market::default();
            let plain = machine(&mut market, "A", 8, 4, 64_000, 64_000);
            (0..9).for_each(|_| _ = machine(&mut market, "A", 8, 0, 64_000, 64_000));
            let few = machine(&mut market, "B", 2, 2, 64_000, 64_000);
            machine(&mut market, "B", 2, 2, 64_000, 64_000);
            see(&mut market, &shapes, leave);
            (chosen(&mut market, &any), Some(plain), Some(few))
        };
        // four cards of B are plenty for what will fill the last eight, one in ten of them confined to B
        let (chosen, _, few) = choice(false);
        assert_eq!(chosen, few);
        let (chosen, plain, _) = choice(true);
        assert_eq!(chosen, plain);
    }

    #[test]
    fn where_pods_leave_a_pod_without_cards_keeps_off_cores_that_cards_will_need() {
        // eleven cores for a card, on average
        let shapes = [pod(4_000, Cards::Whole(1), ""), pod(18_000, Cards::Whole(1), "")];
        let choice = |leave| {
            let mut market = Market::default();
            // as eight of these pods leave it; and an empty one
            let tight = machine(&mut market, "A", 8, 0, 96_000, 8_000);
            let ample = machine(&mut market, "A", 2, 2, 104_000, 104_000);
            see(&mut market, &shapes, leave);
            (chosen(&mut market, &pod(8_000, Cards::None, "")), Some(tight), Some(ample))
        };
        let (chosen, tight, _) = choice(false);
        assert_eq!(chosen, tight);
        let (chosen, _, ample) = choice(true);
        assert_eq!(chosen, ample);
    }

    #[test]
    fn a_model_named_twice_makes_a_class_of_its_own() {
        let mut market = Market::default();
        for model in ["V100M16", "V100M32"] {
            market.kind(model, Mib(0));
        }
        let of = |constraint: &str| Shape {
            cpu: 4000,
            memory: Mib(4096),
            cards: Cards::Whole(1),
            models: models(constraint),
        };
        let (once, other_order, twice) = ("V100M16|V100M32", "V100M32|V100M16", "V100M16|V100M32|V100M32");
        market.know(&[(of(once), 30), (of(twice), 40), (of(other_order), 30)]);
        // what the policy fgd measures fragmentation by
        let parts: Vec<f64> = market.outlook.typical.iter().map(|class| class.part).collect();
        assert_eq!(parts, [0.6, 0.4]);
    }
}
