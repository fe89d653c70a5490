//! A GPU on its host: how it is reached, what it is among the others, and its usage.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kerf::device::Device;
use kerf::ids::{ContainerName, DeviceId, PodRef};

use crate::device::facts::Facts;

/// A GPU and how it is reached on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// As the node publishes it.
    pub device: Device,
    /// PCI address as sysfs spells it (`0000:3b:00.0`); empty where there is none.
    pub pci: String,
    /// Device files that a container needs for this GPU, as paths on the host.
    pub nodes: Vec<PathBuf>,
    /// Device files that a container needs for any GPU of this vendor.
    pub control_nodes: Vec<PathBuf>,
    /// Links below `/dev/dri/by-path` that lead to its files.
    pub dri_links: Vec<PathBuf>,
    /// Device files of its monitoring engines.
    pub monitoring_nodes: Vec<PathBuf>,
    /// Its place among the GPUs of its host.
    pub origin: Origin,
    /// Further facts from its driver.
    pub facts: Facts,
}

impl HostDevice {
    /// A GPU with no known address or file.
    pub fn new(device: Device, origin: Origin) -> Self {
        Self {
            device,
            pci: String::new(),
            nodes: Vec::new(),
            control_nodes: Vec::new(),
            dri_links: Vec::new(),
            monitoring_nodes: Vec::new(),
            origin,
            facts: Facts::None,
        }
    }

    /// Whether it is a hardware partition (MIG): a container that has it whole shares nothing with its neighbours.
    pub fn partition(&self) -> bool {
        matches!(self.origin.part, Part::Instance { .. })
    }

    /// Its name in reports: its PCI address, by which people know it, or the kernel's name of a partition or an
    /// Intel GPU.
    pub fn subject(&self) -> &str {
        let by_name = self.pci.is_empty() || self.origin.part != Part::Whole || self.origin.vendor.known_by_name();
        let subject = if by_name { &*self.origin.name } else { &self.pci };
        // simulated GPUs have neither
        if subject.is_empty() { self.device.id.as_str() } else { subject }
    }
}

/// The maker of a GPU. The table in [`crate::vendor`] has a line for every one.
#[allow(missing_docs, reason = "names")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vendor {
    /// No vendor: described by a file.
    #[default]
    Simulated,
    Nvidia,
    Amd,
    Intel,
}

impl Vendor {
    /// Whether people know a GPU by its kernel name (`card1`) and not by its PCI address.
    pub fn known_by_name(self) -> bool {
        match self {
            Self::Intel => true,
            Self::Simulated | Self::Nvidia | Self::Amd => false,
        }
    }
}

/// Which part of its GPU a device is. The parts of one GPU have the same [`Origin::card`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// The whole GPU.
    #[default]
    Whole,
    /// An instance of an NVIDIA GPU in MIG mode.
    Instance {
        /// GPU instance.
        gi: u32,
        /// The compute instance in it.
        ci: u32,
        /// Such as `3g.20gb`; empty where it is not known.
        profile: Arc<str>,
    },
    /// A compute partition of an AMD GPU (XCP).
    Partition,
    /// A virtual function (SR-IOV) of a GPU.
    Function,
}

impl Part {
    /// The name in reports.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Whole => "GPU",
            Self::Instance { .. } => "instance",
            Self::Partition => "partition",
            Self::Function => "function",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub vendor: Vendor,
    /// The kernel's driver, as sysfs names it: `nvidia`, `amdgpu`, `i915`, `xe`.
    pub driver: Arc<str>,
    /// The kernel's name of it: `nvidia0`, `nvidia0/gi1`, `card1`, `amdgpu_xcp_7`.
    pub name: Arc<str>,
    /// The physical GPU, the same for all its partitions: its PCI address (AMD: without the function), or its name
    /// where it has no address.
    pub card: Arc<str>,
    /// Which part of that GPU it is.
    pub part: Part,
    /// How an AMD GPU is partitioned, compute and memory, as `cpx_nps4`; empty where it cannot be.
    pub layout: Arc<str>,
    /// PCI device id, `0x74a1`; empty where it is not known.
    pub model_id: Arc<str>,
    /// Whether it is part of the processor, without memory of its own, as far as that can be told.
    pub integrated: bool,
}

impl Origin {
    /// A whole GPU; `pci` may be empty.
    pub fn whole(vendor: Vendor, driver: &str, name: &str, pci: &str) -> Self {
        let card = if pci.is_empty() { name } else { pci };
        Self { vendor, driver: driver.into(), name: name.into(), card: card.into(), ..Self::default() }
    }

    /// The devices that may have the device file at `place` of this device's own as well. Of an instance (MIG): all
    /// instances of its GPU have the GPU's file (the first), and all compute instances of its GPU instance have
    /// that one's (the second).
    pub fn shares(&self, place: usize) -> Option<String> {
        match (&self.part, place) {
            (Part::Instance { .. }, 0) => Some(format!("card {}", self.card)),
            (Part::Instance { gi, .. }, 1) => Some(format!("instance {} {gi}", self.card)),
            _ => None,
        }
    }
}

/// What GPUs and processes use at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Only GPUs that answered.
    pub gpus: BTreeMap<DeviceId, GpuUsage>,
    /// One entry for each GPU that a process uses.
    pub processes: Vec<ProcessUsage>,
}

impl Usage {
    /// Of GPUs of which nothing but the size of their memory is known, if that.
    pub fn sizes(hosts: &[HostDevice]) -> Self {
        let gpus = hosts.iter().map(|host| {
            let memory_total = Some(host.device.memory.bytes()).filter(|bytes| *bytes > 0);
            (host.device.id.clone(), GpuUsage { memory_total, ..GpuUsage::default() })
        });
        Self { gpus: gpus.collect(), processes: Vec::new() }
    }
}

/// `None` in a field: this GPU does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuUsage {
    /// Time in which it was busy, in percent.
    pub utilization: Option<u32>,
    /// In bytes.
    pub memory_used: Option<u64>,
    /// In bytes.
    pub memory_total: Option<u64>,
    /// In degrees Celsius.
    pub temperature: Option<u32>,
    /// In milliwatts.
    pub power: Option<u32>,
}

/// What one process uses on one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessUsage {
    /// In the host's PID namespace.
    pub pid: u32,
    /// One of the GPUs that it uses.
    pub device: DeviceId,
    /// GPU memory in use, in bytes, where the driver tells.
    pub memory: Option<u64>,
    /// Time in which it used the GPU's multiprocessors, in percent, where the driver tells.
    pub utilization: Option<u32>,
    /// Its container, where the backend itself tells; otherwise the process's control group does.
    pub owner: Option<(PodRef, ContainerName)>,
}
