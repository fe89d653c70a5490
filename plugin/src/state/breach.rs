//! Containers that break their limits.

use std::collections::BTreeMap;

use kerf::ids::{ContainerName, DeviceId, PodRef, PodUid};

/// What a container does beyond its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BreachKind {
    /// It uses more memory of the GPU than its share.
    Memory,
    /// One of its processes uses the GPU without the limiter.
    Unlimited,
}

impl BreachKind {
    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Unlimited => "unlimited",
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Self::Memory => "GPUMemoryAboveShare",
            Self::Unlimited => "GPULimiterNotLoaded",
        }
    }
}

/// A container on a GPU, and how it breaks its limits there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    pub uid: PodUid,
    pub pod: PodRef,
    pub container: ContainerName,
    pub device: DeviceId,
    pub index: u32,
}

/// One container on one GPU, as measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub subject: Subject,
    /// Its share of the GPU's memory, in bytes.
    pub share: u64,
    /// What its processes use, in bytes.
    pub used: u64,
    /// How many of its processes are on the GPU.
    pub processes: usize,
    /// How many of them the limiter does not know, although it should.
    pub unlimited: usize,
}

/// Breaches that go on.
pub type Breaches = BTreeMap<(Subject, BreachKind), Observation>;
