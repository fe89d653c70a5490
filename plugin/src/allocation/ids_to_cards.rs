//! Which GPUs a container has, by the ids that it holds.

use std::collections::BTreeMap;

use kerf::ids::{ContainerName, DeviceId, ResourceName};
use kerf::plan::{CountedDevice, DeviceRef, Grant};

use crate::allocation::allocations::Allocations;
use crate::allocation::pod::Key;
use crate::device::ids::{Ids, Resource};

impl Allocations {
    /// The container has the GPUs that were answered for its ids of core. Where the answer is not known, it has
    /// those of its record: the answer was made from it. Of shares by count it has the GPUs that its ids name.
    /// Returns whether these differ from the record.
    pub(super) fn believe(&mut self, key: &Key, resource: &Resource, ids: &Ids) -> bool {
        let Some(entry) = self.pods.get(&key.pod) else { return false };
        let Some(grant) = entry.grant(&key.container) else { return false };
        let real = match resource {
            Resource::Core => self.answers.of(key, ids).and_then(|cards| {
                let cards = cards.iter().map(|(device, share)| (device.clone(), share.memory));
                Grant::of(entry.ask(&key.container)?, cards)
            }),
            Resource::Memory => None,
            Resource::Counted(name) => {
                let counted = |devices| Grant::Counted { resource: name.clone(), devices };
                self.shares(name, ids).map(counted)
            }
        };
        let Some(real) = real.filter(|real| self.places(&grant.gpus) != self.places(real)) else { return false };
        if let Some(other) = self.waits_on(key, resource, &real) {
            self.swap_cards(&other, key);
            return true;
        }
        let entry = self.pods.get_mut(&key.pod);
        if let Some(grant) = entry.and_then(|entry| entry.correct(&key.container)) {
            grant.gpus = real;
        }
        true
    }

    /// The GPUs, and how many shares by count of each.
    fn places(&self, grant: &Grant) -> BTreeMap<DeviceId, Option<u32>> {
        let name = |device: &DeviceId| self.card(device).map_or_else(|| device.clone(), |card| card.id.clone());
        match grant {
            Grant::Share { .. } | Grant::Whole(_) => grant.ids().map(|id| (name(id), None)).collect(),
            Grant::Counted { devices, .. } => {
                devices.iter().map(|one| (name(&one.device.id), Some(one.count))).collect()
            }
        }
    }

    /// The GPUs and shares that these ids by count name; `None` where an id names no GPU of this node.
    pub(super) fn shares(&self, resource: &ResourceName, ids: &Ids) -> Option<Vec<CountedDevice>> {
        let cards = ids.cards();
        let devices = cards.iter().map(|(card, count)| self.counted(resource, card, u32::try_from(*count).ok()?));
        let mut devices = devices.collect::<Option<Vec<CountedDevice>>>()?;
        devices.sort_by(in_order);
        (cards.values().sum::<u64>() == ids.len()).then_some(devices)
    }

    pub(super) fn counted(&self, resource: &ResourceName, card: &str, count: u32) -> Option<CountedDevice> {
        let card = self.cards.get(card)?;
        let compute = card.offers.get(resource)?.compute_of(count);
        Some(CountedDevice { device: DeviceRef { id: card.id.clone(), index: card.index }, count, compute })
    }

    /// A container that asks for the same as `key`, still waits, and was placed on these GPUs: they are not free
    /// for it any more.
    fn waits_on(&self, key: &Key, resource: &Resource, cards: &Grant) -> Option<Key> {
        let cards = self.places(cards);
        self.pods.values().filter(|entry| entry.pod.uid != key.pod && !entry.complete()).find_map(|entry| {
            let waits = |name: &ContainerName| entry.claim(name).is_none_or(|claim| claim.ids(resource).is_none());
            let placed =
                |name: &ContainerName| entry.grant(name).is_some_and(|grant| self.places(&grant.gpus) == cards);
            let names = entry.pod.request.containers.iter().map(|container| &container.name);
            names
                .filter(|name| waits(name) && placed(name))
                .map(|name| Key { pod: entry.pod.uid.clone(), container: name.clone() })
                .find(|other| self.alike(key, other))
        })
    }
}

/// The order in which a record names GPUs.
pub(super) fn in_order(a: &CountedDevice, b: &CountedDevice) -> std::cmp::Ordering {
    (a.device.index, &a.device.id).cmp(&(b.device.index, &b.device.id))
}
