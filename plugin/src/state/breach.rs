//! Containers that break their limits.

use std::collections::{BTreeMap, BTreeSet};

use kerf::ids::{ContainerName, DeviceId, PodRef, PodUid};
use kerf_limiter_contract::state::Flags;

use crate::allocation::Key;

/// What a container does beyond its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BreachKind {
    /// It uses more memory of the GPU than its share.
    Memory,
    /// One of its processes uses the GPU without the limiter.
    Unlimited,
    /// One of its processes finds other files than the limiter's where those should be.
    Mounts,
    /// It makes one of the limiter's files unusable for the host, or longer than it is.
    File,
    /// It uses a GPU that it was not given.
    Foreign,
    /// It uses more of the GPU's time than its share, for a while.
    Compute,
}

impl BreachKind {
    pub const ALL: [Self; 6] =
        [Self::Memory, Self::Unlimited, Self::Mounts, Self::File, Self::Foreign, Self::Compute];

    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Unlimited => "unlimited",
            Self::Mounts => "mounts",
            Self::File => "file",
            Self::Foreign => "foreign",
            Self::Compute => "compute",
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Self::Memory => "GPUMemoryAboveShare",
            Self::Unlimited => "GPULimiterNotLoaded",
            Self::Mounts => "GPULimiterFilesHidden",
            Self::File => "GPULimiterFileUnusable",
            Self::Foreign => "GPUNotGiven",
            Self::Compute => "GPUComputeAboveShare",
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
    /// Its share of the GPU's memory, in bytes. `None`: it was not given this GPU.
    pub share: Option<u64>,
    /// What its processes use, in bytes.
    pub used: u64,
    /// What each of its processes on the GPU uses.
    pub processes: Vec<u64>,
    /// How many of them run without the limiter, although they should have it.
    pub unlimited: usize,
    /// The places where one of them does not find the limiter's files.
    pub hidden: BTreeSet<&'static str>,
    /// What is wrong with one of the limiter's files, in words.
    pub fault: Option<String>,
    /// What its limiter says; `None`: it has none, or its file cannot be read.
    pub flags: Option<Flags>,
    /// What it may use of the GPU's time, in percent. `None`: nothing limits that.
    pub ceiling: Option<u32>,
    /// What it uses of the GPU's time, in percent.
    pub utilization: u32,
}

impl Observation {
    /// A container that uses nothing of a GPU that it was not given.
    pub fn new(subject: Subject) -> Self {
        Self {
            subject,
            share: None,
            used: 0,
            processes: Vec::new(),
            unlimited: 0,
            hidden: BTreeSet::new(),
            fault: None,
            flags: None,
            ceiling: None,
            utilization: 0,
        }
    }
}

/// Breaches that go on.
pub type Breaches = BTreeMap<(Subject, BreachKind), Observation>;

/// What limiters said at the last measurement. A container can write any of it, so it is told and never acted on.
pub type LimiterFlags = BTreeMap<Key, Flags>;
