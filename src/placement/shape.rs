//! What a pod asks of a machine, in numbers alone: pods with equal shapes are one and the same to a policy.

use std::sync::Arc;

use crate::units::{Mib, Milli, Share};

/// The cards that a pod takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cards {
    /// None.
    None,
    /// A part of one card.
    Share(Share),
    /// This many whole cards, at least one.
    Whole(u32),
}

impl Cards {
    /// All compute, in thousandths of a card.
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
    /// Memory of the host.
    pub memory: Mib,
    /// The cards.
    pub cards: Cards,
    /// Models of card that will do, in order; empty: any.
    pub models: Vec<Arc<str>>,
}

/// Some of the kinds of card in a cluster. A kind is a model with an amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kinds(u128);

/// The number of a kind of card, below [`Kinds::MOST`].
pub type Kind = u8;

impl Kinds {
    /// More kinds than these are not told apart: the last stands for all that follow.
    pub const MOST: usize = 128;
    /// Every kind.
    pub const ALL: Self = Self(u128::MAX);
    /// No kind.
    pub const NONE: Self = Self(0);

    /// Whether the kind is among these.
    pub fn contains(self, kind: Kind) -> bool {
        self.0 >> (kind & 127) & 1 == 1
    }

    /// These and one more.
    #[must_use]
    pub fn with(self, kind: Kind) -> Self {
        Self(self.0 | 1 << (kind & 127))
    }

    /// Whether all of these are among `others`.
    pub fn within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }

    /// Those of these that are among the first `count` kinds.
    pub(super) fn first(self, count: usize) -> Self {
        let mask = u32::try_from(count).ok().and_then(|count| 1u128.checked_shl(count)).map_or(u128::MAX, |bit| bit - 1);
        Self(self.0 & mask)
    }
}
