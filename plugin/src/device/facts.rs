//! What a driver tells of a device beyond its inventory. Node labels are made from it; placement does not use it.
//!
//! Facts that a driver does not tell are `None` or empty, and get no label.

use std::collections::BTreeMap;
use std::sync::Arc;

use kerf::units::Mib;

/// Facts of one device. GPUs are cloned at every health check, so the facts are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Facts {
    /// No facts: the GPU is described by a file.
    #[default]
    None,
    /// An AMD GPU or partition.
    Amd(Arc<AmdFacts>),
    /// An Intel GPU or function.
    Intel(Arc<IntelFacts>),
    /// An NVIDIA GPU or instance.
    Nvidia(Arc<NvidiaFacts>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AmdFacts {
    /// `product_name` as the driver has it; empty where it has none.
    pub product: Arc<str>,
    /// `gfx_target_version` of the compute topology, such as 90402 for gfx942.
    pub gfx: Option<u64>,
    /// The number of SIMD units.
    pub simds: Option<u64>,
    /// SIMD units per compute unit.
    pub simds_per_cu: Option<u64>,
    /// Version of the module `amdgpu`, which only the driver that AMD packages has.
    pub driver_version: Arc<str>,
    /// Checksum of the module's source.
    pub driver_source: Arc<str>,
    /// Whether the GPU's compute can be partitioned.
    pub compute_partitions: bool,
    /// Whether the GPU's memory can be partitioned.
    pub memory_partitions: bool,
    /// Versions of the GPU's firmware, by the names of the driver's files (`me`, `smc`). Only of a whole GPU.
    pub firmware: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntelFacts {
    /// PCI class and subclass: `0300` has display outputs, `0380` has none.
    pub class: Arc<str>,
    /// The number of tiles; at least one.
    pub tiles: u64,
    /// Local memory of all tiles, in bytes.
    pub memory: Option<u64>,
}

/// Facts of an NVIDIA GPU, or of an instance (MIG) and its GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NvidiaFacts {
    /// The GPU's UUID; empty where only its device file is known.
    pub gpu: Arc<str>,
    pub model: Arc<str>,
    /// 0 where it is not known.
    pub memory: Mib,
    /// Such as `550.90.07`.
    pub driver: Arc<str>,
    /// The newest CUDA version that the driver supports.
    pub cuda: Option<(u32, u32)>,
    /// Compute capability.
    pub compute: Option<(u32, u32)>,
    /// Whether it can be partitioned into instances.
    pub mig_capable: Option<bool>,
    /// PCI class, such as `0x030200`.
    pub class: Option<u32>,
    /// The machine's name in its firmware.
    pub machine: Arc<str>,
    /// `None` for a whole GPU.
    pub instance: Option<InstanceFacts>,
}

/// An instance's part of its GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    pub multiprocessors: u32,
    /// Slices of the GPU instance, and of the compute instance.
    pub slices: [u32; 2],
    /// Engines: copy, decoder, encoder, jpeg, ofa.
    pub engines: [u32; 5],
}
