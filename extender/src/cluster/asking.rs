//! The cluster as one pod sees it.
//!
//! What a pod holds itself - a reservation whose binding has not been answered - never blocks it: where it holds cards
//! it fits, and that node comes first. Pods that come before it and are expected on a node (`queue`) are planned there
//! first, as kube-scheduler does (`RunFilterPluginsWithNominatedPods`). kube-scheduler also tries without them, for pod
//! affinity; here that is not needed, since other pods only take cards away.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use dashmap::mapref::one::Ref;
use k8s_openapi::api::core::v1::Toleration;
use kerf::ids::{NodeName, PodUid};
use kerf::ledger::NodeLedger;
use kerf::placement::Planner;
use kerf::placement::advise::{Circumstances, NodeRank, Placing, after};
use kerf::placement::shape::{HostAmount, Shape};
use kerf::plan::Plan;
use kerf::policy::Policy;
use kerf::request::PodRequest;
use kerf::unfit::Unfit;
use kerf::units::Timestamp;

use super::Cluster;
use crate::queue::Claims;

/// A pod that asks for cards, and where its view differs from the ledgers.
#[derive(Debug)]
pub struct Asking<'a> {
    cluster: &'a Cluster,
    pod: &'a PodRequest,
    /// The cluster's policy, for other pods.
    default: Policy,
    placing: Placing<'a>,
    /// Nodes where the pod holds cards.
    own: BTreeSet<NodeName>,
    /// Pods that come before it.
    claims: Claims,
}

impl Cluster {
    /// The cluster as this pod sees it.
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
    /// The pods that come before it, on any node.
    pub(crate) fn claimants(&self) -> BTreeSet<&PodUid> {
        self.claims.values().flatten().map(|claim| &claim.uid).collect()
    }

    /// Whether the pod sees the node as its ledger is.
    #[inline]
    fn is_common(&self, node: &str) -> bool {
        // called for thousands of nodes in one call, of which hardly any differ
        self.own.is_empty() && self.claims.is_empty() || !self.own.contains(node) && !self.claims.contains_key(node)
    }

    /// Whether planning the pod on the node is quick.
    pub(crate) fn is_quick(&self, node: &str) -> bool {
        self.pod.request.containers.len() == 1 && self.is_common(node)
    }

    /// The node as the pod sees it: locked where that is its ledger, otherwise a copy.
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

    /// The node without the pod itself, and with the pods that come before it on the cards that they will get. Where
    /// others must be evicted for such a pod, it gets what they leave; a pod for which there is no room even then gets
    /// nothing.
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

    /// Whether the pod fits on a node of the cluster that its tolerations admit; also where finding that out takes more
    /// than this many looks, or than the planner may do.
    pub(crate) fn fits_anywhere(
        &self,
        planner: &mut Planner,
        tolerations: &[Toleration],
        looks: &mut usize,
    ) -> bool {
        self.cluster.names().iter().any(|node| {
            *looks = looks.saturating_sub(1);
            let mut fits = || planner.exhausted() || self.fit(planner, node.as_str()).is_ok();
            *looks == 0 || self.cluster.closed(node, tolerations).is_none() && fits()
        })
    }

    /// The node as the pod sees it, where it fits.
    #[inline]
    fn fitting(&self, planner: &mut Planner, node: &str) -> Result<Seen<'a>, Unfit> {
        let (request, policy) = (self.placing.request, self.placing.policy);
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

    /// A copy of the node's ledger as the pod sees it, for planning.
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
        let seen = if planner.may_search(self.placing.request) { seen.unlocked() } else { seen };
        planner.plan(&seen, self.placing.request, self.placing.policy)
    }

    /// A planner that prefers the card of the node that the policy chose for the pod.
    pub(super) fn planner(&self, node: &str) -> Planner {
        if !self.placing.surveys() {
            return Planner::default();
        }
        let mut survey = self.cluster.survey();
        let unseen = || Shape::of(Some(self.placing.request), 0, Default::default());
        let shape = survey.shape(&self.pod.uid).cloned().unwrap_or_else(unseen);
        self.placing.planner(&mut survey, &shape, node)
    }

    /// The cards that the pod would get on a node with this ledger.
    ///
    /// # Errors
    /// [`Unfit`] where it does not fit.
    pub(super) fn plan_on(&self, planner: &mut Planner, node: &str, ledger: &NodeLedger) -> Result<Plan, Unfit> {
        let (found, _) = self.after_claims(&mut Planner::default(), node, ledger);
        planner.plan(&found, self.placing.request, self.placing.policy)
    }

    /// The rank of each node for the pod after the plans in `ahead`; less is better. `None` where the pod does not fit.
    /// `host`: what the pod takes beside cards.
    pub fn ranks<'n>(
        &self,
        nodes: impl Iterator<Item = &'n str>,
        host: HostAmount,
        ahead: &BTreeMap<NodeName, Vec<Plan>>,
    ) -> Vec<(&'n str, Option<NodeRank>)> {
        let mut planner = Planner::default();
        // called for thousands of nodes in one call, and hardly ever does one fail
        let any = !self.cluster.failing.is_empty();
        let fails = |node: &str| any && self.cluster.is_failing(node);
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
            let shape = Shape::of(Some(self.placing.request), host.cpu, host.memory);
            let later = |node: &str| self.later(&mut planner, node, ahead(node));
            self.placing.weigh(&mut survey, &shape, &mut ranked, later);
        }
        ranked
    }

    /// The node as the pod sees it after these plans; `None` where that is the same as now.
    fn later(&self, planner: &mut Planner, node: &str, ahead: &[Plan]) -> Option<NodeLedger> {
        match self.seen(planner, node)? {
            Seen::Locked(_) if ahead.is_empty() => None,
            seen => Some(after(&seen, ahead)),
        }
    }
}

/// A node as a pod sees it.
enum Seen<'l> {
    /// The ledger itself, locked: only for quick work.
    Locked(Ref<'l, NodeName, NodeLedger>),
    /// A changed copy.
    Copy(Box<NodeLedger>),
}

impl Seen<'_> {
    /// A copy, for work that takes long.
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
