//! Which node and which GPU a pod gets: the one choice that the extender and `kerf plan` make.

use std::ops::Deref;

use super::shape::Shape;
use super::survey::Survey;
use super::{Planner, Rank, rank};
use crate::ledger::NodeLedger;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::request::GpuRequest;

/// How long the GPUs of a record are kept for a pod that is not bound yet, in milliseconds: a scheduler that binds by
/// itself does so within seconds.
pub const UNBOUND_RECORD_MS: u64 = 60_000;

/// A pod that is to be placed, and the policy that counts for it.
#[derive(Clone, Copy, Debug)]
pub struct Placing<'a> {
    request: &'a GpuRequest,
    policy: Policy,
}

/// What of a node counts beside its GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Circumstances {
    /// Whether the pod holds GPUs on other nodes alone, or on none.
    pub elsewhere: bool,
    /// Whether containers fail on the node for reasons of its own.
    pub failing: bool,
}

/// How well a node suits a pod; less is better. First comes the node where it holds GPUs already; those that would do now
/// but not after the pods in flight come later, and last those where containers fail for reasons of the node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRank {
    circumstances: Circumstances,
    crowded: bool,
    rank: Rank,
}

impl<'a> Placing<'a> {
    /// By the pod's own policy, or else by this one.
    pub fn new(request: &'a GpuRequest, default: Policy) -> Self {
        Self { request, policy: request.policy_or(default) }
    }

    /// What the pod asks for.
    pub fn request(&self) -> &'a GpuRequest {
        self.request
    }

    /// The policy that counts.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Whether nodes have to be weighed against each other for it ([`Placing::weigh`]).
    pub fn surveys(&self) -> bool {
        self.policy.surveys(self.request)
    }

    /// A planner that knows which GPU of the node the policy wants for the pod, where it weighs nodes.
    pub fn planner(&self, survey: &mut Survey, shape: &Shape, node: &str) -> Planner {
        Planner::preferring(survey.card(self.policy, shape, node))
    }

    /// How well a node, on which the pod fits `now`, suits it by its own GPUs, once the plans in `ahead` are carried out
    /// there. `now` may be locked; it is let go of before anything is searched for.
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

    /// Replaces what [`Placing::rank`] said of the nodes where the policy weighs them against each other. `later`: a
    /// node that the survey does not know as the pod finds it. Nodes without a rank are passed over.
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

/// The node once these plans are carried out; for planning ahead only.
pub fn after(ledger: &NodeLedger, ahead: &[Plan]) -> NodeLedger {
    ahead.iter().fold(ledger.cards_alone(), |later, plan| later.with_plan(plan))
}
