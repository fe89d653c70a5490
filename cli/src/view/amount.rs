//! Compute and memory.

use std::ops::AddAssign;

use kerf::units::Share;
use serde::Serialize;

/// Compute and memory of one GPU or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// In thousandths of a GPU.
    pub compute: u64,
    pub memory_mib: u64,
}

impl From<Share> for Amount {
    fn from(share: Share) -> Self {
        Self { compute: share.compute.0.into(), memory_mib: share.memory.0 }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.compute = self.compute.saturating_add(other.compute);
        self.memory_mib = self.memory_mib.saturating_add(other.memory_mib);
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), |mut sum, amount| {
            sum += amount;
            sum
        })
    }
}
