//! What a container is handed for its GPUs: the rule ([`HandOver`]), and the result ([`ContainerEdits`]).
//!
//! No limit is in the environment, where the container could change it, and `LD_LIBRARY_PATH` is left to the image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kerf::annotation::Keys;
use kerf::plan::ContainerGrant;

use crate::device::backend::{HostDevice, Part, Vendor};
use crate::device::cards::Cards;
use crate::device::roots::Roots;
use crate::offer::units::Pool;

/// How GPUs are handed to containers: all of `items`, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandOver {
    /// Whether GPUs are named to container runtimes by index instead of UUID. Instances (MIG) are named by UUID still.
    pub names_by_index: bool,
    /// The order is also the order in every resulting list.
    pub items: Vec<Item>,
}

/// One thing that a container is handed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Device files, under the host's path in the container too, with permissions such as `rw`.
    Files(Files, &'static str),
    /// `NVIDIA_VISIBLE_DEVICES` names the GPUs, if one is of a vendor whose container runtime reads it. Programs of
    /// other vendors see the GPUs whose files they have.
    VisibleDevices(BTreeSet<Vendor>),
    /// Mounts below `/var/run/nvidia-container-devices` name the GPUs.
    VisibleDevicesMounts,
    /// `ZE_AFFINITY_MASK` tells Level Zero the indices of the GPUs.
    AffinityMask,
    Directory {
        /// Mounted read-only.
        host: PathBuf,
        container: PathBuf,
    },
    /// The GPUs' links below `/dev/dri/by-path`.
    DriLinks,
    /// Names by which the runtime finds the GPUs in CDI files.
    Cdi(Cdi),
    /// Annotations that tell the runtime how much of which device files the container has.
    Amounts(Box<Keys>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// Those of the container's GPUs alone.
    Gpus,
    /// Those that any GPU of the vendor needs.
    Driver,
    /// Those of the GPUs' monitoring engines.
    Monitoring,
    /// These paths, whether they exist or not.
    Paths(Vec<PathBuf>),
    /// The file of this name below `/dev`, if the host has it.
    IfThere(Roots, &'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cdi {
    /// `vendor.com/class`
    pub kind: String,
    /// Where the names are described; `None` if another program does it, by UUID.
    pub directory: Option<PathBuf>,
    /// The prefix of the annotation with the names; `None`: they go into the field of the answer.
    pub annotation: Option<String>,
}

/// What a container gets beyond its image, independent of kubelet's and CDI's formats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerEdits {
    pub envs: BTreeMap<String, String>,
    /// Each once.
    pub devices: Vec<DeviceFile>,
    /// In the order in which they are mounted.
    pub mounts: Vec<Mount>,
    /// For the container runtime.
    pub annotations: BTreeMap<String, String>,
    /// `vendor.com/class=name`
    pub cdi_devices: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFile {
    /// On the host and in the container.
    pub path: PathBuf,
    /// Of `m`, `r` and `w`.
    pub permissions: &'static str,
}

/// A file or directory of the host that a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub host: PathBuf,
    pub container: PathBuf,
    /// For the container; the host may still write it.
    pub read_only: bool,
}

impl Mount {
    fn read_only(host: impl Into<PathBuf>, container: impl Into<PathBuf>) -> Self {
        Self { host: host.into(), container: container.into(), read_only: true }
    }
}

/// Why ids are not given out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("unknown device {0:?}")]
    Unknown(String),
    /// The GPU is unhealthy or gone.
    #[error("device {0:?} is unhealthy")]
    Unhealthy(String),
    /// A container may have only one share.
    #[error("{0} shares were requested, but a container may have only one")]
    Several(usize),
}

kerf::words! {
    /// The label values in metrics.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Code {
        Unknown = "unknown-id",
        Unhealthy = "unhealthy",
        Several = "several-shares",
    }
}

impl Refusal {
    /// The label value in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => Code::Unknown.as_str(),
            Self::Unhealthy(_) => Code::Unhealthy.as_str(),
            Self::Several(_) => Code::Several.as_str(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Given<'a> {
    hosts: Vec<&'a HostDevice>,
    /// GPUs of the record that this node does not have: they are named, but have no files.
    absent: Vec<&'a str>,
    /// Percent of compute and bytes of memory, where a record tells them.
    amounts: Option<(u32, u64)>,
}

impl<'a> Given<'a> {
    /// A single GPU, without a record.
    pub fn one(host: &'a HostDevice) -> Self {
        Self { hosts: vec![host], ..Self::default() }
    }

    /// The GPUs that the ids name.
    ///
    /// # Errors
    /// [`Refusal`]; kubelet then fails the pod.
    pub fn by_ids(pool: &'a Pool, one_share: bool, ids: &[String]) -> Result<Self, Refusal> {
        let ids: BTreeSet<&String> = ids.iter().collect();
        if one_share && ids.len() > 1 {
            return Err(Refusal::Several(ids.len()));
        }
        let mut hosts: Vec<&HostDevice> = Vec::new();
        for id in ids {
            let unit = pool.get(id).ok_or_else(|| Refusal::Unknown(id.clone()))?;
            if unit.unhealthy() {
                return Err(Refusal::Unhealthy(id.clone()));
            }
            hosts.extend(unit.hosts.iter().filter(|host| host.device.usable()).map(AsRef::as_ref));
        }
        hosts.sort_by_key(|host| (host.device.index, &host.device.id));
        hosts.dedup_by_key(|host| &host.device.id);
        Ok(Self { hosts, ..Self::default() })
    }

    /// The GPUs and amounts of a record.
    pub fn by_record(grant: &'a ContainerGrant, cards: &'a Cards) -> Self {
        let core = grant.gpus.amounts().map(|(_, share)| share.compute.to_core_units()).sum();
        let memory = grant.gpus.amounts().map(|(_, share)| share.memory.bytes()).sum();
        let mut given = Self { amounts: Some((core, memory)), ..Self::default() };
        for device in grant.gpus.ids() {
            match cards.get(device) {
                Some(host) => given.hosts.push(host),
                None => given.absent.push(device.as_str()),
            }
        }
        given
    }

    fn names(&self, by_index: bool) -> Vec<String> {
        let name = |host: &&HostDevice| match host.origin.part {
            Part::Instance { .. } => host.device.id.to_string(),
            _ if by_index => host.device.index.to_string(),
            _ => host.device.id.to_string(),
        };
        self.hosts.iter().map(name).chain(self.absent.iter().map(|id| (*id).to_owned())).collect()
    }
}

impl HandOver {
    /// Names GPUs by UUID.
    pub fn new(items: impl IntoIterator<Item = Item>) -> Self {
        Self { names_by_index: false, items: items.into_iter().collect() }
    }

    /// The CDI names, where GPUs have some.
    pub fn cdi(&self) -> Option<&Cdi> {
        self.items.iter().find_map(|item| if let Item::Cdi(cdi) = item { Some(cdi) } else { None })
    }

    /// All but these items.
    #[must_use]
    pub fn without(&self, left_out: impl Fn(&Item) -> bool) -> Self {
        let items = self.items.iter().filter(|item| !left_out(item)).cloned().collect();
        Self { items, ..self.clone() }
    }

    /// What the container with these GPUs gets.
    pub fn edits(&self, given: &Given<'_>) -> ContainerEdits {
        let mut edits = ContainerEdits::default();
        for item in &self.items {
            match item {
                Item::Files(files, permissions) => edits.devices_of(files, permissions, given),
                Item::VisibleDevices(readers) => {
                    let read = |host: &&HostDevice| readers.contains(&host.origin.vendor);
                    if given.hosts.is_empty() || given.hosts.iter().any(read) {
                        edits.env("NVIDIA_VISIBLE_DEVICES", given.names(self.names_by_index).join(","));
                    }
                }
                Item::VisibleDevicesMounts => {
                    const DIRECTORY: &str = "/var/run/nvidia-container-devices";
                    edits.env("NVIDIA_VISIBLE_DEVICES", DIRECTORY.to_owned());
                    let names = given.names(self.names_by_index).into_iter();
                    edits
                        .mounts
                        .extend(names.map(|name| Mount::read_only("/dev/null", format!("{DIRECTORY}/{name}"))));
                }
                Item::AffinityMask => {
                    let indices: Vec<String> =
                        given.hosts.iter().map(|host| host.device.index.to_string()).collect();
                    edits.env("ZE_AFFINITY_MASK", indices.join(","));
                }
                Item::Directory { host, container } => edits.mounts.push(Mount::read_only(host, container)),
                Item::DriLinks => {
                    let links = given.hosts.iter().flat_map(|host| &host.dri_links);
                    edits.mounts.extend(links.map(|link| Mount::read_only(link, link)));
                }
                Item::Cdi(cdi) => edits.named(cdi, given, self.names_by_index),
                Item::Amounts(keys) => edits.amounts(keys, given),
            }
        }
        edits
    }
}

impl ContainerEdits {
    /// Adds another's edits.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.envs.extend(other.envs);
        self.devices.extend(other.devices);
        self.mounts.extend(other.mounts);
        self.annotations.extend(other.annotations);
        self.cdi_devices.extend(other.cdi_devices);
        self
    }

    fn env(&mut self, name: &str, value: String) {
        self.envs.insert(name.to_owned(), value);
    }

    fn devices_of(&mut self, files: &Files, permissions: &'static str, given: &Given<'_>) {
        let of =
            |files: fn(&HostDevice) -> &Vec<PathBuf>| given.hosts.iter().flat_map(move |host| files(host)).cloned();
        let paths: Vec<PathBuf> = match files {
            Files::Gpus => of(|host| &host.nodes).collect(),
            Files::Driver => of(|host| &host.control_nodes).collect(),
            Files::Monitoring => of(|host| &host.monitoring_nodes).collect(),
            Files::Paths(paths) => paths.clone(),
            Files::IfThere(roots, name) => roots.node(name).into_iter().collect(),
        };
        for path in paths {
            if !self.devices.iter().any(|known| known.path == path) {
                self.devices.push(DeviceFile { path, permissions });
            }
        }
    }

    fn named(&mut self, cdi: &Cdi, given: &Given<'_>, by_index: bool) {
        let names: Vec<String> = match &cdi.directory {
            Some(_) => given.hosts.iter().map(|host| host.origin.name.to_string()).collect(),
            None => given.names(by_index),
        };
        let names = names.into_iter().map(|name| format!("{}={name}", cdi.kind));
        match &cdi.annotation {
            Some(prefix) => {
                let value = names.collect::<Vec<_>>().join(",");
                self.annotations.insert(format!("{prefix}kerf-plugin_cards"), value);
            }
            None => self.cdi_devices.extend(names),
        }
    }

    fn amounts(&mut self, keys: &Keys, given: &Given<'_>) {
        let Some((core, memory)) = given.amounts else { return };
        let nodes = given.hosts.iter().flat_map(|host| &host.nodes);
        let nodes: Vec<String> = nodes.map(|node| node.display().to_string()).collect();
        self.annotations.extend([
            (keys.core.clone(), core.to_string()),
            (keys.memory.clone(), memory.to_string()),
            (format!("{}/vcuda-device", keys.domain), nodes.join(",")),
        ]);
    }
}
