//! kubelet's device manager and its list, as far as a plugin can tell.

use std::collections::{BTreeMap, BTreeSet};

use kerf::ids::{ContainerName, PodRef};
use kerf::request::ContainerKind;

use super::super::{CARDS, MEMORY};
use crate::allocation::{ContainerResources, Listing, Pod};
use crate::device::ids::{Ids, Resource, unit};

pub(super) type Name = (PodRef, ContainerName);

pub(super) struct Kubelet {
    pub(super) free: BTreeMap<Resource, BTreeSet<String>>,
    pub(super) held: BTreeMap<Name, BTreeMap<Resource, Vec<String>>>,
    /// Pods whose turn has come since kubelet's start and that were not rejected. Older kubelets list rejected ones
    /// as well.
    pub(super) present: BTreeSet<PodRef>,
    /// Whether some set was chosen without advice, so that free ids no longer mirror free GPUs.
    pub(super) unasked: bool,
}

fn all() -> BTreeMap<Resource, BTreeSet<String>> {
    let ids = |count: u32| (0..CARDS).flat_map(move |c| (0..count).map(move |k| unit(&format!("GPU-{c}"), k)));
    let memory = u32::try_from(MEMORY).unwrap();
    BTreeMap::from([(Resource::Core, ids(100).collect()), (Resource::Memory, ids(memory).collect())])
}

impl Kubelet {
    pub(super) fn new() -> Self {
        Self { free: all(), held: BTreeMap::new(), present: BTreeSet::new(), unasked: false }
    }

    /// Frees what a pod held; `listed`: it stays on the list.
    pub(super) fn release(&mut self, pod: &PodRef, listed: bool) {
        if !listed {
            self.present.remove(pod);
        }
        let held = std::mem::take(&mut self.held);
        for ((holder, name), ids) in held {
            if holder == *pod {
                for (resource, ids) in ids {
                    self.free.get_mut(&resource).unwrap().extend(ids);
                }
            } else {
                self.held.insert((holder, name), ids);
            }
        }
    }

    /// kubelet ended before it wrote down what it gave this container. Ids that another container has as well stay
    /// with that one: those of an init container stay with it.
    pub(super) fn lose(&mut self, key: &Name) {
        for (resource, ids) in self.held.remove(key).into_iter().flatten() {
            let held =
                |id: &String| self.held.values().filter_map(|held| held.get(&resource)).any(|ids| ids.contains(id));
            let freed: Vec<String> = ids.into_iter().filter(|id| !held(id)).collect();
            self.free.get_mut(&resource).unwrap().extend(freed);
        }
    }

    pub(super) fn forget(&mut self) {
        self.held.clear();
        self.free = all();
    }

    /// The pod resources list: ordinary init containers are not in it.
    pub(super) fn list<'a>(&self, pods: impl Iterator<Item = &'a Pod> + Clone) -> Listing {
        let lasting = |reference: &PodRef, container: &ContainerName| {
            let pod = pods.clone().find(|pod| pod.reference == *reference).unwrap();
            let found = pod.request.containers.iter().find(|c| c.name == *container);
            found.is_some_and(|c| c.kind != ContainerKind::Init)
        };
        let some = |ids: &BTreeMap<Resource, Vec<String>>| {
            ids.iter().map(|(resource, ids)| (resource.clone(), Ids::new(ids.iter().cloned()))).collect()
        };
        let held = self.held.iter().filter(|((pod, name), _)| self.present.contains(pod) && lasting(pod, name));
        Listing {
            pods: self.present.clone(),
            held: held
                .map(|((pod, container), ids)| ContainerResources {
                    pod: pod.clone(),
                    container: container.clone(),
                    ids: some(ids),
                })
                .collect(),
            other_domain: None,
        }
    }
}
