//! Requests that are refused, and why.

use crate::ids::ContainerName;
use crate::units::QuantityError;

/// More GPU containers than a pod may have: a bound on the work one request can cause.
pub const MAX_CONTAINERS: usize = 64;
/// More cards than one container may ask for: no node has more.
pub const MAX_CARDS: u64 = crate::device::MAX_CARDS as u64;
/// More counted shares than one container may ask for.
pub const MAX_SHARES: u64 = MAX_CARDS * 1000;

/// The rule that a request breaks. The texts carry no amounts, so that the scheduler can count equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// An amount of core that is no such amount.
    #[error("vcuda-core {0}")]
    Core(QuantityError),
    /// An amount of memory that is no such amount.
    #[error("vcuda-memory {0}")]
    Memory(QuantityError),
    /// Core above one card that is not a number of cards.
    #[error("vcuda-core must be 1..99 or a multiple of 100")]
    PartOfSeveralCards,
    /// A share without memory.
    #[error("a share (vcuda-core below 100) needs vcuda-memory")]
    ShareWithoutMemory,
    /// Memory without core.
    #[error("vcuda-memory needs vcuda-core")]
    MemoryWithoutCore,
    /// More than any node has.
    #[error("asks for more GPUs than any node has")]
    TooManyCards,
    /// A number of shares that is no number.
    #[error("number of GPU shares {0}")]
    Count(QuantityError),
    /// More shares than any node has.
    #[error("asks for more GPU shares than any node has")]
    TooManyShares,
    /// Two resources that both mean cards.
    #[error("asks for GPUs by two resources: use vcuda-core with vcuda-memory, or one resource of GPU shares")]
    TwoResources,
}

/// A request that cannot be served anywhere, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A container breaks a rule.
    #[error("container {container:?}: {rule}")]
    Container { container: ContainerName, rule: Rule },
    /// Too many containers ask for cards.
    #[error("more than {MAX_CONTAINERS} containers ask for GPUs")]
    TooManyContainers,
    /// The burst annotation is not a number.
    #[error("annotation vcuda-core-limit must be a whole number of percent")]
    LimitNotANumber,
    /// The burst annotation is outside its range for this container.
    #[error("container {container:?}: annotation vcuda-core-limit must be at least its vcuda-core and at most 100")]
    LimitOutOfRange {
        /// The first container whose share is above the limit.
        container: ContainerName,
    },
    /// The burst annotation on a pod without a share.
    #[error("annotation vcuda-core-limit is for shares; this pod has none")]
    LimitWithoutShare,
    /// The policy annotation names none.
    #[error("annotation gpu-policy: unknown policy; expected binpack, spread, best-fit, fgd or fragmentation")]
    UnknownPolicy,
    /// The isolation annotation names none.
    #[error("annotation isolation: unknown level; expected none, limiter, mps, driver or mig")]
    UnknownIsolation,
    /// A share of a hardware partition is not partitioned by hardware from the other shares of it.
    #[error("container {container:?}: annotation isolation: mig is for whole cards: ask for vcuda-core 100")]
    PartitionOfShare {
        /// The first container with a share.
        container: ContainerName,
    },
    /// Nothing holds counted shares to their part of a card.
    #[error(
        "container {container:?}: annotation isolation: GPU shares by count are not enforced: ask for vcuda-core and vcuda-memory"
    )]
    IsolationOfCounted {
        /// The first container with such shares.
        container: ContainerName,
    },
    /// The annotation that arranges shares names no arrangement.
    #[error("annotation gpu-shares must be same-card or different-cards")]
    UnknownArrangement,
    /// The annotation that arranges shares on a pod without any.
    #[error("annotation gpu-shares is for GPU shares by count; this pod has none")]
    ArrangementWithoutShares,
    /// Shares of different resources are never on one card together.
    #[error("annotation gpu-shares: same-card needs shares of one resource in all containers of the pod")]
    SameCardOfTwoResources,
}

impl RequestError {
    /// A short stable word for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Container { rule, .. } => match rule {
                Rule::Core(_) => "core-amount",
                Rule::Memory(_) => "memory-amount",
                Rule::PartOfSeveralCards => "core-not-cards",
                Rule::ShareWithoutMemory => "share-without-memory",
                Rule::MemoryWithoutCore => "memory-without-core",
                Rule::TooManyCards => "too-many-cards",
                Rule::Count(_) => "share-count",
                Rule::TooManyShares => "too-many-shares",
                Rule::TwoResources => "two-resources",
            },
            Self::TooManyContainers => "too-many-containers",
            Self::LimitNotANumber | Self::LimitOutOfRange { .. } | Self::LimitWithoutShare => "core-limit",
            Self::UnknownPolicy => "policy",
            Self::UnknownIsolation | Self::PartitionOfShare { .. } | Self::IsolationOfCounted { .. } => "isolation",
            Self::UnknownArrangement | Self::ArrangementWithoutShares | Self::SameCardOfTwoResources => {
                "gpu-shares"
            }
        }
    }
}
