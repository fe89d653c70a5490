//! Which GPUs a container has, by the ids that it holds.
//!
//! Some pods hold GPUs but have no record, or one that cannot be read: pods with shares by count that another
//! scheduler bound, or an extender that did not know of such shares. What they hold, by kubelet's list and by the
//! answers for their ids, becomes their record (`adopt`), so that it is counted from then on. Until
//! then, and for pods that the API server does not show, it is counted as well as possible
//! (`holders`): by the answers for their ids, or else by the GPUs that the ids name.

use std::collections::BTreeMap;

use kerf::device::Device;
use kerf::ids::{ContainerName, DeviceId, ResourceName};
use kerf::plan::{ContainerGrant, CountedDevice, DeviceRef, Grant, Placement, Plan};
use kerf::request::{Ask, ContainerRequest};
use kerf::shares::Counted;
use kerf::units::{Mib, Milli, Share};

use crate::allocation::{Allocations, ContainerResources, Entry, Key, ListedContainer, Listing};
use crate::device::ids::{Ids, Resource};

impl Allocations {
    /// The container has the GPUs that were answered for its ids of core. Where the answer is not known, it has
    /// those of its record: the answer was made from it. Of shares by count it has the GPUs that its ids name.
    /// Returns whether these differ from the record.
    pub(super) fn believe(&mut self, key: &Key, resource: &Resource, ids: &Ids) -> bool {
        let Some(grant) = self.granted(key) else { return false };
        let real = match resource {
            Resource::Core => self.answers.of(key, ids).and_then(|cards| {
                let cards = cards.iter().map(|(device, share)| (device.clone(), share.memory));
                Grant::of(&self.requested(key)?.ask, cards)
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
        } else if let Some(grant) = self.correct(key) {
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
    fn shares(&self, resource: &ResourceName, ids: &Ids) -> Option<Vec<CountedDevice>> {
        let cards = ids.cards();
        let devices = cards.iter().map(|(card, count)| self.counted(resource, card, u32::try_from(*count).ok()?));
        let mut devices = devices.collect::<Option<Vec<CountedDevice>>>()?;
        devices.sort_by(in_order);
        (cards.values().sum::<u64>() == ids.len()).then_some(devices)
    }

    fn counted(&self, resource: &ResourceName, card: &str, count: u32) -> Option<CountedDevice> {
        let card = self.cards.get(card)?;
        let compute = card.offers.get(resource)?.compute_of(count);
        Some(CountedDevice { device: DeviceRef { id: card.id.clone(), index: card.index }, count, compute })
    }

    /// A container that asks for the same as `key`, still waits, and was placed on these GPUs: they are not free
    /// for it any more.
    fn waits_on(&self, key: &Key, resource: &Resource, cards: &Grant) -> Option<Key> {
        let cards = self.places(cards);
        self.pods.values().filter(|entry| entry.pod.uid != key.pod && !entry.complete()).find_map(|entry| {
            let waits =
                |name: &ContainerName| entry.claims.get(name).is_none_or(|claim| claim.ids(resource).is_none());
            let placed =
                |name: &ContainerName| entry.grant(name).is_some_and(|grant| self.places(&grant.gpus) == cards);
            let names = entry.containers().iter().map(|container| &container.name);
            let mut others = names.filter(|name| waits(name) && placed(name)).map(|name| entry.key(name));
            others.find(|other| self.alike(key, other))
        })
    }

    /// Makes a record for each such pod that has all it asks for.
    pub(super) fn adopt(&mut self) {
        let bare = self.pods.values().filter(|entry| entry.placement.is_none() && entry.complete());
        let found: Vec<_> = bare.filter_map(|entry| Some((entry.pod.uid.clone(), self.held_by(entry)?))).collect();
        for (uid, placement) in found {
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.placement = Some(placement);
                entry.corrected = true;
            }
        }
    }

    /// What the pod holds by its ids. `None` where the ids do not tell this for every container.
    fn held_by(&self, entry: &Entry) -> Option<Placement> {
        let by_count = |container: &ContainerRequest, counted: &Counted, devices| {
            container.granted(Grant::Counted { resource: counted.resource.clone(), devices })
        };
        let mut grants: Vec<Option<ContainerGrant>> = Vec::new();
        for container in entry.containers() {
            let claim = entry.claims.get(&container.name);
            grants.push(match &container.ask {
                Ask::Counted(counted) => {
                    let resource = Resource::Counted(counted.resource.clone());
                    match claim.and_then(|claim| claim.ids(&resource)) {
                        Some(ids) => Some(by_count(container, counted, self.shares(&counted.resource, ids)?)),
                        None => None,
                    }
                }
                ask @ (Ask::Share(_) | Ask::Whole { .. }) => {
                    let cards = self.answers.of(&entry.key(&container.name), claim?.core()?)?;
                    let as_asked = |share: &Share| !matches!(ask, Ask::Share(asked) if asked != share);
                    let cards = cards.iter().filter(|(_, share)| as_asked(share));
                    let cards = cards.map(|(device, share)| (device.clone(), share.memory));
                    Some(container.granted(Grant::of(ask, cards)?))
                }
            });
        }
        let known: Vec<ContainerGrant> = grants.iter().flatten().cloned().collect();
        let all = entry.containers().iter().zip(grants).map(|(container, found)| match (&container.ask, found) {
            (_, Some(grant)) => Some(grant),
            (Ask::Counted(counted), None) => Some(by_count(container, counted, self.reused(counted, &known)?)),
            _ => None,
        });
        let plan = Plan { grants: all.collect::<Option<_>>()? };
        let limit = entry.pod.request.limit;
        let placement = Placement { node: entry.pod.node.clone(), time: entry.pod.created, limit, plan };
        placement.plan.serves(&entry.pod.request).then_some(placement)
    }

    /// What an init container had that was over before this process began: kubelet gives its ids to the containers
    /// after it, so their GPUs were its GPUs. Where it had more shares than they have, the rest is taken from the
    /// same GPUs first.
    fn reused(&self, counted: &Counted, later: &[ContainerGrant]) -> Option<Vec<CountedDevice>> {
        let same = later.iter().filter_map(|grant| match &grant.gpus {
            Grant::Counted { resource, devices } if *resource == counted.resource => Some(devices),
            _ => None,
        });
        let held: BTreeMap<&DeviceId, u32> = same.flatten().map(|one| (&one.device.id, one.count)).collect();
        let all = |device: &DeviceId| Some(self.cards.get(device)?.offers.get(&counted.resource)?.get());
        let steps = held.iter().map(|(device, count)| (*device, Some(*count)));
        let steps = steps.chain(held.keys().map(|device| (*device, all(device))));
        let steps = steps.chain(self.cards.keys().map(|device| (device, all(device))));
        let mut taken: BTreeMap<&DeviceId, u32> = BTreeMap::new();
        let mut left = counted.count;
        for (device, most) in steps {
            let here = taken.entry(device).or_default();
            let more = most.unwrap_or_default().saturating_sub(*here).min(left);
            *here += more;
            left -= more;
        }
        let taken = taken.into_iter().filter(|(_, count)| *count > 0);
        let devices = taken.map(|(device, count)| self.counted(&counted.resource, device.as_str(), count));
        let mut devices = devices.collect::<Option<Vec<CountedDevice>>>().filter(|_| left == 0)?;
        devices.sort_by(in_order);
        Some(devices)
    }

    /// The containers on this list that have no record, as they are counted.
    pub(super) fn holders(&self, listing: &Listing) -> Vec<ListedContainer> {
        listing.held.iter().filter(|held| !held.ids.is_empty()).map(|held| self.holder(held)).collect()
    }

    /// The containers on kubelet's latest list that have no record, by what is known of the pods now.
    pub(super) fn without_record(&self) -> impl Iterator<Item = &ListedContainer> {
        self.kubelet.holders().filter(|listed| {
            self.by_reference(&listed.pod).is_none_or(|entry| entry.grant(&listed.container).is_none())
        })
    }

    fn holder(&self, held: &ContainerResources) -> ListedContainer {
        let core = held.ids.get(&Resource::Core).cloned().unwrap_or_default();
        let pod = self.by_reference(&held.pod).map_or_else(|| "".into(), |entry| entry.pod.uid.clone());
        let cards = match self.answers.of(&Key { pod, container: held.container.clone() }, &core) {
            Some(cards) => {
                let cards = cards.iter();
                cards.map(|(device, share)| (device.id.clone(), *share, share.compute >= Milli::WHOLE)).collect()
            }
            None => held.ids.iter().flat_map(|(resource, ids)| self.named(resource, ids)).collect(),
        };
        ListedContainer { pod: held.pod.clone(), container: held.container.clone(), core, cards }
    }

    /// The GPUs that these ids name, with the shares. One GPU may come once for each resource.
    fn named(&self, resource: &Resource, ids: &Ids) -> Vec<(DeviceId, Share, bool)> {
        let taken = |(card, count): (&str, u64)| {
            let device = DeviceId::from(card);
            let whole = self.cards.get(&device).map(Device::capacity);
            match resource {
                Resource::Core => {
                    let compute = Milli::from_core_units(count).unwrap_or(Milli::WHOLE).min(Milli::WHOLE);
                    let all = compute >= Milli::WHOLE;
                    let share = Share { compute, memory: Mib(0) };
                    (device, whole.filter(|_| all).unwrap_or(share), all)
                }
                Resource::Memory => {
                    let memory = Mib::from_memory_units(count).unwrap_or_default();
                    (device, Share { compute: Milli(0), memory }, false)
                }
                Resource::Counted(name) => {
                    let counted = self.counted(name, card, u32::try_from(count).unwrap_or(u32::MAX));
                    let compute = counted.map(|counted| counted.compute).unwrap_or_default();
                    (device, Share { compute, memory: Mib(0) }, true)
                }
            }
        };
        ids.cards().into_iter().map(taken).collect()
    }
}

/// The order in which a record names GPUs.
fn in_order(a: &CountedDevice, b: &CountedDevice) -> std::cmp::Ordering {
    (a.device.index, &a.device.id).cmp(&(b.device.index, &b.device.id))
}
