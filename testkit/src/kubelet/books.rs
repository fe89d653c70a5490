//! The devices, the pods that hold them, and the plugin of each resource.
//!
//! Plain data without IO: what the real kubelet keeps in its device manager and its checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kerf_proto::deviceplugin::{ContainerAllocateResponse, Device, HEALTHY, TopologyInfo};
use serde_json::Value;

use super::container::Container;
use super::endpoint::Endpoint;

#[derive(Clone, Debug)]
pub(crate) struct DeviceState {
    pub(crate) healthy: bool,
    pub(crate) topology: Option<TopologyInfo>,
}

/// A resource that was registered since kubelet's last start.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) endpoint: Endpoint,
    /// Distinguishes a plugin from the one that it replaced.
    generation: u64,
    /// Whether a device list has come since kubelet's last start.
    listed: bool,
    connected: bool,
}

/// A pod that holds devices and has not ended.
#[derive(Debug)]
pub(crate) struct PodBook {
    pub(crate) pod: Arc<Value>,
    /// Whether its turn has come since kubelet's last start: only then is it listed, even if admitted before.
    pub(crate) present: bool,
    /// Whether all its containers have their devices.
    pub(crate) admitted: bool,
    pub(crate) containers: Vec<Container>,
    /// The answers of Allocate by container and resource; kept across restarts of containers and of kubelet.
    pub(crate) answers: BTreeMap<(String, String), ContainerAllocateResponse>,
}

/// What a container can get of a resource.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// The container has its devices already, from before a restart.
    Held(Vec<String>),
    /// The container gets devices now.
    Choice(Choice),
}

/// A request for devices that can be met, with the ids that are chosen already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Ids taken from the pod's finished init containers.
    pub(crate) reused: Vec<String>,
    /// Free healthy ids to choose the rest from.
    pub(crate) available: Vec<String>,
    pub(crate) missing: usize,
    /// Whether any device of the resource has topology information.
    pub(crate) topology: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) pods: BTreeMap<String, PodBook>,
    /// Uids of pods that were refused or have ended, though their status may not show it yet.
    pub(crate) ended: BTreeSet<String>,
    registered: BTreeMap<String, Registered>,
    devices: BTreeMap<String, BTreeMap<String, DeviceState>>,
    /// Resources in the checkpoint.
    known: BTreeSet<String>,
    generations: u64,
}

impl Books {
    /// Keeps what survives a restart: pods and the names of resources.
    pub(crate) fn restart(&mut self) {
        // Where a refusal was not written in time, the next run decides again.
        self.ended.clear();
        self.registered.clear();
        self.devices.clear();
        self.pods.values_mut().for_each(|book| book.present = false);
    }

    /// Closes a pod's book: its devices are free, and it will not be admitted again.
    pub(crate) fn end(&mut self, uid: &str) -> Option<PodBook> {
        self.ended.insert(uid.to_owned());
        self.pods.remove(uid)
    }

    /// Adds a new plugin; an older one of the same resource is forgotten.
    pub(crate) fn register(&mut self, resource: &str, endpoint: Endpoint) -> u64 {
        self.generations += 1;
        self.known.insert(resource.to_owned());
        let listed = self.registered.get(resource).is_some_and(|old| old.listed);
        self.registered.insert(
            resource.to_owned(),
            Registered { endpoint, generation: self.generations, listed, connected: true },
        );
        self.generations
    }

    /// Stores a device list, unless it is from a plugin that was replaced.
    pub(crate) fn list(&mut self, resource: &str, generation: u64, devices: Vec<Device>) -> bool {
        let Some(registered) =
            self.registered.get_mut(resource).filter(|registered| registered.generation == generation)
        else {
            return false;
        };
        registered.listed = true;
        let states = devices
            .into_iter()
            .map(|device| {
                let state = DeviceState { healthy: device.health == HEALTHY, topology: device.topology };
                (device.id, state)
            })
            .collect();
        self.devices.insert(resource.to_owned(), states);
        true
    }

    /// A plugin's stream has ended: its devices are unhealthy from now on.
    pub(crate) fn disconnect(&mut self, resource: &str, generation: u64, even_if_replaced: bool) -> bool {
        let Some(registered) = self
            .registered
            .get_mut(resource)
            .filter(|registered| registered.generation == generation || even_if_replaced)
        else {
            return false;
        };
        registered.connected = false;
        for state in self.devices.get_mut(resource).into_iter().flat_map(BTreeMap::values_mut) {
            state.healthy = false;
        }
        true
    }

    /// Whether a plugin has listed this resource since kubelet's last start.
    pub(crate) fn is_listed(&self, resource: &str) -> bool {
        self.registered.get(resource).is_some_and(|registered| registered.listed)
    }

    /// Whether kubelet knows this as a device plugin resource.
    pub(crate) fn is_known(&self, resource: &str) -> bool {
        self.known.contains(resource)
    }

    /// The plugin to call, if it is connected.
    pub(crate) fn endpoint(&self, resource: &str) -> Option<Endpoint> {
        self.registered
            .get(resource)
            .filter(|registered| registered.connected)
            .map(|registered| registered.endpoint.clone())
    }

    pub(crate) fn devices(&self) -> &BTreeMap<String, BTreeMap<String, DeviceState>> {
        &self.devices
    }

    /// Capacity and allocatable of every resource that was ever registered.
    pub(crate) fn amounts(&self) -> BTreeMap<String, (usize, usize)> {
        self.known
            .iter()
            .map(|resource| {
                let states = self.devices.get(resource);
                let all = states.map_or(0, BTreeMap::len);
                let healthy = states.map_or(0, |states| states.values().filter(|state| state.healthy).count());
                (resource.clone(), (all, healthy))
            })
            .collect()
    }

    /// What a container can get; the error is kubelet's own text.
    ///
    /// `reusable` is in the order in which ids are taken.
    pub(crate) fn offer(
        &self,
        uid: &str,
        container: &str,
        resource: &str,
        size: usize,
        reusable: &[String],
    ) -> Result<Offer, String> {
        let held = self.held(uid, container, resource);
        if let Some(held) = held.filter(|held| held.len() != size) {
            return Err(format!(
                "pod \"{uid}\" container \"{container}\" changed request for resource \"{resource}\" from {} to {size}",
                held.len()
            ));
        }
        if !self.is_known(resource) {
            return Err(format!("cannot allocate unregistered device {resource}"));
        }
        let states = self.devices.get(resource);
        let healthy: BTreeSet<&String> =
            states.into_iter().flatten().filter(|(_, state)| state.healthy).map(|(id, _)| id).collect();
        if healthy.is_empty() {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        if let Some(held) = held {
            if held.iter().any(|id| !healthy.contains(id)) {
                return Err(format!(
                    "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
                ));
            }
            return Ok(Offer::Held(held.iter().cloned().collect()));
        }
        let reused: Vec<String> = reusable.iter().take(size).cloned().collect();
        let missing = size - reused.len();
        let taken = self.in_use(resource);
        let available: Vec<String> = healthy.into_iter().filter(|id| !taken.contains(id)).cloned().collect();
        if available.len() < missing {
            return Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {missing}, Available: {}",
                available.len()
            ));
        }
        Ok(Offer::Choice(Choice {
            reused,
            available,
            missing,
            topology: states.is_some_and(|states| states.values().any(|state| state.topology.is_some())),
        }))
    }

    /// Records the devices of a container.
    pub(crate) fn grant(
        &mut self,
        uid: &str,
        container: &str,
        resource: &str,
        ids: &[String],
        answer: ContainerAllocateResponse,
    ) {
        let Some(book) = self.pods.get_mut(uid) else { return };
        book.answers.insert((container.to_owned(), resource.to_owned()), answer);
        if let Some(found) = book.containers.iter_mut().find(|found| found.name == container) {
            found.resources.insert(resource.to_owned(), ids.iter().cloned().collect());
        }
    }

    /// Records why a container could not start; false if its pod has ended.
    pub(crate) fn note_failed_start(&mut self, uid: &str, container: &str, error: String) -> bool {
        let Some(book) = self.pods.get_mut(uid) else {
            return false;
        };
        if let Some(found) = book.containers.iter_mut().find(|found| found.name == container) {
            found.start_errors.push(error);
        }
        true
    }

    fn held(&self, uid: &str, container: &str, resource: &str) -> Option<&BTreeSet<String>> {
        self.pods.get(uid)?.containers.iter().find(|found| found.name == container)?.resources.get(resource)
    }

    fn in_use(&self, resource: &str) -> BTreeSet<&String> {
        self.pods
            .values()
            .flat_map(|book| &book.containers)
            .filter_map(|container| container.resources.get(resource))
            .flatten()
            .collect()
    }
}
