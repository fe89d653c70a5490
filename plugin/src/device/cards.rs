//! The node's GPUs, as one source shows them.
//!
//! A GPU that was present once stays listed, as unhealthy: removing its ids would lower the node's capacity and
//! make kubelet refuse pods that hold them. A part of a GPU that is divided otherwise now stays for as long as a
//! container may hold it.

use std::collections::{BTreeMap, BTreeSet};

use kerf::device::Health;
use kerf::ids::DeviceId;
use kerf::isolation::Isolation;

use crate::device::backend::{HostDevice, Part};

/// Every GPU that was seen since the start, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cards {
    hosts: BTreeMap<DeviceId, HostDevice>,
    /// Those that the last discovery did not find.
    lost: BTreeSet<DeviceId>,
    /// Of them those whose GPU is there, but divided otherwise: they will not come back by themselves.
    gone: BTreeSet<DeviceId>,
}

/// Whether `new` can be there only because the GPU of `lost` was divided otherwise since. `fresh`: `new` was not known
/// before.
fn instead(lost: &HostDevice, new: &HostDevice, fresh: bool) -> bool {
    let (was, is) = (&lost.origin, &new.origin);
    if was.vendor != is.vendor || was.card != is.card {
        return false;
    }
    match (&was.part, &is.part) {
        (Part::Whole, Part::Whole) | (Part::Function, Part::Function) => false,
        // where no GPU is named, all that is new may be of any
        (Part::Whole, _) if was.card.is_empty() => fresh,
        // of such a GPU single parts may fail; it is divided otherwise where it says so
        _ if !was.layout.is_empty() => was.layout != is.layout,
        _ => true,
    }
}

impl Cards {
    /// After a discovery: new facts, and GPUs that are missing from it as unhealthy.
    #[must_use]
    pub fn discovered(&self, found: Vec<HostDevice>) -> Self {
        self.discovered_but(found, &BTreeSet::new())
    }

    /// After a discovery that left these out, by id or name: they are there, whatever else there is.
    #[must_use]
    pub fn discovered_but(&self, found: Vec<HostDevice>, left_out: &BTreeSet<String>) -> Self {
        let mut hosts: BTreeMap<_, _> = found.into_iter().map(|host| (host.device.id.clone(), host)).collect();
        let gone = |lost: &HostDevice| {
            let told = [lost.device.id.as_str(), lost.subject()].into_iter().any(|name| left_out.contains(name));
            let by = |new: &HostDevice| instead(lost, new, !self.hosts.contains_key(&new.device.id));
            !told && (self.gone.contains(&lost.device.id) || hosts.values().any(by))
        };
        let missing = || self.hosts.iter().filter(|(id, _)| !hosts.contains_key(*id));
        let lost = missing().map(|(id, _)| id.clone()).collect();
        let gone = missing().filter(|(_, host)| gone(host)).map(|(id, _)| id.clone()).collect();
        for (id, host) in &self.hosts {
            hosts.entry(id.clone()).or_insert_with(|| {
                let mut lost = host.clone();
                lost.device.health = Health::Unhealthy;
                lost
            });
        }
        Self { hosts, lost, gone }
    }

    /// Whether some are parts of GPUs that are divided otherwise now.
    pub fn any_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Whether the last discovery did not find it.
    pub fn is_lost(&self, id: &DeviceId) -> bool {
        self.lost.contains(id)
    }

    /// Without the parts of GPUs that are divided otherwise now, but for those that are held. `None` where that is no
    /// change.
    pub fn retired(&self, held: impl Fn(&DeviceId) -> bool) -> Option<Self> {
        let over: BTreeSet<&DeviceId> = self.gone.iter().filter(|id| !held(id)).collect();
        if over.is_empty() {
            return None;
        }
        let mut cards = self.clone();
        cards.hosts.retain(|id, _| !over.contains(id));
        cards.gone.retain(|id| !over.contains(id));
        cards.lost.retain(|id| !over.contains(id));
        Some(cards)
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

    fn ids(cards: &Cards) -> Vec<&str> {
        cards.hosts().map(|host| host.device.id.as_str()).collect()
    }

    fn part(id: &str, card: &str, part: Part, layout: &str) -> HostDevice {
        let origin = Origin { card: card.into(), part, layout: layout.into(), ..Origin::default() };
        HostDevice::new(Device::new(id, 0, Mib(256)), origin)
    }

    fn instance(id: &str, card: &str) -> HostDevice {
        part(id, card, Part::Instance { gi: 0, ci: 0, profile: "".into() }, "")
    }

    #[test]
    fn instances_of_an_old_cut_stay_while_they_are_held() {
        let old = Cards::default().discovered(vec![instance("a", "0"), instance("b", "0"), instance("c", "1")]);
        let cut = old.discovered(vec![instance("d", "0"), instance("c", "1")]);
        assert_eq!(ids(&cut), ["a", "b", "c", "d"]);
        let held = cut.retired(|id| id.as_str() == "a").unwrap();
        assert_eq!(ids(&held), ["a", "c", "d"]);
        assert_eq!(held.get(&"a".into()).unwrap().device.health, Health::Unhealthy);
        assert_eq!(held.retired(|_| true), None);
        // a later discovery does not make it one that may come back
        let again = held.discovered(vec![instance("d", "0"), instance("c", "1")]);
        assert_eq!(ids(&again.retired(|_| false).unwrap()), ["c", "d"]);
        // unless it does come back
        let back = held.discovered(vec![instance("a", "0"), instance("d", "0"), instance("c", "1")]);
        assert_eq!(back.retired(|_| false), None);
    }

    #[test]
    fn a_card_and_its_parts_take_each_others_place() {
        let retired = |before: Vec<HostDevice>, after: Vec<HostDevice>| {
            let cards = Cards::default().discovered(before).discovered(after);
            let cards = cards.retired(|_| false).unwrap_or(cards);
            ids(&cards).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let whole = |id: &str, card: &str| part(id, card, Part::Whole, "");
        assert_eq!(retired(vec![whole("w", "0")], vec![instance("a", "0")]), ["a"]);
        assert_eq!(retired(vec![instance("a", "0")], vec![whole("w", "0")]), ["w"]);
        // another card is no reason, and a card that is lost may come back
        assert_eq!(retired(vec![whole("w", "0"), whole("x", "1")], vec![instance("a", "0")]), ["a", "x"]);
        assert_eq!(retired(vec![whole("w", ""), whole("x", "")], vec![whole("x", "")]), ["w", "x"]);
        assert_eq!(retired(vec![whole("w", ""), instance("a", "")], vec![instance("a", "")]), ["a", "w"]);
        assert_eq!(retired(vec![whole("w", "")], vec![instance("a", "")]), ["a"]);
        let function = |id: &str| part(id, "0", Part::Function, "");
        assert_eq!(retired(vec![function("f"), function("g")], vec![function("g")]), ["f", "g"]);
        assert_eq!(retired(vec![function("f"), function("g")], vec![whole("w", "0")]), ["w"]);
        let partition = |id: &str, layout: &str| part(id, "0", Part::Partition, layout);
        let (old, new) = ("cpx_nps4", "spx_nps1");
        assert_eq!(retired(vec![partition("p", old), partition("q", old)], vec![partition("q", old)]), ["p", "q"]);
        assert_eq!(retired(vec![partition("p", old), partition("q", old)], vec![partition("q", new)]), ["q"]);
    }

    #[test]
    fn an_instance_that_is_left_out_is_not_gone() {
        let all = Cards::default().discovered(vec![instance("a", "0"), instance("b", "0")]);
        let some = all.discovered_but(vec![instance("b", "0")], &BTreeSet::from(["a".to_owned()]));
        assert_eq!(some.retired(|_| false), None);
        assert_eq!(ids(&some), ["a", "b"]);
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
