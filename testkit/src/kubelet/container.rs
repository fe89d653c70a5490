//! What a container was given: the answers of all its plugins, merged as kubelet merges them.

use std::collections::{BTreeMap, BTreeSet};

use kerf_proto::deviceplugin::{ContainerAllocateResponse, DeviceSpec, Mount};

/// The stage of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Its devices are allocated.
    Admitted,
    /// It was started.
    Running,
    /// It was an init container and has ended.
    Finished,
}

/// Two plugins gave different values for one key; kubelet kept the first and logged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `env`, `mount`, `device` or `annotation`.
    pub kind: &'static str,
    /// The variable, container path or annotation.
    pub key: String,
    /// The value that the container has.
    pub kept: String,
    /// The value that was dropped.
    pub dropped: String,
}

/// A container on the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The container's name.
    pub name: String,
    /// Whether it is an init container that ends before the others start.
    pub init: bool,
    /// The stage that it has reached.
    pub state: ContainerState,
    /// Its device ids by resource, sorted.
    pub resources: BTreeMap<String, BTreeSet<String>>,
    /// Environment from the plugins.
    pub env: BTreeMap<String, String>,
    /// Mounts from the plugins.
    pub mounts: Vec<Mount>,
    /// Device nodes from the plugins.
    pub devices: Vec<DeviceSpec>,
    /// Annotations for the runtime, from the plugins.
    pub annotations: BTreeMap<String, String>,
    /// Fully qualified CDI device names from the plugins.
    pub cdi_devices: Vec<String>,
    /// Where the plugins of its resources disagreed.
    pub conflicts: Vec<Conflict>,
    /// How often it was started.
    pub starts: u32,
    /// Errors of `PreStartContainer`, oldest first.
    pub start_errors: Vec<String>,
}

impl Container {
    /// `namespace/name` of its pod.
    pub fn pod_ref(&self) -> String {
        format!("{}/{}", self.namespace, self.pod)
    }

    /// The ids of one resource.
    pub fn ids(&self, resource: &str) -> Vec<String> {
        self.resources.get(resource).map(|ids| ids.iter().cloned().collect()).unwrap_or_default()
    }

    /// Merges the answers of its plugins in the given order: the first value of a key stays.
    pub(crate) fn merge<'a>(&mut self, answers: impl Iterator<Item = &'a ContainerAllocateResponse>) {
        self.env.clear();
        self.mounts.clear();
        self.devices.clear();
        self.annotations.clear();
        self.cdi_devices.clear();
        self.conflicts.clear();
        for answer in answers {
            for (key, value) in &answer.envs {
                keep(&mut self.env, &mut self.conflicts, "env", key, value);
            }
            for mount in &answer.mounts {
                match self.mounts.iter().find(|old| old.container_path == mount.container_path) {
                    None => self.mounts.push(mount.clone()),
                    Some(old) if old == mount => {}
                    Some(old) => self.conflicts.push(Conflict {
                        kind: "mount",
                        key: mount.container_path.clone(),
                        kept: format!("{} ro={}", old.host_path, old.read_only),
                        dropped: format!("{} ro={}", mount.host_path, mount.read_only),
                    }),
                }
            }
            for device in &answer.devices {
                match self.devices.iter().find(|old| old.container_path == device.container_path) {
                    None => self.devices.push(device.clone()),
                    Some(old) if old == device => {}
                    Some(old) => self.conflicts.push(Conflict {
                        kind: "device",
                        key: device.container_path.clone(),
                        kept: format!("{} {}", old.host_path, old.permissions),
                        dropped: format!("{} {}", device.host_path, device.permissions),
                    }),
                }
            }
            for (key, value) in &answer.annotations {
                keep(&mut self.annotations, &mut self.conflicts, "annotation", key, value);
            }
            for device in &answer.cdi_devices {
                if !self.cdi_devices.contains(&device.name) {
                    self.cdi_devices.push(device.name.clone());
                }
            }
        }
    }
}

fn keep(
    map: &mut BTreeMap<String, String>,
    conflicts: &mut Vec<Conflict>,
    kind: &'static str,
    key: &str,
    value: &str,
) {
    match map.get(key) {
        None => {
            map.insert(key.to_owned(), value.to_owned());
        }
        Some(kept) if kept == value => {}
        Some(kept) => {
            conflicts.push(Conflict { kind, key: key.to_owned(), kept: kept.clone(), dropped: value.to_owned() })
        }
    }
}
