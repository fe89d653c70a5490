//! Which GPUs' ids kubelet is advised to take, so that its checkpoint names the GPUs on the record.

use kerf::ids::DeviceId;
use kerf::plan::{ContainerGrant, CountedDevice, Grant};

use crate::allocation::{Allocations, Key};
use crate::device::ids::Resource;
use crate::device::preferred::PreferredDevices;

impl Allocations {
    /// The GPUs whose ids the container should get that kubelet is expected to ask for with this number of ids.
    pub fn preferred_devices(&self, resource: &Resource, units: u64) -> PreferredDevices {
        if let Resource::Counted(_) = resource {
            return self.preferred_shares(resource, units);
        }
        let placed = self.expected(resource, units).map(|key| self.cards_of(&key)).unwrap_or_default();
        PreferredDevices { cards: placed.into_iter().map(|card| (card, None)).collect(), ..Default::default() }
    }

    fn preferred_shares(&self, resource: &Resource, units: u64) -> PreferredDevices {
        let key = self.callers(resource, units, None).ok().and_then(|callers| callers.keys().next().cloned());
        let mut preferred = PreferredDevices::default();
        for entry in self.pods.values() {
            let Some(placement) = &entry.placement else { continue };
            let plan = self.resolve(&placement.plan);
            if let Some(key) = key.as_ref().filter(|key| key.pod == entry.pod.uid) {
                let own = plan.grants.iter().filter(|grant| grant.container == key.container);
                let counted = own.filter_map(|grant| counted(grant, resource)).flatten();
                preferred.cards = counted.map(|one| (one.device.id.clone(), Some(one.count))).collect();
            } else {
                let others = plan.grants.iter().filter(|grant| counted(grant, resource).is_none());
                preferred.closed.extend(others.flat_map(|grant| grant.gpus.ids()).cloned());
            }
        }
        preferred
    }

    fn expected(&self, resource: &Resource, units: u64) -> Option<Key> {
        let callers = self.callers(resource, units, None).ok()?;
        let fits =
            |key: &&Key| self.pods.get(&key.pod).is_some_and(|entry| self.room(entry, &key.container).is_ok());
        callers.keys().find(fits).or(callers.keys().next()).cloned()
    }

    fn cards_of(&self, key: &Key) -> Vec<DeviceId> {
        let devices = self.granted(key).into_iter().flat_map(|grant| grant.gpus.ids());
        devices.filter_map(|device| self.card(device)).map(|card| card.id.clone()).collect()
    }
}

/// The shares by count of this resource that a container has; `None` where it has its GPUs otherwise.
fn counted<'a>(grant: &'a ContainerGrant, resource: &Resource) -> Option<&'a [CountedDevice]> {
    match (&grant.gpus, resource) {
        (Grant::Counted { resource: own, devices }, Resource::Counted(name)) if own == name => Some(devices),
        _ => None,
    }
}
