//! Pods that exchange their cards.
//!
//! kubelet may start two interchangeable pods in another order than planned; the node's plugin then corrects both
//! records, one write after the other. Between the writes, the first pod's record names the second pod's card, and no
//! record names the card that it left, although the second pod is on it. So what a moved record leaves stays taken
//! until other records have moved as much onto the card, or a time limit passes. What a record gained on a card earlier
//! is offset against what the other record then leaves there, so pairs and longer cycles end with nothing in transit.

use std::collections::BTreeMap;

use super::card::Card;
use crate::ids::{DeviceId, ResourceName};
use crate::plan::{DeviceRef, Hold, Taken};
use crate::shares::Counted;
use crate::units::{Mib, Milli, Share, Timestamp};

/// What records have left on one card, less what others have gained there.
#[derive(Clone, Debug, Default)]
struct Balance {
    index: u32,
    compute: i64,
    memory: i64,
    whole: i64,
    count: i64,
}

impl Balance {
    fn add(&mut self, taken: &Taken, sign: i64) {
        match taken {
            Taken::Whole(_) => {
                self.whole += sign;
                return;
            }
            Taken::Part(_) => {}
            Taken::Counted(counted, _) => self.count += sign * i64::from(counted.count),
        }
        let share = taken.share();
        self.compute += sign * i64::from(share.compute.0);
        self.memory = self.memory.saturating_add(sign * i64::try_from(share.memory.0).unwrap_or(i64::MAX));
    }

    fn even(&self) -> bool {
        (self.compute, self.memory, self.whole, self.count) == (0, 0, 0, 0)
    }

    fn hold(&self, device: &DeviceId, resource: Option<&ResourceName>) -> Option<Hold> {
        let number = |value: i64| u32::try_from(value.max(0)).unwrap_or(u32::MAX);
        let share =
            Share { compute: Milli(number(self.compute)), memory: Mib(u64::try_from(self.memory).unwrap_or(0)) };
        let taken = match resource {
            Some(_) if self.count <= 0 => return None,
            Some(resource) => {
                let counted = Counted { resource: resource.clone(), count: number(self.count) };
                Taken::Counted(counted, share.compute)
            }
            None if self.whole > 0 => Taken::Whole(share),
            None if share == Share::ZERO => return None,
            None => Taken::Part(share),
        };
        Some(Hold { device: DeviceRef { id: device.clone(), index: self.index }, taken })
    }
}

/// The open balances of one node, by card id and, for counted shares, resource. Not by index: after a restart another
/// card may have it.
#[derive(Clone, Debug, Default)]
pub(super) struct Transit {
    cards: BTreeMap<(DeviceId, Option<ResourceName>), Balance>,
    /// When open balances are dropped; set by the first [`Transit::expire`] after a move.
    until: Option<Timestamp>,
}

impl Transit {
    /// A pod's record has changed from `before` to `after`. `cards` of the node: a card may have two names, id and
    /// index.
    pub(super) fn moved(&mut self, before: &[Hold], after: &[Hold], cards: &[Card]) {
        for (hold, sign) in before.iter().map(|hold| (hold, 1)).chain(after.iter().map(|hold| (hold, -1))) {
            let card = cards.iter().find(|card| card.is(&hold.device)).map(Card::device);
            let (id, index) = card.map_or((&hold.device.id, hold.device.index), |card| (&card.id, card.index));
            let none = Balance { index, ..Balance::default() };
            let key = (id.clone(), hold.taken.resource().cloned());
            self.cards.entry(key).or_insert(none).add(&hold.taken, sign);
        }
        self.cards.retain(|_, balance| !balance.even());
        self.until = None;
    }

    /// What is taken in addition to the records.
    pub(super) fn holds(&self) -> impl Iterator<Item = Hold> {
        self.cards.iter().filter_map(|((device, resource), balance)| balance.hold(device, resource.as_ref()))
    }

    /// Drops what is open for longer than `patience` milliseconds. True where there was anything.
    pub(super) fn expire(&mut self, now: Timestamp, patience: u64) -> bool {
        if self.cards.is_empty() {
            return false;
        }
        let over = *self.until.get_or_insert(now.plus(patience)) <= now;
        if over {
            *self = Self::default();
        }
        over
    }
}
