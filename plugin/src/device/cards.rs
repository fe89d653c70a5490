//! The node's cards, and the lists of ids that kubelet is told.
//!
//! A card that was here once stays listed, as unhealthy: removing its ids would lower the node's capacity and
//! make kubelet refuse pods that hold them. The ids are those of [`crate::device::ids`].

use std::collections::BTreeMap;

use kerf::device::{Device, Health, Inventory};
use kerf::ids::DeviceId;
use kerf::isolation::Isolation;
use kerf_proto::deviceplugin;

use crate::device::backend::HostDevice;
use crate::device::ids::{self, CORE_IDS_PER_CARD, Resource};

/// Every card that was seen since the start, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cards {
    hosts: BTreeMap<DeviceId, HostDevice>,
}

impl Cards {
    /// What is known after a discovery: new facts, and cards that are missing from it as unhealthy.
    #[must_use]
    pub fn discovered(&self, found: Vec<HostDevice>) -> Self {
        let mut hosts: BTreeMap<_, _> = found.into_iter().map(|host| (host.device.id.clone(), host)).collect();
        for (id, host) in &self.hosts {
            hosts.entry(id.clone()).or_insert_with(|| {
                let mut lost = host.clone();
                lost.device.health = Health::Unhealthy;
                lost
            });
        }
        Self { hosts }
    }

    /// The same cards in other health; one that `health` does not name is unhealthy.
    #[must_use]
    pub fn with_health(&self, health: &BTreeMap<DeviceId, Health>) -> Self {
        let mut cards = self.clone();
        for (id, host) in &mut cards.hosts {
            host.device.health = health.get(id).copied().unwrap_or(Health::Unhealthy);
        }
        cards
    }

    /// The same cards, with what enforces shares of each.
    #[must_use]
    pub fn with_isolation(&self, level: impl Fn(&HostDevice) -> Isolation) -> Self {
        let mut cards = self.clone();
        for host in cards.hosts.values_mut() {
            host.device.isolation = level(host);
        }
        cards
    }

    /// The cards, in order of id.
    pub fn hosts(&self) -> impl Iterator<Item = &HostDevice> {
        self.hosts.values()
    }

    /// One card.
    pub fn get(&self, id: &DeviceId) -> Option<&HostDevice> {
        self.hosts.get(id)
    }

    /// Whether exactly these cards are known.
    pub fn are<'a>(&self, ids: impl ExactSizeIterator<Item = &'a DeviceId>) -> bool {
        ids.len() == self.hosts.len() && ids.into_iter().all(|id| self.hosts.contains_key(id))
    }

    /// The cards as the node publishes them. Two with one index (a card was replaced) stay both.
    pub fn inventory(&self) -> Inventory {
        Inventory::new(self.hosts.values().map(|host| host.device.clone()).collect())
    }

    /// What ListAndWatch sends for `resource`. Not where the cards are: kubelet would align ids, and an id names the card
    /// that its container was meant to have, not the one on the pod's record, so pods could be rejected for ever for want
    /// of ids of the right NUMA node.
    pub fn list(&self, resource: &Resource) -> Vec<deviceplugin::Device> {
        let mut list = Vec::new();
        for host in self.hosts.values() {
            let device = &host.device;
            let health = match device.health {
                Health::Healthy => deviceplugin::HEALTHY,
                Health::Unhealthy => deviceplugin::UNHEALTHY,
            };
            list.extend((0..count(device, resource)).map(|k| deviceplugin::Device {
                id: ids::unit(device.id.as_str(), k),
                health: health.to_owned(),
                topology: None,
            }));
        }
        list
    }
}

fn count(device: &Device, resource: &Resource) -> u32 {
    match resource {
        Resource::Core => CORE_IDS_PER_CARD,
        Resource::Memory => u32::try_from(device.memory.to_memory_units()).unwrap_or(u32::MAX).min(1 << 14),
        // those of a profile, in its own spelling
        Resource::Counted(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::backend::Origin;
    use crate::device::facts::Facts;
    use kerf::units::Mib;

    fn host(id: &str, memory: u64) -> HostDevice {
        let device = Device::new(id, 0, Mib(memory));
        let (origin, facts) = (Origin::default(), Facts::None);
        HostDevice { device, pci: String::new(), nodes: Vec::new(), control_nodes: Vec::new(), origin, facts }
    }

    #[test]
    fn ids_count_percents_and_whole_memory_units() {
        let cards = Cards::default().discovered(vec![host("a", 1023), host("b", 256)]);
        assert_eq!(cards.list(&Resource::Core).len(), 200);
        let memory: Vec<String> = cards.list(&Resource::Memory).into_iter().map(|d| d.id).collect();
        assert_eq!(memory, ["a::0", "a::1", "a::2", "b::0"]);
    }

    #[test]
    fn a_lost_card_stays_listed_as_unhealthy() {
        let cards = Cards::default().discovered(vec![host("a", 256), host("b", 256)]);
        let after = cards.discovered(vec![host("b", 256)]);
        let health: Vec<_> = after.list(&Resource::Memory).into_iter().map(|d| (d.id, d.health)).collect();
        assert_eq!(health, [("a::0".into(), "Unhealthy".into()), ("b::0".into(), "Healthy".into())]);
        assert_eq!(after.discovered(vec![host("a", 256), host("b", 256)]), cards);
        assert!(after.with_health(&BTreeMap::new()).hosts().all(|h| h.device.health == Health::Unhealthy));
    }

    #[test]
    fn kubelet_is_not_told_where_a_card_is() {
        let mut numa = host("a", 256);
        numa.device.numa = Some(1);
        let cards = Cards::default().discovered(vec![numa]);
        for resource in Resource::VCUDA {
            assert!(cards.list(&resource).iter().all(|device| device.topology.is_none()));
        }
    }
}
