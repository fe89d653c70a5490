//! Which node and which GPU a pod gets: the one choice that the extender and `kerf plan` make.

use std::ops::Deref;

use super::shape::Shape;
use super::survey::Survey;
use super::{Planner, Rank, rank};
use crate::ledger::NodeLedger;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::request::GpuRequest;

/// How long the GPUs of a record are kept for a pod that is not bound yet, in milliseconds: a scheduler that binds pods
/// itself does so within seconds.
pub const UNBOUND_RECORD_MS: u64 = 60_000;

/// A pod to place, and its policy.
#[derive(Clone, Copy, Debug)]
pub struct Placing<'a> {
    pub request: &'a GpuRequest,
    pub policy: Policy,
}

/// What counts for a node beside its GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Circumstances {
    /// Whether the pod holds no GPUs on this node.
    pub elsewhere: bool,
    /// Whether containers fail on the node because of the node itself.
    pub failing: bool,
}

/// How well a node suits a pod; less is better. The node where it already holds GPUs comes first; nodes where it fits
/// now but not after the pods in flight come later; nodes where containers fail because of the node itself come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRank {
    circumstances: Circumstances,
    crowded: bool,
    rank: Rank,
}

impl<'a> Placing<'a> {
    /// By the pod's own policy, otherwise by `default`.
    pub fn new(request: &'a GpuRequest, default: Policy) -> Self {
        Self { request, policy: request.policy_or(default) }
    }

    /// Whether its policy weighs nodes against each other ([`Placing::weigh`]).
    pub fn surveys(&self) -> bool {
        self.policy.surveys(self.request)
    }

    /// A planner that prefers the GPU of the node that the policy chose, where the policy weighs nodes.
    pub fn planner(&self, survey: &mut Survey, shape: &Shape, node: &str) -> Planner {
        Planner::preferring(survey.card(self.policy, shape, node))
    }

    /// The rank of a node on which the pod fits `now`, by the node's own GPUs, after the plans in `ahead`. `now` may be
    /// a lock; it is released before any search.
    #[inline]
    pub fn rank(
        &self,
        planner: &mut Planner,
        now: impl Deref<Target = NodeLedger>,
        circumstances: Circumstances,
        ahead: &[Plan],
    ) -> NodeRank {
        if ahead.is_empty() {
            return NodeRank { circumstances, crowded: false, rank: rank(&now, self.policy) };
        }
        let later = after(&now, ahead);
        drop(now);
        let crowded = planner.fit(&later, self.request, self.policy).is_err();
        NodeRank { circumstances, crowded, rank: rank(&later, self.policy) }
    }

    /// Replaces the ranks from [`Placing::rank`] where the policy weighs nodes against each other. `later`: the ledger
    /// of a node that the pod finds different from what the survey knows. Nodes without a rank are skipped.
    pub fn weigh(
        &self,
        survey: &mut Survey,
        shape: &Shape,
        ranked: &mut [(&str, Option<NodeRank>)],
        mut later: impl FnMut(&str) -> Option<NodeLedger>,
    ) {
        let fitting: Vec<&str> = ranked.iter().filter(|(_, rank)| rank.is_some()).map(|(node, _)| *node).collect();
        let surveyed = survey.ranks(self.policy, shape, fitting.into_iter());
        let fitting = ranked.iter_mut().filter_map(|(node, rank)| Some((*node, rank.as_mut()?)));
        for ((node, ranked), rank) in fitting.zip(surveyed) {
            ranked.rank = match later(node) {
                Some(later) => survey.rank_later(self.policy, shape, node, &later),
                None => rank,
            };
        }
    }
}

/// The node after these plans; for planning only.
pub fn after(ledger: &NodeLedger, ahead: &[Plan]) -> NodeLedger {
    ahead.iter().fold(ledger.cards_alone(), |later, plan| later.with_plan(plan))
}
