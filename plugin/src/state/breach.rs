//! Containers that break their limits.

use std::collections::BTreeMap;

use kerf::ids::{ContainerName, DeviceId, PodRef, PodUid};

/// What a container should not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BreachKind {
    /// It uses more memory of the card than its share.
    Memory,
    /// A process of it uses the card without the limiter.
    Unlimited,
}

impl BreachKind {
    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Unlimited => "unlimited",
        }
    }

    /// The reason of the event.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Memory => "GPUMemoryAboveShare",
            Self::Unlimited => "GPULimiterNotLoaded",
        }
    }
}

/// A container on a card, and what it should not do there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    pub uid: PodUid,
    pub pod: PodRef,
    pub container: ContainerName,
    pub device: DeviceId,
    pub index: u32,
}

/// One container on one card, as measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub subject: Subject,
    /// Its share of the card's memory, in bytes.
    pub share: u64,
    /// What its processes use, in bytes.
    pub used: u64,
    /// Its processes on the card.
    pub processes: usize,
    /// Those of them that the limiter does not know, where it should.
    pub unlimited: usize,
}

/// Breaches that go on.
pub type Breaches = BTreeMap<(Subject, BreachKind), Observation>;
