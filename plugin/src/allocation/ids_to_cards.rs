//! Which GPUs a container has, by the ids that it holds.

use std::collections::BTreeMap;

use kerf::ids::{ContainerName, DeviceId, ResourceName};
use kerf::plan::{Form, Slice};
use kerf::units::{Mib, Share};

use crate::allocation::allocations::Allocations;
use crate::allocation::pod::Key;
use crate::device::ids::{Ids, Resource};

impl Allocations {
    /// The container has the GPUs that were answered for its ids of core. Where the answer is not known, it has those of
    /// its record: that is what it was answered from. Of shares by count it has the GPUs
    /// that its ids name. Whether these are others than were recorded.
    pub(super) fn believe(&mut self, key: &Key, resource: &Resource, ids: &Ids) -> bool {
        let Some(grant) = self.pods.get(&key.pod).and_then(|entry| entry.grant(&key.container)) else {
            return false;
        };
        let real = match resource {
            Resource::Core => self.answers.of(key, ids).cloned().filter(|real| real.len() == grant.slices.len()),
            Resource::Memory => None,
            Resource::Counted(name) => self.shares(name, ids),
        };
        let Some(real) = real.filter(|real| self.places(&grant.slices) != self.places(real)) else { return false };
        if let Some(other) = self.waits_on(key, resource, &real) {
            self.swap_cards(&other, key);
            return true;
        }
        let entry = self.pods.get_mut(&key.pod);
        if let Some(grant) = entry.and_then(|entry| entry.correct(&key.container)) {
            if let Form::Counted(_) = grant.form {
                grant.slices = real;
                return true;
            }
            let whole = grant.is_whole();
            for (slice, real) in grant.slices.iter_mut().zip(real) {
                let share = if whole { real.share } else { slice.share };
                *slice = Slice { share, ..real };
            }
        }
        true
    }

    /// The GPUs, and how many shares by count of each.
    fn places(&self, slices: &[Slice]) -> BTreeMap<DeviceId, u32> {
        let name = |device: &DeviceId| self.card(device).map_or_else(|| device.clone(), |card| card.id.clone());
        slices.iter().map(|slice| (name(&slice.device), slice.count)).collect()
    }

    /// What these ids of shares by count are; `None` where one names no GPU of this node.
    pub(super) fn shares(&self, resource: &ResourceName, ids: &Ids) -> Option<Vec<Slice>> {
        let cards = ids.cards();
        let slices = cards.iter().map(|(card, count)| self.slice(resource, card, u32::try_from(*count).ok()?));
        let mut slices = slices.collect::<Option<Vec<Slice>>>()?;
        slices.sort_by(|a, b| (a.index, &a.device).cmp(&(b.index, &b.device)));
        (cards.values().sum::<u64>() == ids.len()).then_some(slices)
    }

    /// So many shares of a GPU that is offered as such.
    pub(super) fn slice(&self, resource: &ResourceName, card: &str, count: u32) -> Option<Slice> {
        let card = self.cards.get(card)?;
        let compute = card.offers.get(resource)?.compute_of(count);
        let (device, share) = (card.id.clone(), Share { compute, memory: Mib(0) });
        Some(Slice { device, index: card.index, share, count })
    }

    /// A container that asks for the same as `key`, still waits, and was placed on these GPUs: they are not free
    /// for it any more.
    fn waits_on(&self, key: &Key, resource: &Resource, cards: &[Slice]) -> Option<Key> {
        let cards = self.places(cards);
        self.pods.values().filter(|entry| entry.pod.uid != key.pod && !entry.complete()).find_map(|entry| {
            let waits = |name: &ContainerName| entry.claim(name).is_none_or(|claim| claim.ids(resource).is_none());
            let placed =
                |name: &ContainerName| entry.grant(name).is_some_and(|grant| self.places(&grant.slices) == cards);
            let names = entry.pod.request.containers.iter().map(|container| &container.name);
            names
                .filter(|name| waits(name) && placed(name))
                .map(|name| Key { pod: entry.pod.uid.clone(), container: name.clone() })
                .find(|other| self.alike(key, other))
        })
    }
}
