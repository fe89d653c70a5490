//! What a pod asks for, as numbers: pods of equal shape are equal to a policy.

use std::sync::Arc;

use crate::request::{Ask, GpuRequest};
use crate::tally::{Amount, Tally};
use crate::units::{Mib, Milli, Share};

/// Cores, memory and number of pods: what a machine has for pods, or what pods take of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostAmount {
    /// Thousandths of a core.
    pub cpu: u64,
    /// Memory, rounded up to whole MiB for pods and down for machines.
    pub memory: Mib,
    pub pods: u64,
}

impl HostAmount {
    /// The difference; stops at zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(other.cpu),
            memory: Mib(self.memory.0.saturating_sub(other.memory.0)),
            pods: self.pods.saturating_sub(other.pods),
        }
    }
}

impl Amount for HostAmount {
    fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: Mib(self.memory.0.saturating_add(other.memory.0)),
            pods: self.pods.saturating_add(other.pods),
        }
    }

    fn larger(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
            pods: self.pods.max(other.pods),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cards {
    None,
    /// A part of one card.
    Share(Share),
    /// This many whole cards, at least one.
    Whole(u32),
}

impl Cards {
    /// Total compute, in thousandths of a card.
    pub fn compute(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Share(share) => share.compute.0.into(),
            Self::Whole(count) => u64::from(count) * u64::from(Milli::WHOLE.0),
        }
    }
}

/// What a pod takes of a machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Thousandths of a core of the host's processors.
    pub cpu: u64,
    pub memory: Mib,
    pub cards: Cards,
    /// Accepted models of card, in order; empty: any.
    pub models: Vec<Arc<str>>,
}

impl Shape {
    /// For a pod that takes `cpu` thousandths of a core and `memory` of the host. Exact where only one container asks
    /// for cards. Otherwise what the containers need together: shares as one share where a card could hold them; where
    /// any container asks for whole cards, only those.
    pub fn of(request: Option<&GpuRequest>, cpu: u64, memory: Mib) -> Self {
        let cards = request.map_or(Cards::None, |request| {
            let needs = request.containers.iter().map(|container| (container.kind, need(&container.ask)));
            let (whole, share) = needs.fold(Tally::default(), |tally, (kind, need)| tally.with(kind, need)).peak();
            match (whole, share) {
                (0, Share::ZERO) => Cards::None,
                (0, share) if share.compute < Milli::WHOLE => Cards::Share(share),
                (0, share) => Cards::Whole(share.compute.0.div_ceil(Milli::WHOLE.0)),
                (whole, _) => Cards::Whole(whole),
            }
        });
        Self { cpu, memory, cards, models: Vec::new() }
    }
}

/// The models of a trace's constraint, such as `V100M16|V100M32`, in order; none: any model. Duplicates stay:
/// [`crate::policy::Policy::Fgd`] takes such pods for a class of their own, as the published runs do.
pub fn models(constraint: &str) -> Vec<Arc<str>> {
    let mut models: Vec<Arc<str>> =
        constraint.split('|').filter(|model| !model.is_empty()).map(Arc::from).collect();
    models.sort_unstable();
    models
}

/// A number of whole cards, or a share of one.
fn need(ask: &Ask) -> (u32, Share) {
    match ask {
        Ask::Share(share) => (0, *share),
        Ask::Whole { count, .. } => (*count, Share::ZERO),
        // its part of a card depends on the node
        Ask::Counted(_) => (0, Share::ZERO),
    }
}

/// A set of the kinds of card in a cluster. A kind is a model with an amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kinds(u128);

/// The number of a kind of card, below [`Kinds::MOST`].
pub type Kind = u8;

impl Kinds {
    /// At most this many kinds are distinguished: the last stands for all further ones.
    pub const MOST: usize = 128;
    pub const ALL: Self = Self(u128::MAX);
    pub const NONE: Self = Self(0);

    pub fn contains(self, kind: Kind) -> bool {
        self.0 >> (kind & 127) & 1 == 1
    }

    #[must_use]
    pub fn with(self, kind: Kind) -> Self {
        Self(self.0 | 1 << (kind & 127))
    }

    /// Whether this is a subset of `others`.
    pub fn within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// Those with numbers below `count`.
    pub(super) fn first(self, count: usize) -> Self {
        let mask =
            u32::try_from(count).ok().and_then(|count| 1u128.checked_shl(count)).map_or(u128::MAX, |bit| bit - 1);
        Self(self.0 & mask)
    }
}
