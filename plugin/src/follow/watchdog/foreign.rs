//! Processes on GPUs that their containers were not given. A pod can name GPUs itself (`NVIDIA_VISIBLE_DEVICES`), also one
//! that asks for none. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kerf::ids::{ContainerName, DeviceId, PodRef, PodUid};

use crate::allocation::Bystander;
use crate::allocation::view::PodView;
use crate::base::cgroup::Owner;
use crate::device::backend::ProcessUsage;
use crate::state::breach::{Observation, Subject};
use crate::state::sample::Sample;

/// What is known of the pods of this node.
pub struct Known<'a> {
    pub pods: &'a [PodView],
    /// Pods that ask for no GPU; none where they may have GPUs that kerf does not place.
    pub bystanders: &'a [Bystander],
    /// The container of this process and its children.
    pub own: Option<&'a Owner>,
    /// The GPUs' indices.
    pub indices: &'a BTreeMap<DeviceId, u32>,
}

/// A container that a process runs in.
struct Place<'a> {
    uid: &'a PodUid,
    pod: &'a PodRef,
    /// `None`: the API server does not show yet which of the pod's containers has this id.
    container: Option<&'a ContainerName>,
    view: Option<&'a PodView>,
}

impl<'a> Known<'a> {
    /// Every container with a process on a GPU that it was not given, each once for a GPU.
    pub fn foreign(&self, sample: &Sample) -> Vec<Observation> {
        let mut subjects = BTreeSet::new();
        for (process, owner) in sample.usage.processes.iter().zip(&sample.owners) {
            let Some(place) = self.place(process, owner.as_ref()) else { continue };
            if place.view.is_some_and(|view| given(view, place.container, &process.device)) {
                continue;
            }
            // a container without a name yet has that of its id
            let id = || owner.as_ref().and_then(|owner| owner.container.get(..12)).unwrap_or_default();
            subjects.insert(Subject {
                uid: place.uid.clone(),
                pod: place.pod.clone(),
                container: place.container.cloned().unwrap_or_else(|| id().into()),
                device: process.device.clone(),
                index: self.indices.get(&process.device).copied().unwrap_or_default(),
            });
        }
        subjects.into_iter().map(Observation::new).collect()
    }

    fn place(&self, process: &'a ProcessUsage, owner: Option<&Owner>) -> Option<Place<'a>> {
        if let Some((pod, container)) = &process.owner {
            let container = Some(container);
            let own = |view: &&PodView| view.pod.reference == *pod;
            if let Some(view) = self.pods.iter().find(own) {
                return Some(Place { uid: &view.pod.uid, pod, container, view: Some(view) });
            }
            let bystander = self.bystanders.iter().find(|bystander| bystander.reference == *pod)?;
            return Some(Place { uid: &bystander.uid, pod, container, view: None });
        }
        let owner = owner.filter(|owner| self.own != Some(*owner))?;
        // the control group of a pod from a file does not have the uid that the API server shows
        let view = |view: &&PodView| {
            let ids = &view.pod.runtime_ids;
            ids.contains_key(&owner.container) || view.pod.uid.as_str() == owner.pod
        };
        if let Some(view) = self.pods.iter().find(view) {
            let container = view.pod.runtime_ids.get(&owner.container);
            return Some(Place { uid: &view.pod.uid, pod: &view.pod.reference, container, view: Some(view) });
        }
        let own = |bystander: &&Bystander| {
            bystander.runtime_ids.contains_key(&owner.container) || bystander.uid.as_str() == owner.pod
        };
        let Bystander { uid, reference, runtime_ids } = self.bystanders.iter().find(own)?;
        Some(Place { uid, pod: reference, container: runtime_ids.get(&owner.container), view: None })
    }
}

/// Whether a container of the pod was given the GPU; any of its containers, where it is not known which it is. A pod
/// whose GPUs are not known is believed.
fn given(view: &PodView, container: Option<&ContainerName>, device: &DeviceId) -> bool {
    let mut grants = view.containers.iter().map(|container| &container.grant);
    let of = |name: &ContainerName| container.is_none_or(|container| container == name);
    view.containers.is_empty()
        || grants.any(|grant| of(&grant.container) && grant.gpus.ids().any(|id| id == device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::backend::Usage;

    fn owner(pod: &str, container: &str) -> Option<Owner> {
        Some(Owner { pod: pod.to_owned(), container: container.to_owned() })
    }

    #[test]
    fn a_process_is_its_containers_by_its_control_group() {
        let bystanders = [Bystander {
            uid: "u".into(),
            reference: PodRef::new("ns", "p"),
            runtime_ids: BTreeMap::from([("id-of-main".to_owned(), "main".into())]),
        }];
        let process = ProcessUsage { pid: 7, device: "GPU-0".into(), memory: None, utilization: None, owner: None };
        let indices = BTreeMap::from([(DeviceId::from("GPU-0"), 3)]);
        let own = owner("plugin", "own");
        let found = |owner: Option<Owner>, bystanders: &[Bystander]| {
            let usage = Usage { processes: vec![process.clone(), process.clone()], ..Usage::default() };
            let sample = Sample::new(usage, vec![owner.clone(), owner]);
            let known = Known { pods: &[], bystanders, own: own.as_ref(), indices: &indices };
            let all = known.foreign(&sample).into_iter();
            let all = all.map(|one| (one.subject.container.to_string(), one.subject.index, one.share));
            all.collect::<Vec<_>>()
        };
        assert_eq!(found(owner("u", "id-of-main"), &bystanders), [("main".to_owned(), 3, None)]);
        // a pod from a file has another uid in its control group
        assert_eq!(found(owner("hash", "id-of-main"), &bystanders), [("main".to_owned(), 3, None)]);
        // its status does not show the container yet
        let unnamed = found(owner("u", "0123456789abcdef"), &bystanders);
        assert_eq!(unnamed, [("0123456789ab".to_owned(), 3, None)]);
        assert_eq!(found(owner("other", "x"), &bystanders), [], "no pod that is known");
        assert_eq!(found(None, &bystanders), [], "a program of the host");
        assert_eq!(found(owner("u", "id-of-main"), &[]), []);
        assert_eq!(found(owner("plugin", "own"), &bystanders), [], "kerf's own daemons");
    }
}
