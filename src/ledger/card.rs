//! One card of a node's ledger.

use crate::device::Device;
use crate::isolation::Isolation;
use crate::plan::Hold;
use crate::units::{Milli, Share};

/// One card and what is taken of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    device: Device,
    used: Share,
    pods: u32,
}

impl Card {
    pub(super) fn new(device: Device) -> Self {
        Self { device, used: Share::ZERO, pods: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.used = Share::ZERO;
        self.pods = 0;
    }

    /// The card itself.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What its pods take together; more than its capacity where it is overcommitted.
    pub fn used(&self) -> Share {
        self.used
    }

    /// How many pods are on it.
    pub fn pods(&self) -> u32 {
        self.pods
    }

    /// What a new pod may take: nothing where the card is ill, cordoned or overcommitted.
    pub fn free(&self) -> Share {
        if self.device.usable() && !self.overcommitted() {
            self.device.capacity().saturating_sub(self.used)
        } else {
            Share::ZERO
        }
    }

    /// Whether nothing at all is taken and a new pod may have it whole.
    pub fn untouched(&self) -> bool {
        self.pods == 0 && self.device.usable()
    }

    /// Whether its pods take more than it has: a record was changed, or a card shrank or came back.
    pub fn overcommitted(&self) -> bool {
        !self.used.fits_in(self.device.capacity())
    }

    pub(super) fn take(&mut self, share: Share, whole: bool) {
        let capacity = self.device.capacity();
        let memory = if whole { share.memory.max(capacity.memory) } else { share.memory };
        let compute = if whole { share.compute.max(Milli::WHOLE) } else { share.compute };
        self.used = self.used.saturating_add(Share { compute, memory });
        self.pods += 1;
    }
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
    /// See [`Device::usable`].
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
            usable: self.device.usable(),
            isolation: self.device.isolation,
        }
    }
}

/// Takes a hold from its card, if the node has that card. Where one of the two names only an index (an old record,
/// or a node without inventory) the index decides.
pub(super) fn take(cards: &mut [Card], hold: &Hold) {
    let index = hold.device.as_index();
    let own = |device: &Device| {
        device.id == hold.device || index == Some(device.index) || device.id.as_index() == Some(hold.index)
    };
    if let Some(card) = cards.iter_mut().find(|card| own(&card.device)) {
        card.take(hold.share, hold.whole);
    }
}
