//! `preempt`: whether evicting the scheduler's victims frees what the pod needs, and which pods to evict instead.
//!
//! The scheduler knows a node's totals. Its victims may leave no single card free enough, and then they would be
//! evicted in vain. So the cards of each candidate are checked: a candidate that evictions cannot help is dropped;
//! otherwise the victims are pods that free a card. Of the scheduler's own victims those stay that it may have chosen
//! for another resource: pods without cards, pods that the node's totals of cards do not need, and all of them unless
//! the node's cores and memory suffice without. Up to Kubernetes 1.37 the scheduler asks only where its own count finds
//! pods to evict, so not where a node's total suffices and no single card does.
//!
//! A pod that was refused by a part of the nodes, while another node has room, evicts nobody: it is tried again.
//!
//! The scheduler places nothing while it waits, and gives up after its `httpTimeout`. So after [`PATIENCE`] the
//! remaining candidates, in order of name, are dropped: it chooses among the others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;
use kerf::disruption::Budget;
use kerf::ids::PodUid;
use kerf::k8s;
use kerf::ledger::NodeLedger;
use kerf::placement::Planner;
use kerf::placement::eviction::Scene;
use kerf::placement::shape::HostAmount;
use kerf::policy::Policy;
use kerf::request::GpuRequest;
use kerf::tally::Amount;

use super::prepare::{Asked, Call, CallError, Early, Handler, json};
use super::wire::{MetaPod, MetaVictims, PreemptArgs, PreemptResult};
use crate::app::App;
use crate::retries::LOOKS;
use crate::verb::{Outcome, Verb};

/// How long one call may plan.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Preempt;

type Candidates = BTreeMap<String, MetaVictims>;

impl Handler for Preempt {
    const VERB: Verb = Verb::Preempt;
    type Args<'a> = Candidates;

    fn early(early: Early<Candidates>) -> (Outcome, Response) {
        match early {
            // nothing is evicted, and the pod is tried again
            Early::Failed(error) => (Outcome::Error, error.answer()),
            Early::NoGpu(candidates) => {
                (Outcome::NoGpu, json(&PreemptResult { node_name_to_meta_victims: candidates }))
            }
            Early::Invalid(..) => (Outcome::Invalid, json(&PreemptResult::default())),
        }
    }

    async fn answer(call: Arc<Call>) -> Result<Response, CallError> {
        call.app.leads()?;
        let own = call.clone();
        Ok(call.app.planning.run(move || evaluate(&own)).await?)
    }
}

fn evaluate(call: &Call) -> Response {
    let asked = match call.asked::<Preempt>(PreemptArgs::parse) {
        Ok(asked) => asked,
        Err(answered) => return *answered,
    };
    if fits_elsewhere(&call.app, &asked) {
        call.app.metrics.answered(Verb::Preempt, Outcome::Nowhere);
        return json(&PreemptResult::default());
    }
    let left = left(&call.app, asked);
    call.app.metrics.answered(Verb::Preempt, if left.is_empty() { Outcome::Nowhere } else { Outcome::Ok });
    json(&PreemptResult { node_name_to_meta_victims: left })
}

/// Whether the pod was refused by a part of the nodes while others have room: it is tried again there (`retries`), and
/// nobody has to leave.
fn fits_elsewhere(app: &App, asked: &Asked<Candidates>) -> bool {
    let tolerations = || asked.pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    let (mut planner, mut looks) = (Planner::default(), LOOKS);
    app.refused.may_fit_elsewhere(&asked.asking.uid)
        && app.cluster.asking(&asked.asking, app.policy).fits_anywhere(&mut planner, &tolerations(), &mut looks)
}

/// The candidates that evictions can help, with their victims.
fn left(app: &App, asked: Asked<Candidates>) -> Candidates {
    let Asked { pod, asking, policy, args: candidates } = asked;
    let begun = Instant::now();
    let late = || begun.elapsed() > PATIENCE;
    let budgets = app.budgets.current();
    if budgets.is_none() {
        app.metrics.without_budgets.inc();
        tracing::warn!(
            "disruption budgets are not known: other victims than the scheduler's count as breaking one"
        );
    }
    // `PATIENCE` bounds it
    let (mut planner, mut before) = (Planner::patient(), Planner::default());
    let cluster = app.cluster.asking(&asking, app.policy);
    let mut left = BTreeMap::new();
    let mut unseen = 0;
    for (node, victims) in candidates {
        if late() {
            unseen += 1;
            continue;
        }
        let Some(ledger) = cluster.ledger(&mut before, &node) else { continue };
        let (request, budgets) = (&asking.request, budgets.as_deref());
        let evaluated = Candidate { app, pod: &pod, request, policy, node: &node, ledger: &ledger, budgets };
        let victims = evaluated.victims(&mut planner, victims, &late);
        unseen += u64::from(late());
        // the scheduler takes a node without victims for an error
        if let Some(victims) = victims.filter(|victims| !victims.pods.is_empty()) {
            left.insert(node, victims);
        }
    }
    if unseen > 0 {
        app.metrics.preempt_skipped.inc_by(unseen);
        tracing::warn!(skipped = unseen, left = left.len(), "no time to look at every candidate for preemption");
    }
    left
}

struct Candidate<'a> {
    app: &'a App,
    pod: &'a Pod,
    request: &'a GpuRequest,
    policy: Policy,
    node: &'a str,
    ledger: &'a NodeLedger,
    budgets: Option<&'a [Arc<Budget>]>,
}

impl Candidate<'_> {
    /// `None` where evictions do not help.
    fn victims(&self, planner: &mut Planner, offered: MetaVictims, late: &dyn Fn() -> bool) -> Option<MetaVictims> {
        let chosen: BTreeSet<PodUid> = offered.pods.iter().map(|pod| pod.uid.as_str().into()).collect();
        let scene = Scene {
            ledger: self.ledger,
            request: self.request,
            policy: self.policy,
            chosen: &chosen,
            budgets: self.budgets,
            now: self.app.clock.now(),
            late,
        };
        let here = |uid: &&PodUid| self.ledger.commitments().contains_key(*uid);
        let (known, others): (BTreeSet<&PodUid>, BTreeSet<&PodUid>) = chosen.iter().partition(here);
        let spare = if k8s::asks_for_host_and_cards_alone(self.pod, &self.app.keys) {
            scene.for_cards()
        } else {
            BTreeSet::new()
        };
        let mut victims: BTreeSet<PodUid> =
            known.iter().copied().filter(|uid| !spare.contains(*uid)).cloned().collect();
        victims.extend(scene.victims(planner, &victims)?);
        if !self.host_suffices(victims.iter().chain(others.iter().copied())) {
            victims = known.into_iter().cloned().collect();
            victims.extend(scene.victims(planner, &victims)?);
        }
        let violations = |victims: &BTreeSet<PodUid>| i64::try_from(scene.violations(victims)).unwrap_or(i64::MAX);
        let of_cards: BTreeSet<PodUid> = chosen.iter().filter(here).cloned().collect();
        let elsewhere = match self.budgets {
            // for victims without cards, only the scheduler knows the budgets
            Some(_) => offered.violations.saturating_sub(violations(&of_cards)).max(0),
            None => offered.violations,
        };
        let violations = elsewhere.saturating_add(violations(&victims));
        Some(MetaVictims { pods: self.in_order(&victims, &offered.pods), violations })
    }

    /// Whether the pod's cores and memory are free after these have left; false where that is not known.
    fn host_suffices<'u>(&self, victims: impl Iterator<Item = &'u PodUid>) -> bool {
        let asked = k8s::requested(self.pod);
        if (asked.cpu, asked.memory.0) == (0, 0) {
            return true;
        }
        let Some(left) = self.app.cluster.host_left(self.node) else { return false };
        let free = victims.filter_map(|uid| self.app.cluster.host_of(uid)).fold(left, HostAmount::plus);
        asked.cpu <= free.cpu && asked.memory <= free.memory
    }

    /// The victims as the scheduler expects them, the most important first: higher priority, then earlier start.
    fn in_order(&self, victims: &BTreeSet<PodUid>, offered: &[MetaPod]) -> Vec<MetaPod> {
        let known = |uid: &PodUid| self.ledger.commitments().get(uid);
        let own = victims.iter().filter_map(|uid| {
            let known = known(uid)?;
            let started = known.standing.started;
            Some((known.request.priority, started.is_none(), started, uid.as_str()))
        });
        let others = offered.iter().filter(|pod| known(&pod.uid.as_str().into()).is_none());
        let others = others
            .map(|pod| (self.app.cluster.priority_of(&pod.uid.as_str().into()), true, None, pod.uid.as_str()));
        let mut all: Vec<_> = own.chain(others).collect();
        all.sort_by_key(|(priority, unstarted, started, _)| (Reverse(*priority), *unstarted, *started));
        all.into_iter().map(|(.., uid)| MetaPod { uid: uid.to_owned() }).collect()
    }
}
