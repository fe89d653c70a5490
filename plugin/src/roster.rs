//! The node's GPUs over all drivers that are asked, each once: what the Node announces and what records name. Pure.
//!
//! `vcuda` and each contract whose pods the extender places have a driver of their own, and may find the same GPU
//! by it: under one id, or under two with one PCI address or one kernel name. Such a GPU appears once, under the id
//! by which it was found first (`vcuda` comes before the contracts), with all that it is offered as, so that the
//! extender counts it once. A partition of a GPU that is also found whole is left out: otherwise both could be
//! given away.
//!
//! A contract's ids are spelled as the original plugin spells them. Here each has a second spelling, `<card>::<k>`
//! with the GPU's name on this roster, in which kubelet's checkpoint and records can be compared for every
//! contract.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kerf::annotation::Keys;
use kerf::device::{Device, Health, Inventory};
use kerf::ids::{DeviceId, ResourceName};
use kerf::shares::PerCard;

use crate::device::backend::{HostDevice, Part};
use crate::device::cards::Cards;
use crate::device::ids::{self, Ids, Resource};
use crate::device::scan::{Remark, ScanIssue};
use crate::offer::contract::Contract;
use crate::offer::units::Pool;

/// A driver that is asked about GPUs, and what is known of them.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// What the GPUs are offered as; `None`: `vcuda`.
    pub contract: Option<Arc<Contract>>,
    /// `None` before the driver was asked.
    pub cards: Option<Arc<Cards>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roster {
    hosts: BTreeMap<DeviceId, HostDevice>,
    shares: BTreeMap<ResourceName, Shares>,
    /// Devices that are not announced.
    pub refusals: BTreeSet<Remark>,
    /// Whether every driver was asked.
    settled: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Shares {
    pool: Pool,
    /// The names of the pool's GPUs on this roster.
    names: BTreeMap<DeviceId, DeviceId>,
}

impl Shares {
    /// The GPU of an id, by its name on this roster, and which share of it that is.
    fn share(&self, id: &str) -> Option<(&DeviceId, u32)> {
        let unit = self.pool.get(id)?;
        Some((self.names.get(&unit.host()?.device.id)?, unit.share))
    }
}

impl Roster {
    /// The GPUs of all sources together, in order of precedence.
    pub fn new<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Self {
        let mut roster = Self { settled: true, ..Self::default() };
        for source in sources {
            match (&source.cards, &source.contract) {
                (Some(cards), Some(contract)) => roster.add_offers(contract, cards),
                (Some(cards), None) => drop(roster.add(cards.hosts())),
                (None, _) => roster.settled = false,
            }
        }
        roster
    }

    /// Adds the GPUs that a contract serves, and what they are offered as.
    fn add_offers(&mut self, contract: &Contract, cards: &Cards) {
        let mut offers = contract.offers(cards).resources;
        offers.retain(|_, offered| !offered.offer.shows_all());
        let hosts = offers.values().flat_map(|offered| offered.pool.hosts());
        // GPUs that a contract does not serve are not announced by it either
        let served: BTreeSet<&DeviceId> = hosts.map(|host| &host.device.id).collect();
        let names = self.add(cards.hosts().filter(|host| served.contains(&host.device.id)));
        let Ok(per_card) = PerCard::new(contract.replicas) else { return };
        for (resource, offered) in &offers {
            let resource = ResourceName::from(resource.as_str());
            let own: Vec<&DeviceId> = offered.pool.hosts().filter_map(|host| names.get(&host.device.id)).collect();
            for name in &own {
                if let Some(host) = self.hosts.get_mut(*name) {
                    host.device.offers.insert(resource.clone(), per_card);
                }
            }
            if !own.is_empty() {
                self.shares.insert(resource, Shares { pool: offered.pool.clone(), names: names.clone() });
            }
        }
    }

    /// Adds GPUs that are not here yet. Returns the name of each on this roster, by its own id.
    fn add<'a>(&mut self, hosts: impl Iterator<Item = &'a HostDevice>) -> BTreeMap<DeviceId, DeviceId> {
        let mut names: BTreeMap<DeviceId, DeviceId> = BTreeMap::new();
        let before: BTreeSet<u32> = self.hosts.values().map(|host| host.device.index).collect();
        let mut added: Vec<HostDevice> = Vec::new();
        for host in hosts {
            match self.known(host) {
                Known::As(id) => {
                    if let Some(known) = self.hosts.get_mut(&id) {
                        complete(&mut known.device, &host.device);
                    }
                    names.insert(host.device.id.clone(), id);
                }
                Known::Otherwise => {
                    let why = ScanIssue::OtherForm(host.origin.part.as_str());
                    self.refusals.insert(Remark::left_out(host, why));
                }
                Known::Not => {
                    names.insert(host.device.id.clone(), host.device.id.clone());
                    added.push(host.clone());
                }
            }
        }
        renumber(&mut added, &before);
        self.hosts.extend(added.into_iter().map(|host| (host.device.id.clone(), host)));
        names
    }

    /// Whether a device is already on the roster.
    fn known(&self, host: &HostDevice) -> Known {
        if self.hosts.contains_key(&host.device.id) {
            return Known::As(host.device.id.clone());
        }
        let mut otherwise = false;
        for (id, other) in &self.hosts {
            let vendor = host.origin.vendor == other.origin.vendor;
            let card = vendor && !host.origin.card.is_empty() && host.origin.card == other.origin.card;
            let place = !host.pci.is_empty() && host.pci == other.pci;
            // device files alone tell no address
            let name = vendor && !host.origin.name.is_empty() && host.origin.name == other.origin.name;
            match (&host.origin.part, &other.origin.part) {
                (Part::Whole, Part::Whole) if card || place || name => return Known::As(id.clone()),
                // files and library may not both know the instance's profile
                (Part::Instance { gi, ci, .. }, Part::Instance { gi: other_gi, ci: other_ci, .. })
                    if card && (gi, ci) == (other_gi, other_ci) =>
                {
                    return Known::As(id.clone());
                }
                (Part::Whole, _) | (_, Part::Whole) => otherwise |= card || place,
                _ => {}
            }
        }
        if otherwise { Known::Otherwise } else { Known::Not }
    }

    /// Whether every driver was asked and there are GPUs: only then does the list say what the node has.
    pub fn has_gpus(&self) -> bool {
        self.settled && self.hosts().next().is_some()
    }

    /// In order of id. Those of a contract name its offers.
    pub fn hosts(&self) -> impl Iterator<Item = &HostDevice> {
        self.hosts.values()
    }

    /// The GPUs as the node publishes them.
    pub fn inventory(&self) -> Inventory {
        Inventory::new(self.hosts.values().map(|host| host.device.clone()).collect())
    }

    /// The resource of a full name, where records of this node's pods name its ids.
    pub fn resource(&self, name: &str, keys: &Keys) -> Option<Resource> {
        match name {
            _ if name == keys.core => Some(Resource::Core),
            _ if name == keys.memory => Some(Resource::Memory),
            _ => self.shares.contains_key(name).then(|| Resource::Counted(name.into())),
        }
    }

    /// The GPU that an id names; `None` where this node has no such id.
    pub fn card<'a>(&'a self, resource: &Resource, id: &'a str) -> Option<&'a str> {
        match resource {
            Resource::Core | Resource::Memory => ids::card(id),
            Resource::Counted(name) => Some(self.shares.get(name)?.share(id)?.0.as_str()),
        }
    }

    /// Ids as this roster spells them. An unknown one stays as it is.
    pub fn spell<'a>(&self, resource: &Resource, ids: impl IntoIterator<Item = &'a String>) -> Ids {
        let shares = match resource {
            Resource::Core | Resource::Memory => None,
            Resource::Counted(name) => self.shares.get(name),
        };
        let spelled = |id: &String| shares?.share(id).map(|(name, share)| ids::unit(name.as_str(), share));
        Ids::new(ids.into_iter().map(|id| spelled(id).unwrap_or_else(|| id.clone())))
    }
}

enum Known {
    /// Under this name.
    As(DeviceId),
    /// Its GPU is: whole where this is a partition, or in partitions where this is whole.
    Otherwise,
    Not,
}

/// Adds what another driver knows of the same GPU.
fn complete(known: &mut Device, other: &Device) {
    if known.memory.0 == 0 {
        known.memory = other.memory;
    }
    if known.model.is_empty() {
        known.model = other.model.clone();
    }
    known.numa = known.numa.or(other.numa);
    if other.health == Health::Unhealthy {
        known.health = Health::Unhealthy;
    }
}

/// Each driver counts its GPUs from zero: indices that are already taken are moved behind all others.
fn renumber(added: &mut [HostDevice], taken: &BTreeSet<u32>) {
    let own: BTreeSet<u32> = added.iter().map(|host| host.device.index).collect();
    if own.is_disjoint(taken) {
        return;
    }
    let behind = taken.last().map_or(0, |last| last.saturating_add(1));
    let moved: BTreeMap<u32, u32> = own.into_iter().zip(behind..).collect();
    for host in added {
        let device = &mut host.device;
        device.index = moved.get(&device.index).copied().unwrap_or(device.index);
        let links = std::mem::take(&mut device.links);
        device.links =
            links.into_iter().filter_map(|(peer, link)| Some((moved.get(&peer).copied()?, link))).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::backend::{Origin, Vendor};
    use crate::device::ids::{Base, IdStyle};
    use crate::offer::contract::{Filter, Monitoring, Naming};
    use kerf::device::Link;
    use kerf::units::Mib;

    fn host(id: &str, index: u32, name: &str, pci: &str) -> HostDevice {
        let origin = Origin::whole(Vendor::Nvidia, "nvidia", name, pci);
        HostDevice { pci: pci.to_owned(), ..HostDevice::new(Device::new(id, index, Mib(0)), origin) }
    }

    fn source(contract: Contract, hosts: Vec<HostDevice>) -> Source {
        Source { contract: Some(Arc::new(contract)), ..vcuda(hosts) }
    }

    fn vcuda(hosts: Vec<HostDevice>) -> Source {
        Source { contract: None, cards: Some(Arc::new(Cards::default().discovered(hosts))) }
    }

    const SHARED: &str = "deepomatic.com/shared-gpu";

    /// Two shares of each GPU.
    fn deepomatic() -> Contract {
        Contract {
            ids: IdStyle { base: Base::Name, numbers: Some(("-_-", 1)) },
            replicas: 2,
            ..Contract::plain("deepomatic", Naming::Single(SHARED.to_owned()))
        }
    }

    fn counted(name: &str) -> Resource {
        Resource::Counted(name.into())
    }

    type Offer = (String, u32);

    fn offers(roster: &Roster) -> Vec<(String, u32, Vec<Offer>)> {
        let of = |device: &Device| device.offers.iter().map(|(name, n)| (name.to_string(), n.get())).collect();
        roster.inventory().devices().iter().map(|d| (d.id.to_string(), d.index, of(d))).collect()
    }

    #[test]
    fn a_card_that_two_drivers_find_is_one_card_with_both_offers() {
        let mut library = host("GPU-a", 0, "nvidia0", "0000:3b:00.0");
        library.device.memory = Mib(81920);
        let mut files =
            vec![host("nvidia0", 0, "nvidia0", "0000:3b:00.0"), host("nvidia1", 1, "nvidia1", "0000:5e:00.0")];
        files[0].device.health = Health::Unhealthy;
        let vcuda = vcuda(vec![library]);
        let shared = source(deepomatic(), files);
        let roster = Roster::new([&vcuda, &shared]);
        let offered = |n| vec![(SHARED.to_owned(), n)];
        assert_eq!(offers(&roster), [("GPU-a".to_owned(), 0, offered(2)), ("nvidia1".to_owned(), 1, offered(2))]);
        let known = roster.inventory().devices()[0].clone();
        assert_eq!((known.memory, known.health), (Mib(81920), Health::Unhealthy));
        assert_eq!(roster.card(&counted(SHARED), "nvidia0-_-2"), Some("GPU-a"));
        let spelled = ["nvidia0-_-1", "nvidia1-_-2", "nvidia7-_-1"].map(str::to_owned);
        let spelled = roster.spell(&counted(SHARED), &spelled);
        assert_eq!(spelled.iter().collect::<Vec<_>>(), ["GPU-a::0", "nvidia1::1", "nvidia7-_-1"]);
        // device files alone tell no address
        let bare = source(deepomatic(), vec![host("nvidia0", 0, "nvidia0", "")]);
        assert_eq!(offers(&Roster::new([&vcuda, &bare])), [("GPU-a".to_owned(), 0, offered(2))]);
        // the other way round the files name the GPU
        let other = Roster::new([&shared, &vcuda]);
        assert_eq!(other.hosts().map(|host| host.device.id.as_str()).collect::<Vec<_>>(), ["nvidia0", "nvidia1"]);
    }

    #[test]
    fn a_part_of_a_card_that_is_there_whole_is_left_out_by_name() {
        let whole = vcuda(vec![host("GPU-a", 0, "nvidia0", "0000:3b:00.0")]);
        let mut part = host("MIG-a", 0, "nvidia0/gi1", "0000:3b:00.0");
        part.origin.part = Part::Instance { gi: 1, ci: 0, profile: "3g.20gb".into() };
        let mixed = Naming::Instance { whole: "nvidia.com/gpu".into(), prefix: "nvidia.com/mig-".into() };
        let parts = source(Contract::plain("nvidia", mixed), vec![part.clone()]);
        let roster = Roster::new([&whole, &parts]);
        assert_eq!(offers(&roster), [("GPU-a".to_owned(), 0, Vec::new())]);
        assert!(roster.refusals.first().unwrap().to_string().starts_with("nvidia0/gi1: the GPU of this instance"));
        // the same instance twice is one
        let mig = vcuda(vec![HostDevice { device: Device::new("MIG-b", 3, Mib(5)), ..part }]);
        let roster = Roster::new([&mig, &parts]);
        assert_eq!(offers(&roster), [("MIG-b".to_owned(), 3, vec![("nvidia.com/mig-3g.20gb".to_owned(), 1)])]);
    }

    #[test]
    fn numbers_that_two_vendors_use_are_given_once() {
        let nvidia =
            vcuda(vec![host("GPU-a", 0, "nvidia0", "0000:3b:00.0"), host("GPU-b", 1, "nvidia1", "0000:5e:00.0")]);
        let mut amd = [("0000:19:00.0", 1, 2), ("0000:1a:00.0", 2, 1)].map(|(pci, index, peer)| {
            let mut host = host(pci, index, "card", pci);
            host.origin.vendor = Vendor::Amd;
            host.device.links.insert(peer, Link::NvLink(1));
            host
        });
        amd[1].device.links.insert(9, Link::Switch);
        let roster = Roster::new([
            &nvidia,
            &source(Contract::plain("amd", Naming::Single("amd.com/gpu".into())), amd.to_vec()),
        ]);
        let shown: Vec<_> = roster
            .inventory()
            .devices()
            .iter()
            .map(|d| (d.id.to_string(), d.index, d.links.keys().copied().collect::<Vec<_>>()))
            .collect();
        let wanted = [
            ("GPU-a", 0, vec![]),
            ("GPU-b", 1, vec![]),
            ("0000:19:00.0", 2, vec![3]),
            ("0000:1a:00.0", 3, vec![2]),
        ];
        assert_eq!(shown, wanted.map(|(id, index, links)| (id.to_owned(), index, links)));
    }

    #[test]
    fn nothing_is_settled_before_every_driver_was_asked() {
        let asked = source(deepomatic(), Vec::new());
        let silent = Source { cards: None, ..asked.clone() };
        assert!(Roster::new([&asked]).settled);
        assert!(!Roster::new([&asked, &silent]).settled);
    }

    #[test]
    fn what_a_profile_leaves_alone_and_resources_that_show_all_cards_are_no_offers() {
        let mut cards = ["0x1234", "0x5678"].map(|id| {
            let mut host = host(id, 0, id, id);
            (host.origin.vendor, host.origin.driver, host.origin.model_id) =
                (Vendor::Intel, "xe".into(), id.into());
            host
        });
        cards[1].device.index = 1;
        let intel = Contract {
            replicas: 3,
            filter: Filter { allow: vec!["0x5678".to_owned()], ..Filter::default() },
            monitoring: Some(Monitoring::Single("gpu.intel.com/monitoring".to_owned())),
            ..Contract::plain(
                "intel",
                Naming::Driver { domain: "gpu.intel.com".to_owned(), drivers: &["i915", "xe"] },
            )
        };
        let roster = Roster::new([&source(intel, cards.to_vec())]);
        assert_eq!(offers(&roster), [("0x5678".to_owned(), 1, vec![("gpu.intel.com/xe".to_owned(), 3)])]);
        let keys = Keys::default();
        assert_eq!(roster.resource("gpu.intel.com/monitoring", &keys), None);
        assert_eq!(roster.resource("gpu.intel.com/xe", &keys), Some(counted("gpu.intel.com/xe")));
        assert_eq!(roster.resource("inspur.com/vcuda-core", &keys), Some(Resource::Core));
    }
}
