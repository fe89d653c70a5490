//! The policies: how to choose among nodes and cards on which a pod fits.

crate::words! {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Policy or UnknownPolicy {
        /// The fullest node and, on it, the fullest card that fits: gpu-admission's order.
        #[default]
        Binpack = "binpack",
        /// The emptiest node and, on it, the emptiest card.
        Spread = "spread",
        /// The node that keeps the least cores and compute together, in whole percent; on it, the fullest card.
        BestFit = "best-fit",
        /// Where the compute that a typical pod cannot use grows least (FGD, USENIX ATC 2023).
        Fgd = "fgd",
        /// Where the cards that are left are worth most to the pods that are expected.
        Fragmentation = "fragmentation",
    }
}

/// Not the name of a [`Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy: expected binpack, spread, best-fit, fgd or fragmentation")]
pub struct UnknownPolicy;

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
