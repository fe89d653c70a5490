//! One card of a node's ledger.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::device::Device;
use crate::ids::ResourceName;
use crate::isolation::Isolation;
use crate::plan::{DeviceRef, Hold, Taken};
use crate::units::{Mib, Milli, Share};

/// What is taken of a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tallied {
    /// Without the memory of counted shares.
    used: Share,
    pods: u32,
    /// How many of the pods have counted shares.
    undivided: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    device: Device,
    pub(super) tallied: Tallied,
    /// Whether its node takes no pods, even if the card could.
    closed: bool,
}

impl Card {
    pub(super) fn new(device: Device) -> Self {
        Self { device, tallied: Tallied::default(), closed: false }
    }

    pub(super) fn close(&mut self, closed: bool) {
        self.closed = closed;
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What its pods take together; more than its capacity where it is overcommitted. Counted shares together take all
    /// of its memory.
    pub fn used(&self) -> Share {
        let undivided = if self.tallied.undivided > 0 { self.device.memory } else { Mib(0) };
        self.tallied.used.saturating_add(Share { compute: Milli(0), memory: undivided })
    }

    /// How many pods are on it. A pod that has it under several resources counts once for each.
    pub fn pods(&self) -> u32 {
        self.tallied.pods
    }

    /// Whether the card takes new pods: it is healthy and not cordoned, and its node takes pods.
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

    /// Whether nothing is taken and a new pod may have the whole card.
    pub fn untouched(&self) -> bool {
        self.tallied.pods == 0 && self.usable()
    }

    /// Whether its pods take more than it has: a record was changed, or the card shrank or came back.
    pub fn overcommitted(&self) -> bool {
        !self.used().fits_in(self.device.capacity())
    }

    /// Whether it has pods, and all of them have counted shares: it takes only more of those.
    pub fn undivided(&self) -> bool {
        self.tallied.undivided > 0 && self.tallied.undivided == self.tallied.pods
    }

    /// How many more counted shares of `resource` a new pod may have. Zero where the card is not offered under that
    /// name or has other pods.
    pub fn free_shares(&self, resource: &str) -> u32 {
        let open = self.undivided() || self.untouched();
        self.device.offers.get(resource).filter(|_| open).map_or(0, |shares| shares.within(self.free().compute))
    }

    /// The counted shares that it is offered as, by resource.
    pub fn offered(&self) -> BTreeMap<&ResourceName, Offered> {
        let free = |resource: &ResourceName| self.free_shares(resource.as_str());
        let offers = self.device.offers.iter();
        offers.map(|(name, shares)| (name, Offered { per_gpu: shares.get(), free: free(name) })).collect()
    }

    /// For people and for bug reports.
    pub fn report(&self) -> Value {
        let (device, used, free) = (&self.device, self.used(), self.free());
        json!({
            "gpu": device.id,
            "index": device.index,
            "model": device.model,
            "memory_mib": device.memory,
            "health": device.health,
            "cordoned": device.cordoned,
            "pods": self.pods(),
            "used_compute": used.compute,
            "used_memory_mib": used.memory,
            "free_compute": free.compute,
            "free_memory_mib": free.memory,
            "overcommitted": self.overcommitted(),
            "shares": self.offered(),
        })
    }

    pub(super) fn take(&mut self, taken: &Taken) {
        let share = match taken {
            Taken::Part(share) => *share,
            Taken::Whole(share) => (*share).max(self.device.capacity()),
            // the node's offer decides the size of a share; the record only where the node has no offer any more
            Taken::Counted(counted, recorded) => {
                let offered = self.device.offers.get(&counted.resource);
                let compute = offered.map_or(*recorded, |shares| shares.compute_of(counted.count));
                self.tallied.undivided += 1;
                Share { compute, memory: Mib(0) }
            }
        };
        self.tallied.used = self.tallied.used.saturating_add(share);
        self.tallied.pods += 1;
    }

    /// Whether a plan means this card. Where either side has only an index (an old record, or a node without
    /// inventory), the index decides.
    pub fn is(&self, device: &DeviceRef) -> bool {
        let own = &self.device;
        let by_index = || device.id.as_index() == Some(own.index) || own.id.as_index() == Some(device.index);
        own.id == device.id || by_index()
    }

    /// Whether a pod whose cards are not known may take this of this card.
    pub fn may_have(&self, taken: &Taken) -> bool {
        match taken {
            Taken::Part(_) | Taken::Whole(_) => true,
            Taken::Counted(counted, _) => self.device.offers.contains_key(&counted.resource),
        }
    }

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Offered {
    pub per_gpu: u32,
    /// See [`Card::free_shares`].
    pub free: u32,
}

/// What the planner needs of a card, packed: memory bandwidth bounds the filtering of thousands of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// See [`Card::free`].
    pub free: Share,
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

pub(super) fn take(cards: &mut [Card], hold: &Hold) {
    if let Some(card) = cards.iter_mut().find(|card| card.is(&hold.device)) {
        card.take(&hold.taken);
    }
}
