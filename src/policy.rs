//! The policies: how to choose among nodes and cards on which a pod fits.

use std::str::FromStr;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// The fullest node and, on it, the fullest card that fits: gpu-admission's order.
    #[default]
    Binpack,
    /// The emptiest node and, on it, the emptiest card.
    Spread,
    /// The node that keeps the least cores and compute together, in whole percent; on it, the fullest card.
    BestFit,
    /// Where the compute that a typical pod cannot use grows least (FGD, USENIX ATC 2023).
    Fgd,
    /// Where the cards that are left are worth most to the pods that are expected.
    Fragmentation,
}

/// Not the name of a [`Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy: expected binpack, spread, best-fit, fgd or fragmentation")]
pub struct UnknownPolicy;

impl Policy {
    pub const ALL: [Self; 5] = [Self::Binpack, Self::Spread, Self::BestFit, Self::Fgd, Self::Fragmentation];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Binpack => "binpack",
            Self::Spread => "spread",
            Self::BestFit => "best-fit",
            Self::Fgd => "fgd",
            Self::Fragmentation => "fragmentation",
        }
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text).ok_or(UnknownPolicy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_named_once() {
        for policy in Policy::ALL {
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
        assert_eq!("best".parse::<Policy>(), Err(UnknownPolicy));
    }
}
