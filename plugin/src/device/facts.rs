//! What a driver tells of a device beyond its inventory. Node labels are made of it; nothing is placed by it.
//!
//! What a driver does not tell is `None` or empty, and no label says it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kerf::units::Mib;

/// Facts of one device. Cards are cloned at every look at their health, so the facts are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Facts {
    /// None: described by a file.
    #[default]
    None,
    /// Of an AMD card or partition.
    Amd(Arc<AmdFacts>),
    /// Of an Intel card or function.
    Intel(Arc<IntelFacts>),
    /// Of an NVIDIA card or instance.
    Nvidia(Arc<NvidiaFacts>),
}

/// Facts of an AMD card or partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AmdFacts {
    /// `product_name` as the driver has it; empty where it has none.
    pub product: Arc<str>,
    /// `gfx_target_version` of the compute topology, such as 90402 for gfx942.
    pub gfx: Option<u64>,
    /// SIMD units.
    pub simds: Option<u64>,
    /// SIMD units of a compute unit.
    pub simds_per_cu: Option<u64>,
    /// Version of the module `amdgpu`, which only the driver that AMD packs has.
    pub driver_version: Arc<str>,
    /// Checksum of the module's source.
    pub driver_source: Arc<str>,
    /// Whether the card's compute can be partitioned.
    pub compute_partitions: bool,
    /// Whether the card's memory can be partitioned.
    pub memory_partitions: bool,
    /// Versions of the card's firmware, by the names of the driver's files (`me`, `smc`). Of a whole card alone.
    pub firmware: BTreeMap<String, u32>,
}

/// Facts of an Intel card or function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntelFacts {
    /// PCI class and subclass: `0300` shows pictures, `0380` does not.
    pub class: Arc<str>,
    /// Tiles; at least one.
    pub tiles: u64,
    /// Local memory of all tiles, in bytes.
    pub memory: Option<u64>,
}

/// Facts of an NVIDIA card, or of an instance (MIG) and its card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NvidiaFacts {
    /// The card's model.
    pub model: Arc<str>,
    /// The card's memory; 0 where it is not known.
    pub memory: Mib,
    /// Version of the driver, `550.90.07`.
    pub driver: Arc<str>,
    /// The newest CUDA that the driver serves.
    pub cuda: Option<(u32, u32)>,
    /// Compute capability.
    pub compute: Option<(u32, u32)>,
    /// Whether it can be cut into instances.
    pub mig_capable: Option<bool>,
    /// PCI class, `0x030200`.
    pub class: Option<u32>,
    /// What the firmware calls the machine.
    pub machine: Arc<str>,
    /// What an instance has.
    pub instance: Option<InstanceFacts>,
}

/// What an instance has of its card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Slices of the GPU instance, and of the compute instance.
    pub slices: [u32; 2],
    /// Engines: copy, decoder, encoder, jpeg, ofa.
    pub engines: [u32; 5],
}
