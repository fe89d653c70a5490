//! The order of nodes and cards under a policy.

use crate::ledger::NodeLedger;
use crate::policy::Policy;
use crate::request::GpuRequest;
use crate::units::Share;

/// A node's or a card's position in a policy's order; less is better. Compare only ranks of one policy, and break ties
/// by the node's name or the card's index.
///
/// Three numbers, of which the first decides first. For `binpack`: free compute in thousandths of a card, free memory
/// in MiB, nothing; for `spread` their complements. The policies that weigh a whole cluster have their score and two
/// tie-breaks in them ([`super::market`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(pub(super) u64, pub(super) u64, pub(super) u64);

impl Rank {
    /// Worse than any other.
    pub const LAST: Self = Self(u64::MAX, u64::MAX, u64::MAX);
}

impl Policy {
    /// Whether the choice for this pod needs more than one node's cards: a [`super::survey::Survey`]. Counted shares
    /// are not weighed so: how much of a card one is depends on the node, and it asks for no memory of its own.
    pub fn surveys(self, request: &GpuRequest) -> bool {
        match self {
            Self::Binpack | Self::Spread => false,
            Self::BestFit | Self::Fgd | Self::Fragmentation => request.counted().next().is_none(),
        }
    }

    fn rank(self, compute: u64, memory: u64) -> Rank {
        match self {
            // the complement turns "more" into "less" and keeps the order exact
            Self::Spread => Rank(!compute, !memory, 0),
            Self::Binpack | Self::BestFit | Self::Fgd | Self::Fragmentation => Rank(compute, memory, 0),
        }
    }
}

/// The rank of a node where the pod fits: by all that is free on it without the pod. For policies that need more than
/// that, see [`super::survey::Survey::ranks`].
pub fn rank(node: &NodeLedger, policy: Policy) -> Rank {
    let (compute, memory) = node.free();
    policy.rank(compute, memory)
}

/// Scores of nodes in the extender's range 0..=10, best node first, from their ranks (ties: the lesser name): the best
/// node alone has 10; the second has 9, the third and fourth 8, the next four 7 and so on, each level twice as wide as
/// the one above. So the order is strict where it matters most, at the top, and never inverted anywhere. Sorts `ranked`.
pub fn scores<R: Ord, N: Ord + Copy>(ranked: &mut [(R, N)]) -> Vec<(N, u8)> {
    ranked.sort_unstable();
    ranked.iter().enumerate().map(|(place, (_, node))| (*node, score(place))).collect()
}

fn score(place: usize) -> u8 {
    match place.checked_ilog2() {
        None => 10,
        Some(level) => 9u8.saturating_sub(u8::try_from(level).unwrap_or(u8::MAX)),
    }
}

/// The order in which cards are tried for a share that leaves `left` of the card free.
pub(super) fn card_order(policy: Policy, growth: Share, preferred: bool, left: Share, index: u32) -> impl Ord {
    // first the cards where the pod grows least: those that one of its init containers holds anyway
    (growth.compute, growth.memory, !preferred, policy.rank(left.compute.0.into(), left.memory.0), index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_strict_at_the_top_and_never_inverted() {
        let mut ranked: Vec<_> = (0..100u64).map(|i| (Rank(i, 0, 0), i)).collect();
        let scores: Vec<u8> = scores(&mut ranked).into_iter().map(|(_, score)| score).collect();
        assert_eq!(scores[..9], [10, 9, 8, 8, 7, 7, 7, 7, 6]);
        assert!(scores.is_sorted_by(|a, b| a >= b));
        assert_eq!(score(usize::MAX), 0);
    }
}
