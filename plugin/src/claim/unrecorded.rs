//! Pods with shares by count that nobody has recorded: another scheduler bound them, or an extender that did not know
//! of such shares. What kubelet says they hold becomes their record, so that it is counted from then on.

use std::collections::BTreeMap;

use kerf::ids::{DeviceId, PodUid};
use kerf::plan::{Form, Grant, Placement, Plan, Slice};
use kerf::request::{Ask, ContainerRequest};
use kerf::shares::Counted;

use super::Claims;
use super::entry::Entry;
use crate::ids::Resource;

impl Claims {
    /// Makes a record for each such pod that has all it asks for.
    pub(super) fn write_down(&mut self) {
        let bare = self.pods.values().filter(|entry| entry.placement.is_none() && entry.complete());
        let found: Vec<(PodUid, Placement)> =
            bare.filter_map(|entry| Some((entry.pod.uid.clone(), self.found(entry)?))).collect();
        for (uid, placement) in found {
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.placement = Some(placement);
                entry.exchanged = true;
            }
        }
    }

    /// What the pod holds by its ids. `None` where they do not say, and for pods with anything but shares by count: of
    /// these nothing is given without a record.
    fn found(&self, entry: &Entry) -> Option<Placement> {
        let grant = |container: &ContainerRequest, slices: Vec<Slice>, counted: &Counted| Grant {
            container: container.name.clone(),
            kind: container.kind,
            position: container.position,
            form: Form::Counted(counted.resource.clone()),
            slices,
        };
        let mut grants: Vec<Option<Grant>> = Vec::new();
        for container in &entry.pod.request.containers {
            let Ask::Counted(counted) = &container.ask else { return None };
            let resource = Resource::Counted(counted.resource.clone());
            let ids = entry.claim(&container.name).and_then(|claim| claim.ids(&resource));
            grants.push(match ids {
                Some(ids) => Some(grant(container, self.shares(&counted.resource, ids)?, counted)),
                None => None,
            });
        }
        let known: Vec<Grant> = grants.iter().flatten().cloned().collect();
        let all = entry.pod.request.containers.iter().zip(grants).map(|(container, found)| {
            match (&container.ask, found) {
                (_, Some(grant)) => Some(grant),
                (Ask::Counted(counted), None) => Some(grant(container, self.reused(counted, &known)?, counted)),
                _ => None,
            }
        });
        let plan = Plan { grants: all.collect::<Option<_>>()? };
        Some(Placement { node: entry.pod.node.clone(), time: entry.pod.created, limit: None, plan })
    }

    /// What an init container had that was over before this process began: kubelet gives its ids to the containers
    /// after it, so their cards were its cards; more than they have, of the same cards first.
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
