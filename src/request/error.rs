//! Why a request is refused.

use crate::ids::ContainerName;
use crate::units::QuantityError;

/// The most containers of a pod that may ask for GPUs: a bound on the work that one request can cause.
pub const MAX_CONTAINERS: usize = 64;
/// The most cards that one container may ask for: no node has more.
pub const MAX_CARDS: u64 = crate::device::MAX_CARDS as u64;
/// The most counted shares that one container may ask for.
pub const MAX_SHARES: u64 = MAX_CARDS * 1000;

/// The most memory of one card, in units of `<D>/vcuda-memory`: 1 TiB. Larger amounts are meant as bytes or MiB.
pub const MAX_CARD_MEMORY: u64 = 4096;

/// The largest amount of core or memory that is read, in its unit: a petabyte. The API server cuts larger ones off at
/// 2^63 - 1, so what they were is not known.
pub const MAX_AMOUNT: u64 = 1_000_000_000_000_000;

// Bounds on what the rules look through. The API server ends an expression of a policy that costs too much, and gives its
// user no reason that is of use.
/// The most containers of a pod that asks for GPUs.
pub const MAX_LISTED: usize = 1000;
/// The most names in the limits of all its containers together.
pub const MAX_LIMITS: usize = 1000;
/// The most of them that are below the domain and are none of kerf's.
pub const MAX_UNKNOWN: usize = 100;
/// The most annotations below the domain, with those of a record.
pub const MAX_ANNOTATIONS: usize = 200;

/// A rule that a request breaks. The texts have no amounts, so that the scheduler can count equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    #[error("vcuda-core {0}")]
    Core(QuantityError),
    #[error("vcuda-memory {0}")]
    Memory(QuantityError),
    /// Core above 100 that is not a multiple of 100.
    #[error("vcuda-core must be 1..99 or a multiple of 100")]
    PartOfSeveralCards,
    #[error("a share (vcuda-core below 100) needs vcuda-memory")]
    ShareWithoutMemory,
    #[error("vcuda-memory needs vcuda-core")]
    MemoryWithoutCore,
    #[error("asks for more GPUs than any node has")]
    TooManyCards,
    /// More memory than there is on as many cards.
    #[error("vcuda-memory is counted in units of 256 MiB (10 GiB is 40), and no GPU has as many as this")]
    MemoryInOtherUnits,
    #[error("number of GPU shares {0}")]
    Count(QuantityError),
    #[error("asks for more GPU shares than any node has")]
    TooManyShares,
    /// One container asks for two GPU resources.
    #[error("asks for GPUs by two resources: use vcuda-core with vcuda-memory, or one resource of GPU shares")]
    TwoResources,
}

/// Why a request cannot be served on any node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("container {container:?}: {rule}")]
    Container { container: ContainerName, rule: Rule },
    /// A resource below the domain that is close to one of kerf's; without the domain.
    #[error("container {container:?}: resource {name} is unknown; did you mean {meant}?")]
    MisspeltResource { container: ContainerName, name: Box<str>, meant: &'static str },
    /// An annotation below the domain that is close to one that users write; without the domain.
    #[error("annotation {name} is unknown; did you mean {meant}?")]
    MisspeltAnnotation { name: Box<str>, meant: &'static str },
    #[error("more than {MAX_LISTED} containers: too many for a pod that asks for GPUs")]
    TooManyListed,
    #[error("more than {MAX_LIMITS} limits of containers: too many for a pod that asks for GPUs")]
    TooManyLimits,
    #[error(
        "more than {MAX_UNKNOWN} limits under the resource domain that are neither vcuda-core nor vcuda-memory"
    )]
    TooManyUnknown,
    #[error("more than {MAX_ANNOTATIONS} annotations under the resource domain")]
    TooManyAnnotations,
    /// More than `MAX_CONTAINERS` ask for cards.
    #[error("more than {MAX_CONTAINERS} containers ask for GPUs")]
    TooManyContainers,
    #[error("annotation vcuda-core-limit must be a whole number of percent")]
    LimitNotANumber,
    /// The burst limit is below a container's share, or above a whole card.
    #[error("container {container:?}: annotation vcuda-core-limit must be at least its vcuda-core and at most 100")]
    LimitOutOfRange {
        /// The first container whose share is above the limit.
        container: ContainerName,
    },
    #[error("annotation vcuda-core-limit is for shares; this pod has none")]
    LimitWithoutShare,
    #[error("annotation gpu-policy: unknown policy; expected binpack, spread, best-fit, fgd or fragmentation")]
    UnknownPolicy,
    #[error("annotation isolation: unknown level; expected none, limiter, mps, driver or mig")]
    UnknownIsolation,
    /// Isolation `mig` for a share: hardware does not separate the shares of one partition.
    #[error("container {container:?}: annotation isolation: mig is for whole GPUs: ask for vcuda-core 100")]
    PartitionOfShare {
        /// The first container with a share.
        container: ContainerName,
    },
    /// Isolation for counted shares, which nothing enforces.
    #[error(
        "container {container:?}: annotation isolation: GPU shares by count are not enforced: ask for vcuda-core and vcuda-memory"
    )]
    IsolationOfCounted {
        /// The first container with such shares.
        container: ContainerName,
    },
    #[error("annotation gpu-shares must be same-card or different-cards")]
    UnknownArrangement,
    #[error("annotation gpu-shares is for GPU shares by count; this pod has none")]
    ArrangementWithoutShares,
    /// `same-card` for shares of two resources, which are never on one card together.
    #[error("annotation gpu-shares: same-card needs shares of one resource in all containers of the pod")]
    SameCardOfTwoResources,
}

crate::words! {
    /// The rules that requests break, in short: the label `rule` in metrics.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum BrokenRule {
        CoreAmount = "core-amount",
        MemoryAmount = "memory-amount",
        CoreNotCards = "core-not-cards",
        ShareWithoutMemory = "share-without-memory",
        MemoryWithoutCore = "memory-without-core",
        TooManyCards = "too-many-cards",
        MemoryUnit = "memory-unit",
        ShareCount = "share-count",
        TooManyShares = "too-many-shares",
        TwoResources = "two-resources",
        Misspelt = "misspelt",
        TooManyContainers = "too-many-containers",
        TooLarge = "too-large",
        CoreLimit = "core-limit",
        Policy = "policy",
        Isolation = "isolation",
        GpuShares = "gpu-shares",
    }
}

impl RequestError {
    /// The rule, for metrics.
    pub fn code(&self) -> BrokenRule {
        match self {
            Self::Container { rule, .. } => match rule {
                Rule::Core(_) => BrokenRule::CoreAmount,
                Rule::Memory(_) => BrokenRule::MemoryAmount,
                Rule::PartOfSeveralCards => BrokenRule::CoreNotCards,
                Rule::ShareWithoutMemory => BrokenRule::ShareWithoutMemory,
                Rule::MemoryWithoutCore => BrokenRule::MemoryWithoutCore,
                Rule::TooManyCards => BrokenRule::TooManyCards,
                Rule::MemoryInOtherUnits => BrokenRule::MemoryUnit,
                Rule::Count(_) => BrokenRule::ShareCount,
                Rule::TooManyShares => BrokenRule::TooManyShares,
                Rule::TwoResources => BrokenRule::TwoResources,
            },
            Self::MisspeltResource { .. } | Self::MisspeltAnnotation { .. } => BrokenRule::Misspelt,
            Self::TooManyContainers => BrokenRule::TooManyContainers,
            Self::TooManyListed | Self::TooManyLimits | Self::TooManyUnknown | Self::TooManyAnnotations => {
                BrokenRule::TooLarge
            }
            Self::LimitNotANumber | Self::LimitOutOfRange { .. } | Self::LimitWithoutShare => BrokenRule::CoreLimit,
            Self::UnknownPolicy => BrokenRule::Policy,
            Self::UnknownIsolation | Self::PartitionOfShare { .. } | Self::IsolationOfCounted { .. } => {
                BrokenRule::Isolation
            }
            Self::UnknownArrangement | Self::ArrangementWithoutShares | Self::SameCardOfTwoResources => {
                BrokenRule::GpuShares
            }
        }
    }
}
