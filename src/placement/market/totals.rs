//! Sums of what is free in the whole cluster.

use super::super::shape::Kinds;
use super::host::Host;
use super::offer::Facts;

/// Whole numbers, so that the sums do not depend on their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub compute: u64,
    /// Compute of all cards, free or not.
    pub capacity: u64,
    /// Free compute by kind of card.
    pub by_kind: Vec<u64>,
    pub whole: u64,
    /// For each room of the outlook, how many such pods fit.
    pub slots: Vec<u64>,
    /// In 1/1024 of a thousandth of a card.
    worth: u64,
}

impl Totals {
    /// Without machines; numbers of kinds of card and of rooms.
    pub fn new(kinds: usize, rooms: usize) -> Self {
        Self { by_kind: vec![0; kinds], slots: vec![0; rooms], ..Self::default() }
    }

    pub fn free_of(&self, kinds: Kinds) -> u64 {
        (0..).zip(&self.by_kind).filter(|(kind, _)| kinds.contains(*kind)).map(|(_, free)| free).sum()
    }

    pub fn worth(&self) -> f64 {
        self.worth as f64 / 1024.0
    }

    pub fn change(&mut self, host: &Host, facts: &Facts, slots: &[u64], by: impl Fn(u64, u64) -> u64) {
        for slot in &host.slots {
            let free = u64::from(slot.free.compute.0);
            if let Some(sum) = self.by_kind.get_mut(usize::from(slot.kind)) {
                *sum = by(*sum, free);
            }
            self.capacity = by(self.capacity, slot.capacity.compute.0.into());
            self.whole = by(self.whole, slot.whole.into());
        }
        self.compute = by(self.compute, facts.compute);
        self.worth = by(self.worth, facts.exact_worth());
        self.slots.iter_mut().zip(slots).for_each(|(sum, slots)| *sum = by(*sum, *slots));
    }
}
