//! The cluster as one pod finds it.
//!
//! What a pod holds itself - a reservation whose binding has not been answered - never stands in its way: where it holds
//! cards it fits, and there it goes first. Pods that come before it and are expected on a node (`queue`) are
//! planned there first, as kube-scheduler does (`RunFilterPluginsWithNominatedPods`). It also tries without them, since
//! a pod may want another's company; cards only get fewer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use dashmap::mapref::one::Ref;
use kerf::ids::{NodeName, PodUid};
use kerf::ledger::NodeLedger;
use kerf::placement::Planner;
use kerf::placement::advise::{Circumstances, NodeRank, Placing, after};
use kerf::placement::shape::{HostAmount, Shape};
use kerf::plan::Plan;
use kerf::policy::Policy;
use kerf::request::pod::PodRequest;
use kerf::unfit::Unfit;
use kerf::units::Timestamp;

use super::Cluster;
use crate::queue::Claims;

/// A pod that asks for cards, and what it finds other than the ledgers say.
#[derive(Debug)]
pub struct Asking<'a> {
    cluster: &'a Cluster,
    pod: &'a PodRequest,
    /// The cluster's policy, for others.
    default: Policy,
    placing: Placing<'a>,
    /// Nodes where it holds cards.
    own: BTreeSet<NodeName>,
    /// Who comes before it.
    claims: Claims,
}

impl Cluster {
    /// The cluster as this pod finds it.
    pub fn asking<'a>(&'a self, pod: &'a PodRequest, policy: Policy) -> Asking<'a> {
        Asking {
            cluster: self,
            pod,
            default: policy,
            placing: Placing::new(&pod.request, policy),
            own: self.homes.get(&pod.uid).map(|homes| homes.clone()).unwrap_or_default(),
            claims: self.queue.before(&pod.uid, pod.request.priority),
        }
    }
}

impl<'a> Asking<'a> {
    /// The pods that come before it, wherever they are expected.
    pub(crate) fn claimants(&self) -> BTreeSet<&PodUid> {
        self.claims.values().flatten().map(|claim| &claim.uid).collect()
    }

    /// Whether the pod finds the node as everybody does.
    #[inline]
    fn is_common(&self, node: &str) -> bool {
        // asked of thousands of nodes in one call, and of hardly any is there something to say
        self.own.is_empty() && self.claims.is_empty() || !self.own.contains(node) && !self.claims.contains_key(node)
    }

    /// Whether the pod's cards on the node are quickly found.
    pub(crate) fn is_quick(&self, node: &str) -> bool {
        self.pod.request.containers.len() == 1 && self.is_common(node)
    }

    /// The node as the pod finds it. Only where it is as it is for everybody it is locked meanwhile.
    #[inline]
    fn seen(&self, planner: &mut Planner, node: &str) -> Option<Seen<'a>> {
        let ledger = self.cluster.nodes.get(node)?;
        if self.is_common(node) {
            return Some(Seen::Locked(ledger));
        }
        let copy = ledger.clone();
        drop(ledger);
        Some(Seen::Copy(self.after_claims(planner, node, &copy).0.into()))
    }

    /// The node without the pod itself, and after those who come first, with the cards that those get. Where others have
    /// to leave for one, it gets what they leave; one for which the node has no room even then gets nothing.
    fn after_claims(
        &self,
        planner: &mut Planner,
        node: &str,
        ledger: &NodeLedger,
    ) -> (NodeLedger, Vec<(&PodRequest, Plan)>) {
        let own = &self.pod.uid;
        let (mut now, mut later) = (ledger.without(|uid| uid == own), None);
        let mut planned: Vec<(&PodRequest, Plan)> = Vec::new();
        let claims = self.claims.get(node).map_or(&[][..], Vec::as_slice);
        for claim in claims.iter().filter(|claim| !ledger.commitments().contains_key(&claim.uid)) {
            let plan = planner.plan(&now, &claim.request, self.default).or_else(|_| {
                let later = later.get_or_insert_with(|| {
                    let leaves =
                        |uid: &PodUid| ledger.commitments().get(uid).is_some_and(|known| known.standing.leaving);
                    let later = ledger.without(|uid| uid == own || leaves(uid));
                    planned.iter().fold(later, |later, (_, plan)| later.with_plan(plan))
                });
                planner.plan(later, &claim.request, self.default)
            });
            if let Ok(plan) = plan {
                now = now.with_plan(&plan);
                later = later.map(|later| later.with_plan(&plan));
                planned.push((claim, plan));
            }
        }
        (now, planned)
    }

    /// Whether the pod fits on the node.
    ///
    /// # Errors
    /// [`Unfit`] where it does not.
    pub fn fit(&self, planner: &mut Planner, node: &str) -> Result<(), Unfit> {
        self.fitting(planner, node).map(drop)
    }

    /// The node as the pod finds it, where it fits.
    #[inline]
    fn fitting(&self, planner: &mut Planner, node: &str) -> Result<Seen<'a>, Unfit> {
        let (request, policy) = (self.placing.request(), self.placing.policy());
        let seen = self.seen(planner, node).ok_or(Unfit::UnknownNode)?;
        match planner.fit_in_turn(&seen, request, policy) {
            Ok(()) => Ok(seen),
            Err(unfit) if !planner.may_search(request) => Err(unfit),
            Err(unfit) => {
                let seen = seen.unlocked();
                if planner.fit_by_search(&seen, request, policy) { Ok(seen) } else { Err(unfit) }
            }
        }
    }

    /// The node's ledger as the pod finds it: a copy, to think with.
    pub fn ledger(&self, planner: &mut Planner, node: &str) -> Option<NodeLedger> {
        let mut ledger = self.cluster.nodes.get(node)?.clone();
        ledger.release(&self.pod.uid);
        for (claim, plan) in self.after_claims(planner, node, &ledger).1 {
            ledger.reserve(claim, plan, Timestamp(u64::MAX), 0);
        }
        Some(ledger)
    }

    /// The cards that the pod would get on the node now.
    ///
    /// # Errors
    /// [`Unfit`] where it does not fit.
    pub fn plan(&self, node: &str) -> Result<Plan, Unfit> {
        let mut planner = self.planner(node);
        let seen = self.seen(&mut Planner::default(), node).ok_or(Unfit::UnknownNode)?;
        let seen = if planner.may_search(self.placing.request()) { seen.unlocked() } else { seen };
        planner.plan(&seen, self.placing.request(), self.placing.policy())
    }

    /// A planner that knows which card of the node the policy wants for the pod.
    pub(super) fn planner(&self, node: &str) -> Planner {
        if !self.placing.surveys() {
            return Planner::default();
        }
        let mut survey = self.cluster.survey();
        let unseen = || Shape::of(Some(self.placing.request()), 0, Default::default());
        let shape = survey.shape(&self.pod.uid).cloned().unwrap_or_else(unseen);
        self.placing.planner(&mut survey, &shape, node)
    }

    /// The cards that the pod would get if the node were so.
    ///
    /// # Errors
    /// [`Unfit`] where it does not fit.
    pub(super) fn plan_on(&self, planner: &mut Planner, node: &str, ledger: &NodeLedger) -> Result<Plan, Unfit> {
        let (found, _) = self.after_claims(&mut Planner::default(), node, ledger);
        planner.plan(&found, self.placing.request(), self.placing.policy())
    }

    /// How well each of the nodes suits the pod, if the plans in `ahead` were carried out there first; less is better.
    /// `None`: not at all. `host` is what the pod takes beside cards.
    pub fn ranks<'n>(
        &self,
        nodes: impl Iterator<Item = &'n str>,
        host: HostAmount,
        ahead: &BTreeMap<NodeName, Vec<Plan>>,
    ) -> Vec<(&'n str, Option<NodeRank>)> {
        let mut planner = Planner::default();
        // asked of thousands of nodes in one call, and hardly ever one fails
        let failing = self.cluster.any_fails();
        let fails = |node: &str| failing && self.cluster.is_failing(node);
        let ahead = |node: &str| -> &[Plan] { ahead.get(node).map_or(&[], Vec::as_slice) };
        let mut rank = |node| {
            let now = self.fitting(&mut planner, node).ok()?;
            let elsewhere = self.own.is_empty() || !self.own.contains(node);
            let circumstances = Circumstances { elsewhere, failing: fails(node) };
            Some(self.placing.rank(&mut planner, now, circumstances, ahead(node)))
        };
        let mut ranked: Vec<_> = nodes.map(|node| (node, rank(node))).collect();
        if self.placing.surveys() {
            let mut survey = self.cluster.survey();
            let shape = Shape::of(Some(self.placing.request()), host.cpu, host.memory);
            let later = |node: &str| self.later(&mut planner, node, ahead(node));
            self.placing.weigh(&mut survey, &shape, &mut ranked, later);
        }
        ranked
    }

    /// The node as the pod finds it once these plans are carried out; `None` where that is as it is now.
    fn later(&self, planner: &mut Planner, node: &str, ahead: &[Plan]) -> Option<NodeLedger> {
        match self.seen(planner, node)? {
            Seen::Locked(_) if ahead.is_empty() => None,
            seen => Some(after(&seen, ahead)),
        }
    }
}

/// A node as a pod finds it.
enum Seen<'l> {
    /// As it is for everybody. Nobody changes it meanwhile, so this is for what is quickly done.
    Locked(Ref<'l, NodeName, NodeLedger>),
    /// A copy of its cards.
    Copy(Box<NodeLedger>),
}

impl Seen<'_> {
    /// To take time with.
    fn unlocked(self) -> Self {
        match self {
            Self::Locked(ledger) => Self::Copy(ledger.cards_alone().into()),
            copy @ Self::Copy(_) => copy,
        }
    }
}

impl Deref for Seen<'_> {
    type Target = NodeLedger;

    fn deref(&self) -> &NodeLedger {
        match self {
            Self::Locked(ledger) => ledger,
            Self::Copy(ledger) => ledger,
        }
    }
}
