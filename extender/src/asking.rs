//! The cluster as one pod finds it.
//!
//! What a pod holds itself - a reservation whose binding has not been answered - never stands in its way: where it holds
//! cards it fits, and there it goes first. Pods that come before it and are expected on a node ([`crate::queue`]) are
//! planned there first, as kube-scheduler does (`RunFilterPluginsWithNominatedPods`). It also tries without them, since
//! a pod may want another's company; cards only get fewer.

use std::collections::{BTreeMap, BTreeSet};

use kerf::ids::{NodeName, PodUid};
use kerf::ledger::NodeLedger;
use kerf::placement::{Planner, Policy, Rank, Unfit, rank};
use kerf::plan::Plan;
use kerf::request::GpuRequest;
use kerf::units::Timestamp;

use crate::Footprint;
use crate::cluster::Cluster;
use crate::queue::{Claim, Claims};

/// A pod that asks for cards, and what it finds other than the ledgers say.
#[derive(Debug)]
pub struct Asking<'a> {
    cluster: &'a Cluster,
    uid: &'a PodUid,
    request: &'a GpuRequest,
    /// The cluster's policy, for others.
    default: Policy,
    policy: Policy,
    /// Nodes where it holds cards.
    own: BTreeSet<NodeName>,
    /// Who comes before it.
    claims: Claims,
}

/// How well a node suits a pod: first the one where it holds cards already, last those that would do now but not after
/// the pods in flight, and behind them those where containers fail for reasons of the node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRank {
    elsewhere: bool,
    failing: bool,
    crowded: bool,
    rank: Rank,
}

impl<'a> Asking<'a> {
    pub(crate) fn new(
        cluster: &'a Cluster,
        uid: &'a PodUid,
        request: &'a GpuRequest,
        default: Policy,
        own: BTreeSet<NodeName>,
        claims: Claims,
    ) -> Self {
        Self { cluster, uid, request, default, policy: request.policy.unwrap_or(default), own, claims }
    }

    /// The pods that come before it, wherever they are expected.
    pub(crate) fn claimants(&self) -> BTreeSet<&PodUid> {
        self.claims.values().flatten().map(|claim| &claim.uid).collect()
    }

    /// The node as the pod finds it; `None` where that is as it is.
    pub(crate) fn found(&self, node: &str, ledger: &NodeLedger) -> Option<NodeLedger> {
        // asked of thousands of nodes in one call, and of hardly any is there something to say
        if self.own.is_empty() && self.claims.is_empty() {
            return None;
        }
        let own = self.own.contains(node);
        let claims = self.claims.get(node).map_or(&[][..], Vec::as_slice);
        if !own && claims.is_empty() {
            return None;
        }
        let mut found = ledger.without(&own.then(|| self.uid.clone()).into_iter().collect());
        for (_, plan) in self.expected(ledger, claims) {
            found = found.with_plan(&plan);
        }
        Some(found)
    }

    /// The cards that those get who come first. Where others have to leave for one, it gets what they leave; one for
    /// which the node has no room even then gets nothing.
    fn expected<'c>(&self, ledger: &NodeLedger, claims: &'c [Claim]) -> Vec<(&'c Claim, Plan)> {
        let mut planner = Planner::default();
        let mut planned: Vec<(&Claim, Plan)> = Vec::new();
        let mut leaving = None;
        for claim in claims.iter().filter(|claim| !ledger.commitments().contains_key(&claim.uid)) {
            let mut plan = |gone: &BTreeSet<PodUid>| {
                let later = planned.iter().fold(ledger.without(gone), |later, (_, plan)| later.with_plan(plan));
                planner.plan(&later, &claim.request, self.default).ok()
            };
            let own = BTreeSet::from([self.uid.clone()]);
            let plan = plan(&own).or_else(|| {
                let leaving = leaving.get_or_insert_with(|| self.cluster.leaving(ledger));
                plan(&leaving.union(&own).cloned().collect())
            });
            planned.extend(plan.map(|plan| (claim, plan)));
        }
        planned
    }

    /// Whether the pod fits on the node.
    ///
    /// # Errors
    /// [`Unfit`] where it does not.
    pub fn fit(&self, planner: &mut Planner, node: &str) -> Result<(), Unfit> {
        let ledger = self.cluster.node(node).ok_or(Unfit::UnknownNode)?;
        match self.found(node, &ledger) {
            Some(found) => planner.fit(&found, self.request, self.policy),
            None => planner.fit(&ledger, self.request, self.policy),
        }
    }

    /// The node's ledger as the pod finds it: a copy, to think with.
    pub fn ledger(&self, node: &str) -> Option<NodeLedger> {
        let mut ledger = self.cluster.node(node)?.clone();
        ledger.release(self.uid);
        let claims = self.claims.get(node).map_or(&[][..], Vec::as_slice);
        for (claim, plan) in self.expected(&ledger, claims) {
            ledger.reserve(&claim.uid, &claim.pod, &claim.request, plan, Timestamp(u64::MAX), 0);
        }
        Some(ledger)
    }

    /// The cards that the pod would get on the node now.
    ///
    /// # Errors
    /// [`Unfit`] where it does not fit.
    pub fn plan(&self, node: &str) -> Result<Plan, Unfit> {
        let mut planner = self.cluster.planner(node, self.uid, self.request, self.policy);
        let ledger = self.cluster.node(node).ok_or(Unfit::UnknownNode)?;
        match self.found(node, &ledger) {
            Some(found) => planner.plan(&found, self.request, self.policy),
            None => planner.plan(&ledger, self.request, self.policy),
        }
    }

    /// How well each of the nodes suits the pod, if the plans in `ahead` were carried out there first; less is better.
    /// `None`: not at all.
    pub fn ranks<'n>(
        &self,
        nodes: impl Iterator<Item = &'n str>,
        footprint: Footprint,
        ahead: &BTreeMap<NodeName, Vec<Plan>>,
    ) -> Vec<(&'n str, Option<NodeRank>)> {
        let mut planner = Planner::default();
        let ahead = |node: &str| -> &[Plan] { ahead.get(node).map_or(&[], Vec::as_slice) };
        let mut ranked: Vec<_> = nodes.map(|node| (node, self.rank(&mut planner, node, ahead(node)))).collect();
        if self.policy.surveys(self.request) {
            let mut survey = self.cluster.survey();
            let shape = footprint.shape(Some(self.request));
            let fitting: Vec<&str> =
                ranked.iter().filter(|(_, rank)| rank.is_some()).map(|(node, _)| *node).collect();
            let surveyed = survey.ranks(self.policy, &shape, fitting.into_iter());
            let fitting = ranked.iter_mut().filter_map(|(node, rank)| Some((*node, rank.as_mut()?)));
            for ((node, ranked), rank) in fitting.zip(surveyed) {
                ranked.rank = match self.later(node, ahead(node)) {
                    Some(later) => survey.rank_later(self.policy, &shape, node, &later),
                    None => rank,
                };
            }
        }
        ranked
    }

    /// How well one node suits the pod by its own cards.
    fn rank(&self, planner: &mut Planner, node: &str, ahead: &[Plan]) -> Option<NodeRank> {
        let ledger = self.cluster.node(node)?;
        let found = self.found(node, &ledger);
        let now = found.as_ref().unwrap_or(&ledger);
        planner.fit(now, self.request, self.policy).ok()?;
        let elsewhere = self.own.is_empty() || !self.own.contains(node);
        let failing = self.cluster.is_failing(node);
        if ahead.is_empty() {
            return Some(NodeRank { elsewhere, failing, crowded: false, rank: rank(now, self.policy) });
        }
        let later = after(now, ahead);
        let crowded = planner.fit(&later, self.request, self.policy).is_err();
        Some(NodeRank { elsewhere, failing, crowded, rank: rank(&later, self.policy) })
    }

    /// The node as the pod finds it once these plans are carried out; `None` where that is as it is now.
    fn later(&self, node: &str, ahead: &[Plan]) -> Option<NodeLedger> {
        let ledger = self.cluster.node(node)?;
        let found = self.found(node, &ledger);
        if ahead.is_empty() { found } else { Some(after(found.as_ref().unwrap_or(&ledger), ahead)) }
    }
}

fn after(ledger: &NodeLedger, ahead: &[Plan]) -> NodeLedger {
    ahead.iter().fold(ledger.with_plan(&Plan::default()), |later, plan| later.with_plan(plan))
}
