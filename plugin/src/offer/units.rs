//! The ids of an offer on the node's GPUs. They are computed, not stored: a node may have thousands.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;

use kerf::device::{Device, Health};

use crate::device::backend::HostDevice;
use crate::device::ids::IdStyle;

/// The id of a resource that shows all GPUs.
pub const ALL: &str = "all";

/// What the ids of an offer count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// Percents of a GPU's compute.
    Percents,
    /// Units of 256 MiB of a GPU's memory; a remainder does not count.
    Memory,
    /// The number of shares of each GPU.
    Shares(u32),
    /// All GPUs at once, by a single id.
    All,
}

impl Units {
    /// How many ids a GPU has.
    pub fn of(self, device: &Device) -> u32 {
        match self {
            Self::Percents => 100,
            // beyond 4 TiB kubelet's lists would be too long
            Self::Memory => u32::try_from(device.memory.to_memory_units()).unwrap_or(u32::MAX).min(1 << 14),
            Self::Shares(shares) => shares,
            Self::All => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit<'a> {
    /// The GPU; for [`Units::All`] all of them.
    pub hosts: &'a [Arc<HostDevice>],
    /// The index of the share, from zero.
    pub share: u32,
}

impl<'a> Unit<'a> {
    /// The GPU that decides the id's NUMA node.
    pub fn host(&self) -> Option<&'a HostDevice> {
        self.hosts.first().map(AsRef::as_ref)
    }

    /// Whether every GPU that the id stands for is unhealthy or gone.
    pub fn unhealthy(&self) -> bool {
        self.hosts.iter().all(|host| host.device.health == Health::Unhealthy)
    }

    /// Whether it may be given out.
    pub fn usable(&self) -> bool {
        self.hosts.iter().any(|host| host.device.usable())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    ids: IdStyle,
    units: Units,
    /// The GPUs that [`ALL`] names.
    together: Vec<Arc<HostDevice>>,
    /// The GPUs that have ids of their own, by the first part of these.
    each: BTreeMap<String, Arc<HostDevice>>,
}

impl Pool {
    /// Ids of this style, as many of each GPU as `units` says.
    pub fn new(ids: IdStyle, units: Units, hosts: Vec<Arc<HostDevice>>) -> Self {
        let base = |host: &HostDevice| ids.base(host.device.id.as_str(), &host.origin.name).to_owned();
        let (together, each) = match units {
            Units::All => (hosts, BTreeMap::new()),
            _ => (Vec::new(), hosts.into_iter().map(|host| (base(&host), host)).collect()),
        };
        Self { ids, units, together, each }
    }

    /// The GPUs that have ids. Of two whose ids begin alike, such as one found again under another UUID, that is the later.
    pub fn hosts(&self) -> impl Iterator<Item = &HostDevice> {
        self.together.iter().chain(self.each.values()).map(AsRef::as_ref)
    }

    /// The ids alone, in the order of [`Self::units`].
    pub fn ids(&self) -> impl Iterator<Item = String> {
        self.units().map(|(id, _)| id)
    }

    /// Every id with what it stands for, GPU by GPU.
    pub fn units(&self) -> impl Iterator<Item = (String, Unit<'_>)> {
        let all = self.all().map(|all| (ALL.to_owned(), all));
        let each = self.each.iter().flat_map(move |(base, host)| {
            let unit = move |share| (self.ids.id(base, share), Unit { hosts: slice::from_ref(host), share });
            (0..self.units.of(&host.device)).map(unit)
        });
        all.into_iter().chain(each)
    }

    /// `None`: there is no such id.
    pub fn get(&self, id: &str) -> Option<Unit<'_>> {
        if id == ALL
            && let Some(all) = self.all()
        {
            return Some(all);
        }
        let (base, share) = self.ids.read(id)?;
        let host = self.each.get(base)?;
        (share < self.units.of(&host.device)).then(|| Unit { hosts: slice::from_ref(host), share })
    }

    fn all(&self) -> Option<Unit<'_>> {
        (!self.together.is_empty()).then_some(Unit { hosts: &self.together, share: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::backend::Origin;
    use crate::device::ids::Base;
    use kerf::units::Mib;

    fn pool(units: Units, memory: &[u64]) -> Pool {
        let host = |(at, memory): (usize, &u64)| {
            let device = Device::new(format!("GPU-{at}"), u32::try_from(at).unwrap(), Mib(*memory));
            Arc::new(HostDevice::new(device, Origin::default()))
        };
        Pool::new(IdStyle::COLONS, units, memory.iter().enumerate().map(host).collect())
    }

    #[test]
    fn ids_count_percents_and_whole_memory_units() {
        assert_eq!(pool(Units::Percents, &[1023, 256]).ids().count(), 200);
        let memory: Vec<String> = pool(Units::Memory, &[1023, 256]).ids().collect();
        assert_eq!(memory, ["GPU-0::0", "GPU-0::1", "GPU-0::2", "GPU-1::0"]);
    }

    #[test]
    fn a_gpu_without_ids_is_not_there() {
        let host = |id: &str| {
            let origin = Origin { name: "nvidia0".into(), ..Origin::default() };
            Arc::new(HostDevice::new(Device::new(id, 0, Mib(256)), origin))
        };
        let ids = IdStyle { base: Base::Name, numbers: None };
        let pool = Pool::new(ids, Units::Shares(1), vec![host("GPU-0"), host("nvidia0")]);
        assert_eq!(pool.ids().collect::<Vec<_>>(), ["nvidia0"]);
        assert_eq!(pool.hosts().map(|host| host.device.id.as_str()).collect::<Vec<_>>(), ["nvidia0"]);
    }

    #[test]
    fn each_id_is_found_and_no_other() {
        let units = [Units::Percents, Units::Memory, Units::Shares(1), Units::Shares(3), Units::All];
        for units in units {
            let pool = pool(units, &[512, 256]);
            assert!(pool.units().all(|(id, unit)| pool.get(&id) == Some(unit)), "{units:?}");
            for bad in ["GPU-0::100", "GPU-1::01", "GPU-2::0", "GPU-0", "GPU-0::+0", "::0", ""] {
                assert_eq!(pool.get(bad), None, "{units:?} {bad}");
            }
        }
        assert_eq!(pool(Units::All, &[]).ids().next(), None);
    }
}
