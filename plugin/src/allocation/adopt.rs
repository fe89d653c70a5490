//! Pods that hold GPUs and that nobody has recorded, or whose record cannot be read: of shares by count where another
//! scheduler bound them, or an extender that did not know of such shares. What they hold, by kubelet's list and by what was
//! answered for their ids, becomes their record, so that it is counted from then on.

use std::collections::BTreeMap;

use kerf::ids::{DeviceId, PodUid};
use kerf::plan::{Form, Grant, Placement, Plan, Slice};
use kerf::request::{Ask, ContainerRequest};
use kerf::shares::Counted;

use crate::allocation::allocations::Allocations;
use crate::allocation::entry::{Assigned, Entry};
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

    /// What the pod holds by its ids. `None` where these do not say it of every container.
    fn held_by(&self, entry: &Entry) -> Option<Placement> {
        let grant = |container: &ContainerRequest, slices: Vec<Slice>| Grant {
            container: container.name.clone(),
            kind: container.kind,
            position: container.position,
            form: Form::of(&container.ask),
            slices,
        };
        let mut grants: Vec<Option<Grant>> = Vec::new();
        for container in &entry.pod.request.containers {
            let claim = entry.claim(&container.name);
            grants.push(match &container.ask {
                Ask::Counted(counted) => {
                    let resource = Resource::Counted(counted.resource.clone());
                    match claim.and_then(|claim| claim.ids(&resource)) {
                        Some(ids) => Some(grant(container, self.shares(&counted.resource, ids)?)),
                        None => None,
                    }
                }
                Ask::Share(_) | Ask::Whole { .. } => {
                    let key = Key { pod: entry.pod.uid.clone(), container: container.name.clone() };
                    Some(grant(container, self.answers.of(&key, claim?.core()?)?.clone()))
                }
            });
        }
        let known: Vec<Grant> = grants.iter().flatten().cloned().collect();
        let all = entry.pod.request.containers.iter().zip(grants).map(|(container, found)| {
            match (&container.ask, found) {
                (_, Some(grant)) => Some(grant),
                (Ask::Counted(counted), None) => Some(grant(container, self.reused(counted, &known)?)),
                _ => None,
            }
        });
        let plan = Plan { grants: all.collect::<Option<_>>()? };
        let limit = entry.pod.request.limit;
        let placement = Placement { node: entry.pod.node.clone(), time: entry.pod.created, limit, plan };
        placement.plan.serves(&entry.pod.request).then_some(placement)
    }

    /// What an init container had that was over before this process began: kubelet gives its ids to the containers
    /// after it, so their GPUs were its GPUs; more than they have, of the same GPUs first.
    fn reused(&self, counted: &Counted, later: &[Grant]) -> Option<Vec<Slice>> {
        let same = later.iter().filter(|grant| grant.form == Form::Counted(counted.resource.clone()));
        let held: BTreeMap<&DeviceId, u32> =
            same.flat_map(|grant| &grant.slices).map(|slice| (&slice.device, slice.count)).collect();
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
        let slices = taken.map(|(device, count)| self.slice(&counted.resource, device.as_str(), count));
        let mut slices = slices.collect::<Option<Vec<Slice>>>().filter(|_| left == 0)?;
        slices.sort_by(|a, b| (a.index, &a.device).cmp(&(b.index, &b.device)));
        Some(slices)
    }
}
