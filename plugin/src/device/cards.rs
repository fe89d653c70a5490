//! The node's GPUs, as one source shows them.
//!
//! A GPU that was present once stays listed, as unhealthy: removing its ids would lower the node's capacity and
//! make kubelet refuse pods that hold them.

use std::collections::BTreeMap;

use kerf::device::Health;
use kerf::ids::DeviceId;
use kerf::isolation::Isolation;

use crate::device::backend::HostDevice;

/// Every GPU that was seen since the start, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cards {
    hosts: BTreeMap<DeviceId, HostDevice>,
}

impl Cards {
    /// After a discovery: new facts, and GPUs that are missing from it as unhealthy.
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

    /// The same GPUs with this health; one that `health` does not name is unhealthy.
    #[must_use]
    pub fn with_health(&self, health: &BTreeMap<DeviceId, Health>) -> Self {
        let mut cards = self.clone();
        for (id, host) in &mut cards.hosts {
            host.device.health = health.get(id).copied().unwrap_or(Health::Unhealthy);
        }
        cards
    }

    /// The same GPUs, with the isolation of shares of each.
    #[must_use]
    pub fn with_isolation(&self, level: impl Fn(&HostDevice) -> Isolation) -> Self {
        let mut cards = self.clone();
        for host in cards.hosts.values_mut() {
            host.device.isolation = level(host);
        }
        cards
    }

    /// In order of id.
    pub fn hosts(&self) -> impl Iterator<Item = &HostDevice> {
        self.hosts.values()
    }

    pub fn get(&self, id: &DeviceId) -> Option<&HostDevice> {
        self.hosts.get(id)
    }

    /// Whether exactly these GPUs are known.
    pub fn are<'a>(&self, ids: impl ExactSizeIterator<Item = &'a DeviceId>) -> bool {
        ids.len() == self.hosts.len() && ids.into_iter().all(|id| self.hosts.contains_key(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::backend::Origin;
    use kerf::device::Device;
    use kerf::units::Mib;

    fn host(id: &str) -> HostDevice {
        HostDevice::new(Device::new(id, 0, Mib(256)), Origin::default())
    }

    #[test]
    fn a_lost_card_stays_listed_as_unhealthy() {
        let cards = Cards::default().discovered(vec![host("a"), host("b")]);
        let after = cards.discovered(vec![host("b")]);
        let health: Vec<_> = after.hosts().map(|host| (host.device.id.as_str(), host.device.health)).collect();
        assert_eq!(health, [("a", Health::Unhealthy), ("b", Health::Healthy)]);
        assert_eq!(after.discovered(vec![host("a"), host("b")]), cards);
        assert!(after.with_health(&BTreeMap::new()).hosts().all(|h| h.device.health == Health::Unhealthy));
    }
}
