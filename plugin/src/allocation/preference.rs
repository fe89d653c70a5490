//! GetPreferredAllocation: which ids to offer, so that they name the placed GPUs. Never fails.

use std::collections::{BTreeMap, BTreeSet};

use kerf::ids::DeviceId;
use kerf::plan::{Form, Grant};

use crate::allocation::allocations::Allocations;
use crate::allocation::pod::Key;
use crate::device::ids::{self, Resource};
use crate::device::preferred::PreferredDevices;

impl Allocations {
    /// What is known of the container that kubelet is expected to ask for with this number of shares.
    pub fn preferred_devices(&self, resource: &Resource, units: u64) -> PreferredDevices {
        let key = self.callers(resource, units, None).ok().and_then(|callers| callers.keys().next().cloned());
        let own = key.as_ref().map(|key| &key.pod);
        let mut preferred = PreferredDevices::default();
        for entry in self.pods.values() {
            let Some(placement) = entry.placement() else { continue };
            let plan = self.resolve(&placement.plan);
            if let Some(key) = key.as_ref().filter(|key| key.pod == entry.pod.uid) {
                let own =
                    plan.grants.iter().filter(|grant| grant.container == key.container && counts(grant, resource));
                let slices = own.flat_map(|grant| &grant.slices);
                preferred.cards = slices.map(|slice| (slice.device.clone(), slice.count)).collect();
            }
            if Some(&entry.pod.uid) != own {
                let others = plan.grants.iter().filter(|grant| !counts(grant, resource));
                preferred.closed.extend(others.flat_map(Grant::devices).cloned());
            }
        }
        preferred
    }

    /// Chooses `size` of the `available` ids, the `required` ones first.
    ///
    /// The rest come from the GPUs of the container that kubelet is expected to ask for; where that is not
    /// known or they do not suffice, from as few other GPUs as possible. Fewer than `size` only where there are
    /// no more.
    pub fn prefer(
        &self,
        resource: &Resource,
        available: &[String],
        required: &[String],
        size: usize,
    ) -> Vec<String> {
        let mut chosen: Vec<String> = Vec::with_capacity(size.min(available.len() + required.len()));
        let mut taken: BTreeSet<&str> = BTreeSet::new();
        for id in required {
            if chosen.len() < size && taken.insert(id) {
                chosen.push(id.clone());
            }
        }
        let mut by_card: BTreeMap<&str, Vec<(u32, &String)>> = BTreeMap::new();
        for id in available.iter().filter(|id| !taken.contains(id.as_str())) {
            let (card, k) = match ids::card(id) {
                Some(card) => (card, id.rsplit("::").next().and_then(|k| k.parse().ok()).unwrap_or(0)),
                None => ("", 0),
            };
            by_card.entry(card).or_default().push((k, id));
        }
        for ids in by_card.values_mut() {
            ids.sort_unstable();
            ids.dedup();
        }
        let placed = self.expected(resource, size as u64).map(|key| self.cards_of(&key)).unwrap_or_default();
        let mut order: Vec<&str> =
            placed.iter().map(DeviceId::as_str).filter(|card| by_card.contains_key(card)).collect();
        let mut others: Vec<&str> = by_card.keys().copied().filter(|card| !order.contains(card)).collect();
        let missing = size.saturating_sub(chosen.len());
        let count = |card: &&str| by_card.get(*card).map_or(0, Vec::len);
        // the tightest card that has enough; if none has, the fullest first
        others.sort_by_key(|card| {
            let n = count(card);
            (n < missing, if n < missing { usize::MAX - n } else { n })
        });
        order.append(&mut others);
        for card in order {
            let room = size.saturating_sub(chosen.len());
            chosen.extend(by_card.get(card).into_iter().flatten().take(room).map(|(_, id)| (*id).clone()));
        }
        chosen
    }

    /// The container that kubelet is expected to ask for with this amount.
    fn expected(&self, resource: &Resource, units: u64) -> Option<Key> {
        let callers = self.callers(resource, units, None).ok()?;
        let fits =
            |key: &&Key| self.pods.get(&key.pod).is_some_and(|entry| self.room(entry, &key.container).is_ok());
        callers.keys().find(fits).or(callers.keys().next()).cloned()
    }

    fn cards_of(&self, key: &Key) -> Vec<DeviceId> {
        let grant = self.pods.get(&key.pod).and_then(|entry| entry.grant(&key.container));
        let devices = grant.into_iter().flat_map(|grant| grant.devices());
        devices.filter_map(|device| self.card(device)).map(|card| card.id.clone()).collect()
    }
}

/// Whether a container has shares by count of this resource.
fn counts(grant: &Grant, resource: &Resource) -> bool {
    matches!((&grant.form, resource), (Form::Counted(own), Resource::Counted(name)) if own == name)
}
