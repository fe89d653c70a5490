//! Cards, and the inventory of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, ResourceName};
use crate::isolation::Isolation;
use crate::shares::PerCard;
use crate::units::{Mib, Milli, Share};

/// The most cards that kerf manages on one node: a bound on the work that one node can cause.
pub const MAX_CARDS: usize = 64;

/// One physical card, or one hardware partition that acts as a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The vendor's UUID.
    pub id: DeviceId,
    /// Position on the node as the driver counts (NVIDIA: the minor number). Only for people and for the compatibility
    /// record; it may change when cards are added or fail.
    pub index: u32,
    /// Product name from the driver.
    pub model: Arc<str>,
    pub memory: Mib,
    /// The NUMA node; `None` where the system does not know it.
    pub numa: Option<u32>,
    pub health: Health,
    /// Taken out of service by an administrator: keeps its pods, takes no new one.
    pub cordoned: bool,
    pub isolation: Isolation,
    /// How this card reaches other cards of its node, by their index. A missing index: not known.
    pub links: BTreeMap<u32, Link>,
    /// How many counted shares of the card the node offers, by resource.
    pub offers: BTreeMap<ResourceName, PerCard>,
}

impl Device {
    /// A healthy card with nothing else known about it.
    pub fn new(id: impl Into<DeviceId>, index: u32, memory: Mib) -> Self {
        Self {
            id: id.into(),
            index,
            model: "".into(),
            memory,
            numa: None,
            health: Health::Healthy,
            cordoned: false,
            isolation: Isolation::None,
            links: BTreeMap::new(),
            offers: BTreeMap::new(),
        }
    }

    pub fn capacity(&self) -> Share {
        Share { compute: Milli::WHOLE, memory: self.memory }
    }

    /// Whether the card takes new pods: healthy and not cordoned.
    pub fn usable(&self) -> bool {
        self.health == Health::Healthy && !self.cordoned
    }
}

crate::words! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Health {
        /// Takes new pods.
        Healthy = "healthy",
        /// Takes none; the pods it has are left alone.
        Unhealthy = "unhealthy",
    }
}

/// How two cards of one node reach each other, from worst to best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// Across sockets (`SYS`).
    System,
    /// Across host bridges of one NUMA node (`NODE`).
    Node,
    /// Through one host bridge (`PHB`).
    HostBridge,
    /// Through several PCIe switches (`PXB`).
    Switches,
    /// Through one PCIe switch (`PIX`), or on one board.
    Switch,
    /// NVLink (or a vendor's equivalent) with this many lanes (`NV12`).
    NvLink(u8),
}

impl Link {
    /// Order of preference as a number, for sums: more is better, and one NVLink lane beats any PCIe path.
    pub fn weight(self) -> u32 {
        match self {
            Self::System => 0,
            Self::Node => 1,
            Self::HostBridge => 2,
            Self::Switches => 3,
            Self::Switch => 4,
            Self::NvLink(lanes) => 8 + u32::from(lanes),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("SYS"),
            Self::Node => f.write_str("NODE"),
            Self::HostBridge => f.write_str("PHB"),
            Self::Switches => f.write_str("PXB"),
            Self::Switch => f.write_str("PIX"),
            Self::NvLink(lanes) => write!(f, "NV{lanes}"),
        }
    }
}

/// A link's name other than `SYS NODE PHB PXB PIX NV<lanes>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown link {0:?}: expected SYS, NODE, PHB, PXB, PIX or NV<lanes>")]
pub struct UnknownLink(String);

impl FromStr for Link {
    type Err = UnknownLink;

    fn from_str(text: &str) -> Result<Self, UnknownLink> {
        Ok(match text {
            "SYS" => Self::System,
            "NODE" => Self::Node,
            "PHB" => Self::HostBridge,
            "PXB" => Self::Switches,
            "PIX" => Self::Switch,
            other => match other.strip_prefix("NV").and_then(|lanes| lanes.parse().ok()) {
                Some(lanes) => Self::NvLink(lanes),
                None => return Err(UnknownLink(other.chars().take(16).collect())),
            },
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Sorted by index, then id; ids are unique.
    devices: Vec<Device>,
}

impl Inventory {
    /// Sorts the devices. Of two with the same id, the one with the lower index stays.
    pub fn new(mut devices: Vec<Device>) -> Self {
        devices.sort_by(|a, b| (a.index, &a.id).cmp(&(b.index, &b.id)));
        let mut seen = BTreeSet::new();
        devices.retain(|device| seen.insert(device.id.clone()));
        Self { devices }
    }

    /// The inventory of a node without the annotation, inferred from its capacity as gpu-admission did: `core / 100`
    /// cards with equal parts of the memory, rounded down. Empty below 100 units of core.
    pub fn from_capacity(core_units: u64, memory_units: u64) -> Self {
        let count = (core_units / 100).min(MAX_CARDS as u64);
        let memory = memory_units.checked_div(count).and_then(Mib::from_memory_units).unwrap_or_default();
        let devices = (0..u32::try_from(count).unwrap_or_default())
            .map(|index| Device::new(DeviceId::of_index(index), index, memory))
            .collect();
        Self { devices }
    }

    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The cards in a list of ids and indices, joined by commas.
    pub fn named(&self, names: &str) -> Cordon {
        let mut cordon = Cordon::default();
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let is_named = |device: &&Device| device.id.as_str() == name || name.parse() == Ok(device.index);
            let found: Vec<DeviceId> =
                self.devices.iter().filter(is_named).map(|device| device.id.clone()).collect();
            if found.is_empty() {
                cordon.unknown.push(name.to_owned());
            }
            cordon.cards.extend(found);
        }
        cordon
    }

    /// Takes these cards out of service; the others are left as they are.
    pub fn cordon(&mut self, names: &str) {
        let cordon = self.named(names);
        for device in self.devices.iter_mut().filter(|device| cordon.cards.contains(&device.id)) {
            device.cordoned = true;
        }
    }

    pub fn cordon_all(&mut self) {
        self.devices.iter_mut().for_each(|device| device.cordoned = true);
    }
}

/// A list of cards to take out of service (`<D>/gpu-cordon`), matched with the cards of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cordon {
    pub cards: BTreeSet<DeviceId>,
    /// Names in the list that match no card, in its order.
    pub unknown: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_round_trip_and_sort_by_speed() {
        let worst_to_best = ["SYS", "NODE", "PHB", "PXB", "PIX", "NV1", "NV18"];
        let links: Vec<Link> = worst_to_best.iter().map(|text| text.parse().unwrap()).collect();
        assert!(links.is_sorted_by(|a, b| a < b && a.weight() < b.weight()));
        assert_eq!(links.iter().map(Link::to_string).collect::<Vec<_>>(), worst_to_best);
        assert!("SOC".parse::<Link>().is_err());
    }

    #[test]
    fn capacity_below_one_card_is_no_card() {
        assert_eq!(Inventory::from_capacity(50, 10), Inventory::default());
        assert_eq!(Inventory::from_capacity(250, 120).devices().len(), 2);
        assert_eq!(Inventory::from_capacity(u64::MAX, u64::MAX).devices().len(), 64);
    }

    #[test]
    fn cordon_takes_ids_and_indices_and_ignores_the_rest() {
        let mut inventory = Inventory::from_capacity(300, 30);
        let names = "index-0, 2,,nonsense,-1,0";
        assert_eq!(inventory.named(names).unknown, ["nonsense", "-1"]);
        inventory.cordon(names);
        assert_eq!(inventory.devices().iter().map(Device::usable).collect::<Vec<_>>(), [false, true, false]);
    }
}
