//! What a device is among the cards of its host: the card itself, or a part of one.

use std::sync::Arc;

/// Who made a card. What kerf knows of each stands in [`crate::vendor`], whose table has a line for every one.
#[allow(missing_docs, reason = "names")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vendor {
    /// Nobody: described by a file.
    #[default]
    Simulated,
    Nvidia,
    Amd,
    Intel,
}

impl Vendor {
    /// Whether people know a card by the kernel's name of it (`card1`) and not by its PCI address.
    pub fn known_by_name(self) -> bool {
        match self {
            Self::Intel => true,
            Self::Simulated | Self::Nvidia | Self::Amd => false,
        }
    }
}

/// Which part of its card a device is. The parts of one card have the same [`Origin::card`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// An instance of an NVIDIA card in MIG mode.
    Instance {
        /// GPU instance.
        gi: u32,
        /// Compute instance in it.
        ci: u32,
        /// Its profile, such as `3g.20gb`; empty where it is not known.
        profile: Arc<str>,
    },
    /// A compute partition of an AMD card (XCP).
    Partition,
    /// A virtual function (SR-IOV) of a card.
    Function,
}

impl Part {
    /// The word used in reports.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Whole => "card",
            Self::Instance { .. } => "instance",
            Self::Partition => "partition",
            Self::Function => "function",
        }
    }
}

/// Where a device comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Who made it.
    pub vendor: Vendor,
    /// The kernel's driver, as sysfs names it: `nvidia`, `amdgpu`, `i915`, `xe`.
    pub driver: Arc<str>,
    /// The kernel's name of it: `nvidia0`, `nvidia0/gi1`, `card1`, `amdgpu_xcp_7`.
    pub name: Arc<str>,
    /// The physical card, the same for all parts of one: its PCI address (AMD: without the function), or where there
    /// is none its name.
    pub card: Arc<str>,
    /// Which part of that card it is.
    pub part: Part,
    /// How an AMD card is partitioned, compute and memory, as `cpx_nps4`; empty where it cannot be.
    pub layout: Arc<str>,
    /// PCI device id, `0x74a1`; empty where it is not known.
    pub model_id: Arc<str>,
}

impl Origin {
    /// A whole card; `pci` may be empty.
    pub fn whole(vendor: Vendor, driver: &str, name: &str, pci: &str) -> Self {
        let card = if pci.is_empty() { name } else { pci };
        Self { vendor, driver: driver.into(), name: name.into(), card: card.into(), ..Self::default() }
    }

    /// Who else may have the device file at `place` of a device's own: for an instance (MIG), all instances of its card
    /// have the card's (the first), and all compute instances of its GPU instance have that one's (the second).
    pub fn shares(&self, place: usize) -> Option<String> {
        match (&self.part, place) {
            (Part::Instance { .. }, 0) => Some(format!("card {}", self.card)),
            (Part::Instance { gi, .. }, 1) => Some(format!("instance {} {gi}", self.card)),
            _ => None,
        }
    }
}
