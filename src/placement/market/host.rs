//! A machine as a policy sees it: what is free.

use super::super::shape::{Cards, Kind, Kinds, Shape};
use crate::units::{Mib, Share};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What a new pod may take; nothing where the card takes none.
    pub free: Share,
    pub capacity: Share,
    pub kind: Kind,
    /// Whether a new pod may have it whole.
    pub whole: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Thousandths of a core.
    pub cpu: u64,
    /// Thousandths of a core, free or not.
    pub cpu_capacity: u64,
    pub memory: Mib,
    /// Free or not.
    pub memory_capacity: Mib,
    /// How many more pods it may run.
    pub pods: u64,
    /// In order of index.
    pub slots: Vec<Slot>,
}

/// A [`Shape`] against the kinds of card that a cluster has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub cpu: u64,
    pub memory: u64,
    pub cards: Cards,
    /// Kinds of card that fit, by model and by memory.
    pub kinds: Kinds,
}

impl Need {
    /// `kinds`: model and memory of each kind in the cluster.
    pub fn new(shape: &Shape, kinds: &[(std::sync::Arc<str>, Mib)]) -> Self {
        let large = |memory: Mib| match shape.cards {
            Cards::Share(share) => share.memory <= memory,
            Cards::None | Cards::Whole(_) => true,
        };
        let does = |(model, memory): &(std::sync::Arc<str>, Mib)| {
            (shape.models.is_empty() || shape.models.contains(model)) && large(*memory)
        };
        let mut mask = Kinds::NONE;
        for (number, _) in (0..).zip(kinds).filter(|(_, kind)| does(kind)) {
            mask = mask.with(number);
        }
        Self { cpu: shape.cpu, memory: shape.memory.0, cards: shape.cards, kinds: mask }
    }

    /// How many pods of this need fit into these amounts of host resources and whole cards.
    pub fn slots(&self, cpu: u64, memory: u64, pods: u64, cards: u64) -> u64 {
        let by_cards = match self.cards {
            Cards::Whole(count) => cards.checked_div(count.into()).unwrap_or(u64::MAX),
            Cards::None | Cards::Share(_) => u64::MAX,
        };
        let by = |free: u64, each: u64| free.checked_div(each).unwrap_or(u64::MAX);
        by_cards.min(by(cpu, self.cpu)).min(by(memory, self.memory)).min(pods)
    }
}

impl Host {
    /// Free compute of all cards, in thousandths of a card.
    pub fn compute(&self) -> u64 {
        self.slots.iter().map(|slot| u64::from(slot.free.compute.0)).sum()
    }

    /// Free memory of all cards, in MiB.
    pub fn card_memory(&self) -> u64 {
        self.slots.iter().fold(0, |sum, slot| sum.saturating_add(slot.free.memory.0))
    }

    /// How many cards of these kinds are free as a whole.
    pub(super) fn whole(&self, kinds: Kinds) -> u64 {
        self.slots.iter().filter(|slot| slot.whole && kinds.contains(slot.kind)).count() as u64
    }

    /// Whether the machine has room, apart from its cards.
    pub(super) fn takes(&self, need: &Need) -> bool {
        self.cpu >= need.cpu && self.memory.0 >= need.memory && self.pods > 0
    }

    pub(super) fn fits(&self, need: &Need) -> bool {
        self.takes(need)
            && match need.cards {
                Cards::None => true,
                Cards::Share(share) => self.slots.iter().any(|slot| slot.takes(share, need.kinds)),
                Cards::Whole(count) => self.whole(need.kinds) >= count.into(),
            }
    }

    /// The positions of the first `count` free cards of these kinds.
    pub(super) fn first_whole(&self, kinds: Kinds, count: u32) -> impl Iterator<Item = usize> {
        let fitting =
            self.slots.iter().enumerate().filter(move |(_, slot)| slot.whole && kinds.contains(slot.kind));
        fitting.map(|(at, _)| at).take(count as usize)
    }

    /// Takes what a pod needs. The caller has checked that it fits.
    pub(super) fn take(&mut self, need: &Need, slots: &[usize]) {
        self.cpu = self.cpu.saturating_sub(need.cpu);
        self.memory.0 = self.memory.0.saturating_sub(need.memory);
        self.pods = self.pods.saturating_sub(1);
        for at in slots {
            if let Some(slot) = self.slots.get_mut(*at) {
                let part = slot.part(need.cards);
                slot.free = slot.free.saturating_sub(part);
                slot.whole = false;
            }
        }
    }

    /// Gives back what [`Host::take`] took.
    pub(super) fn give(&mut self, need: &Need, slots: &[usize]) {
        self.cpu = self.cpu.saturating_add(need.cpu);
        self.memory.0 = self.memory.0.saturating_add(need.memory);
        self.pods = self.pods.saturating_add(1);
        for at in slots {
            if let Some(slot) = self.slots.get_mut(*at) {
                let part = slot.part(need.cards);
                slot.free = slot.free.saturating_add(part);
                slot.whole = slot.free == slot.capacity;
            }
        }
    }
}

impl Slot {
    /// Whether a share fits on the card.
    pub(super) fn takes(&self, share: Share, kinds: Kinds) -> bool {
        share.fits_in(self.free) && kinds.contains(self.kind)
    }

    fn part(&self, cards: Cards) -> Share {
        match cards {
            Cards::None => Share::ZERO,
            Cards::Share(share) => share,
            Cards::Whole(_) => self.capacity,
        }
    }
}
