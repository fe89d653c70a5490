//! One card of a node's ledger.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::device::Device;
use crate::ids::ResourceName;
use crate::isolation::Isolation;
use crate::plan::{DeviceRef, Hold, Taken};
use crate::units::{Mib, Milli, Share};

/// One card and what is taken of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    device: Device,
    /// Without the memory of shares by count.
    used: Share,
    pods: u32,
    /// How many of the pods have shares by count.
    undivided: u32,
    /// Whether its node takes no pod, whatever the card is like.
    closed: bool,
}

impl Card {
    pub(super) fn new(device: Device) -> Self {
        Self { device, used: Share::ZERO, pods: 0, undivided: 0, closed: false }
    }

    pub(super) fn close(&mut self, closed: bool) {
        self.closed = closed;
    }

    pub(super) fn clear(&mut self) {
        self.used = Share::ZERO;
        self.pods = 0;
        self.undivided = 0;
    }

    /// The card itself.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What its pods take together; more than its capacity where it is overcommitted. Shares by count have all of its
    /// memory among them.
    pub fn used(&self) -> Share {
        let undivided = if self.undivided > 0 { self.device.memory } else { Mib(0) };
        self.used.saturating_add(Share { compute: Milli(0), memory: undivided })
    }

    /// How many pods are on it. One that has it by several resources counts for each.
    pub fn pods(&self) -> u32 {
        self.pods
    }

    /// Whether a new pod may be put here at all: the card is healthy and not cordoned, and its node is open
    /// to pods.
    pub fn usable(&self) -> bool {
        self.device.usable() && !self.closed
    }

    /// What a new pod may take: nothing where the card is not usable or overcommitted.
    pub fn free(&self) -> Share {
        if self.usable() && !self.overcommitted() {
            self.device.capacity().saturating_sub(self.used())
        } else {
            Share::ZERO
        }
    }

    /// Whether nothing at all is taken and a new pod may have it whole.
    pub fn untouched(&self) -> bool {
        self.pods == 0 && self.usable()
    }

    /// Whether its pods take more than it has: a record was changed, or a card shrank or came back.
    pub fn overcommitted(&self) -> bool {
        !self.used().fits_in(self.device.capacity())
    }

    /// Whether it has pods, and all of them have shares by count: it takes more of such, and nothing else.
    pub fn undivided(&self) -> bool {
        self.undivided > 0 && self.undivided == self.pods
    }

    /// How many more shares by count of `resource` a new pod may have: those that are free, where the card is offered
    /// by that name and has no pods but such.
    pub fn free_shares(&self, resource: &str) -> u32 {
        let open = self.undivided() || self.untouched();
        self.device.offers.get(resource).filter(|_| open).map_or(0, |shares| shares.within(self.free().compute))
    }

    /// The shares by count that it is offered as, by resource.
    pub fn offered(&self) -> BTreeMap<&ResourceName, Offered> {
        let free = |resource: &ResourceName| self.free_shares(resource.as_str());
        let offers = self.device.offers.iter();
        offers.map(|(name, shares)| (name, Offered { per_gpu: shares.get(), free: free(name) })).collect()
    }

    pub(super) fn take(&mut self, taken: &Taken) {
        let share = match taken {
            Taken::Part(share) => *share,
            Taken::Whole(share) => (*share).max(self.device.capacity()),
            // what a share is, the card's node says; only where it says no more, the record
            Taken::Counted(counted, recorded) => {
                let offered = self.device.offers.get(&counted.resource);
                let compute = offered.map_or(*recorded, |shares| shares.compute_of(counted.count));
                self.undivided += 1;
                Share { compute, memory: Mib(0) }
            }
        };
        self.used = self.used.saturating_add(share);
        self.pods += 1;
    }

    /// Whether a plan means this card. Where one of the two names only an index (an old record, or a node without
    /// inventory) the index decides.
    pub(super) fn is(&self, device: &DeviceRef) -> bool {
        let (own, index) = (&self.device, device.id.as_index());
        own.id == device.id || index == Some(own.index) || own.id.as_index() == Some(device.index)
    }

    /// Whether a pod of which it is not known on which cards it is may take this of this one.
    pub(super) fn may_have(&self, taken: &Taken) -> bool {
        match taken {
            Taken::Part(_) | Taken::Whole(_) => true,
            Taken::Counted(counted, _) => self.device.offers.contains_key(&counted.resource),
        }
    }
}

/// Shares by count of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Offered {
    /// How many it has.
    pub per_gpu: u32,
    /// How many a new pod may have ([`Card::free_shares`]).
    pub free: u32,
}

/// What the planner needs to know of a card, packed: filtering thousands of nodes is bound by how much memory it
/// must look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// See [`Card::free`].
    pub free: Share,
    /// All of the card.
    pub capacity: Share,
    /// See [`Device::index`].
    pub index: u32,
    /// See [`Card::untouched`].
    pub untouched: bool,
    /// See [`Card::undivided`].
    pub undivided: bool,
    /// See [`Card::usable`].
    pub usable: bool,
    /// See [`Device::isolation`].
    pub isolation: Isolation,
}

impl Card {
    pub(super) fn room(&self) -> Room {
        Room {
            free: self.free(),
            capacity: self.device.capacity(),
            index: self.device.index,
            untouched: self.untouched(),
            undivided: self.undivided(),
            usable: self.usable(),
            isolation: self.device.isolation,
        }
    }
}

/// What is taken of a card, to go back to.
pub(super) type Tallied = (Share, u32, u32);

impl Card {
    pub(super) fn tallied(&self) -> Tallied {
        (self.used, self.pods, self.undivided)
    }

    pub(super) fn restart(&mut self, tallied: Tallied) {
        (self.used, self.pods, self.undivided) = tallied;
    }
}

/// Takes a hold from its card, if the node has that card.
pub(super) fn take(cards: &mut [Card], hold: &Hold) {
    if let Some(card) = cards.iter_mut().find(|card| card.is(&hold.device)) {
        card.take(&hold.taken);
    }
}
