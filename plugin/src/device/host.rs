//! A GPU on its host, and what it does.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kerf::device::Device;
use kerf::ids::{ContainerName, DeviceId, PodRef};

use crate::device::facts::Facts;
use crate::device::origin::{Origin, Part};

/// A card and how it is reached on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// As the node publishes it.
    pub device: Device,
    /// PCI address as sysfs spells it (`0000:3b:00.0`); empty where there is none.
    pub pci: String,
    /// Device files that a container needs for this card, as paths on the host.
    pub nodes: Vec<PathBuf>,
    /// Device files that a container needs for any card of this vendor.
    pub control_nodes: Vec<PathBuf>,
    /// Links below `/dev/dri/by-path` that lead to its files.
    pub dri_links: Vec<PathBuf>,
    /// Device files of its monitoring engines.
    pub monitoring_nodes: Vec<PathBuf>,
    /// What it is among the cards of its host.
    pub origin: Origin,
    /// What its driver tells beyond that.
    pub facts: Facts,
}

impl HostDevice {
    /// A card of which nothing more is known: no address, no file.
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

    /// Whether it is a hardware partition of a card (MIG): whoever has it whole shares nothing with its neighbours.
    pub fn partition(&self) -> bool {
        matches!(self.origin.part, Part::Instance { .. })
    }

    /// What reports call it: its PCI address, as people look for it, or the kernel's name of a part or an Intel card.
    pub fn subject(&self) -> &str {
        let by_name = self.pci.is_empty() || self.origin.part != Part::Whole || self.origin.vendor.known_by_name();
        if by_name { &self.origin.name } else { &self.pci }
    }
}

/// What the cards do at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Of the cards that answered.
    pub gpus: BTreeMap<DeviceId, GpuUsage>,
    /// Processes that use a card; one entry for each card that a process uses.
    pub processes: Vec<ProcessUsage>,
}

/// What one card does. `None`: this card does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuUsage {
    /// Time in which it was busy, in percent.
    pub utilization: Option<u32>,
    /// Memory in use, in bytes.
    pub memory_used: Option<u64>,
    /// All memory, in bytes.
    pub memory_total: Option<u64>,
    /// In degrees Celsius.
    pub temperature: Option<u32>,
    /// In milliwatts.
    pub power: Option<u32>,
}

/// What one process does on one card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessUsage {
    /// In the host's PID namespace.
    pub pid: u32,
    /// Of the cards that it uses, one.
    pub device: DeviceId,
    /// Card memory in use, in bytes, where the driver tells.
    pub memory: Option<u64>,
    /// Time in which it used the card's multiprocessors, in percent, where the driver tells.
    pub utilization: Option<u32>,
    /// The container it runs in, where the backend itself says so; otherwise the process's control group does.
    pub owner: Option<(PodRef, ContainerName)>,
}
