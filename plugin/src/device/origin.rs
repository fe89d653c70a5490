//! What a device is among the GPUs of its host: a whole GPU, or a partition of one.

use std::sync::Arc;

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
            Self::Whole => "card",
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
