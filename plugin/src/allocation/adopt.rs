//! Pods that hold GPUs but have no record, or one that cannot be read: pods with shares by count that another
//! scheduler bound, or an extender that did not know of such shares. What they hold, by kubelet's list and by the
//! answers for their ids, becomes their record, so that it is counted from then on.

use std::collections::BTreeMap;

use kerf::ids::{DeviceId, PodUid};
use kerf::plan::{ContainerGrant, CountedDevice, Grant, Placement, Plan};
use kerf::request::{Ask, ContainerRequest};
use kerf::shares::Counted;
use kerf::units::Share;

use crate::allocation::allocations::Allocations;
use crate::allocation::entry::{Assigned, Entry};
use crate::allocation::ids_to_cards::in_order;
use crate::allocation::pod::Key;
use crate::device::ids::Resource;

impl Allocations {
    /// Makes a record for each such pod that has all it asks for.
    pub(super) fn adopt(&mut self) {
        let bare = self.pods.values().filter(|entry| entry.placement().is_none() && entry.complete());
        let found: Vec<(PodUid, Placement)> =
            bare.filter_map(|entry| Some((entry.pod.uid.clone(), self.held_by(entry)?))).collect();
        for (uid, placement) in found {
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.assigned = Assigned::Corrected(placement);
            }
        }
    }

    /// What the pod holds by its ids. `None` where the ids do not tell this for every container.
    fn held_by(&self, entry: &Entry) -> Option<Placement> {
        let by_count = |container: &ContainerRequest, counted: &Counted, devices| {
            container.granted(Grant::Counted { resource: counted.resource.clone(), devices })
        };
        let mut grants: Vec<Option<ContainerGrant>> = Vec::new();
        for container in &entry.pod.request.containers {
            let claim = entry.claim(&container.name);
            grants.push(match &container.ask {
                Ask::Counted(counted) => {
                    let resource = Resource::Counted(counted.resource.clone());
                    match claim.and_then(|claim| claim.ids(&resource)) {
                        Some(ids) => Some(by_count(container, counted, self.shares(&counted.resource, ids)?)),
                        None => None,
                    }
                }
                ask @ (Ask::Share(_) | Ask::Whole { .. }) => {
                    let key = Key { pod: entry.pod.uid.clone(), container: container.name.clone() };
                    let cards = self.answers.of(&key, claim?.core()?)?;
                    let as_asked = |share: &Share| !matches!(ask, Ask::Share(asked) if asked != share);
                    let cards = cards.iter().filter(|(_, share)| as_asked(share));
                    let cards = cards.map(|(device, share)| (device.clone(), share.memory));
                    Some(container.granted(Grant::of(ask, cards)?))
                }
            });
        }
        let known: Vec<ContainerGrant> = grants.iter().flatten().cloned().collect();
        let all = entry.pod.request.containers.iter().zip(grants).map(|(container, found)| {
            match (&container.ask, found) {
                (_, Some(grant)) => Some(grant),
                (Ask::Counted(counted), None) => Some(by_count(container, counted, self.reused(counted, &known)?)),
                _ => None,
            }
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
}
