//! `predicates`: gpu-admission's filter, for clusters that keep their old scheduler configuration. Served only with
//! `--legacy`.
//!
//! It returns one node and writes the placement on the pod, since that scheduler binds the pod itself. It uses the same
//! ledger and code as bind; the commitment stays assumed until the watch shows the pod bound. Only this verb needs the
//! right to patch `pods/status`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;
use kerf::ids::NodeName;
use kerf::placement::advise::UNBOUND_RECORD_MS;
use kerf::placement::scores;
use kerf::plan::Placement;
use kerf::request::PodRequest;
use kerf::unfit::Unfit;
use kerf::{annotation, k8s};
use tokio::time::Instant;

use super::filter::{Filter, answer};
use super::judge::{fitting, judge, lingering};
use super::lookup::{self, Missing};
use super::prepare::{Call, CallError, Early, Handler, json};
use super::ranking::ranks;
use super::wire::{Args, Candidates};
use crate::app::App;
use crate::binder::WriteOutcome;
use crate::decisions::Refusals;
use crate::in_flight::Writing;
use crate::lease::NotLeading;
use crate::planning::{Place, PlanningError, TooMuch};
use crate::verb::{Outcome, Verb};

const TAKEN: &str = "pod has been placed on another node";
const NOT_WRITTEN: &str = "GPU placement could not be written on the pod";

pub(super) struct Predicates;

impl Handler for Predicates {
    const VERB: Verb = Verb::Predicates;
    type Args<'a> = Candidates<'a>;

    fn early(early: Early<Candidates<'_>>) -> (Outcome, Response) {
        Filter::early(early)
    }

    async fn answer(call: Arc<Call>) -> Result<Response, CallError> {
        match lingering(&call, evaluate).await? {
            Ok(judged) => choose(&call, &Arc::new(judged)).await,
            Err(answered) => Ok(*answered),
        }
    }
}

/// A pod, and for each candidate why it does not fit.
struct Judged {
    pod: Pod,
    asking: PodRequest,
    verdicts: Vec<Option<Unfit>>,
}

/// What was judged, or the answer to a call that needs no look at nodes.
type Evaluated = Result<Judged, Box<Response>>;

fn evaluate(call: &Call, place: Place, until: Option<Instant>) -> Result<Option<Evaluated>, TooMuch> {
    let app = &call.app;
    let asked = match call.asked::<Predicates>(Args::parse) {
        Ok(asked) => asked,
        Err(answered) => return Ok(Some(Err(answered))),
    };
    place.allows(&asked.asking.request, app.policy, asked.args.len())?;
    let Some(verdicts) = judge(app, &asked.asking, &asked.args, until) else { return Ok(None) };
    let fitting = verdicts.iter().filter(|verdict| verdict.is_none()).count();
    app.decisions.filtered(&asked.asking.uid, fitting, Refusals::count(verdicts.iter().flatten()));
    Ok(Some(Ok(Judged { pod: asked.pod, asking: asked.asking, verdicts })))
}

async fn choose(call: &Arc<Call>, judged: &Arc<Judged>) -> Result<Response, CallError> {
    let app = &call.app;
    let asking = &judged.asking;
    let placed = match begin(app, asking).await {
        Ok((_writing, known)) => {
            let nodes = ranked(call, judged, &known).await?;
            place(app, &known, nodes).await?
        }
        Err(error) => {
            tracing::warn!(pod = %asking.name, uid = %asking.uid, %error, "not placed");
            Placed { chosen: None, failed: BTreeMap::new(), others: NOT_WRITTEN }
        }
    };
    app.metrics.answered(Verb::Predicates, if placed.chosen.is_some() { Outcome::Ok } else { Outcome::NoNode });
    let (call, judged) = (call.clone(), judged.clone());
    let planning = &app.planning;
    let answered = move || {
        let (_, candidates) = Args::parse(&call.body)?;
        let is_chosen = |node: &str| placed.chosen.as_ref().is_some_and(|chosen| chosen.as_str() == node);
        let request = &judged.asking.request;
        let mut result = answer(&candidates, &judged.verdicts, request, is_chosen, |_, why| why.resolvable());
        let others = fitting(&candidates, &judged.verdicts).filter(|node| !is_chosen(node));
        let reason = |node| *placed.failed.get(node).unwrap_or(&placed.others);
        result.failed_nodes.extend(others.map(|node| (node, Cow::Borrowed(reason(node)))));
        Ok(json(&result))
    };
    planning.run(answered).await?
}

/// The names of the candidates that fit, the best first.
async fn ranked(call: &Arc<Call>, judged: &Arc<Judged>, known: &PodRequest) -> Result<Vec<NodeName>, CallError> {
    let (own, judged, known) = (call.clone(), judged.clone(), known.clone());
    let ranked = move |place: Place| {
        let app = &own.app;
        place.allows(&known.request, app.policy, judged.verdicts.len())?;
        Ok(Args::parse(&own.body).map(|(_, candidates)| {
            let fitting = fitting(&candidates, &judged.verdicts);
            let scores = scores(&mut ranks(app, &known, k8s::requested(&judged.pod), fitting).0);
            app.decisions.scored(&known.uid, &scores);
            scores.into_iter().map(|(node, _)| NodeName::from(node)).collect()
        }))
    };
    Ok(call.app.planning.run_here_or_there(call.body.len(), ranked).await??)
}

/// The node that was chosen of those that fit.
struct Placed {
    chosen: Option<NodeName>,
    failed: BTreeMap<NodeName, &'static str>,
    /// The reason given for the other nodes.
    others: &'static str,
}

#[derive(Debug, thiserror::Error)]
enum NotPlaced {
    #[error("pod has no name, or no uid")]
    Nameless,
    #[error("another call is placing the pod")]
    InFlight,
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("it is not known yet whether the pod has been bound")]
    InDoubt,
}

/// The pod as kerf knows it, if it waits and no other call is writing it. A made-up pod reserves nothing, and a pod
/// that kerf itself may have bound keeps the cards of that binding.
async fn begin<'a>(app: &'a App, asking: &'a PodRequest) -> Result<(Writing<'a>, PodRequest), NotPlaced> {
    let PodRequest { uid, name, .. } = asking;
    if uid.as_str().is_empty() || name.name.is_empty() {
        return Err(NotPlaced::Nameless);
    }
    let writing = app.in_flight.begin(uid).ok_or(NotPlaced::InFlight)?;
    app.leads()?;
    let waiting = lookup::waiting(app, uid, name).await?;
    if app.cluster.binding_in_doubt(uid) {
        return Err(NotPlaced::InDoubt);
    }
    Ok((writing, waiting.pod))
}

/// Reserves cards on the first of these nodes that still takes the pod, and writes the placement. A write that fails
/// would fail for the next node as well, so no other node is tried.
async fn place(app: &Arc<App>, pod: &PodRequest, nodes: Vec<NodeName>) -> Result<Placed, PlanningError> {
    let mut failed = BTreeMap::new();
    for node in nodes {
        match reserve(app, pod, &node).await? {
            Err(unfit) => {
                failed.insert(node, unfit.reason());
            }
            Ok(placement) if write(app, pod, &placement).await => {
                return Ok(Placed { chosen: Some(node), failed, others: TAKEN });
            }
            Ok(_) => break,
        }
    }
    Ok(Placed { chosen: None, failed, others: NOT_WRITTEN })
}

async fn reserve(
    app: &Arc<App>,
    pod: &PodRequest,
    node: &NodeName,
) -> Result<Result<Placement, Unfit>, PlanningError> {
    let deadline = app.clock.now().plus(UNBOUND_RECORD_MS);
    let assume = {
        let (node, pod) = (node.clone(), pod.clone());
        move |app: &App| app.cluster.assume_recorded(&node, &pod, app.policy, deadline)
    };
    let plan = app.planned(&pod.request, assume).await?;
    let (node, time, limit) = (node.clone(), app.clock.nanos(), pod.request.limit);
    Ok(plan.map(|plan| Placement { node, time, limit, plan }))
}

/// Whether the placement was written.
async fn write(app: &App, pod: &PodRequest, placement: &Placement) -> bool {
    let (node, PodRequest { uid, name, request }) = (&placement.node, pod);
    // again: it may have changed while the pod was read and planned
    if let Err(error) = app.leads() {
        tracing::warn!(pod = %name, %uid, %node, error = error.to_string(), "GPU placement was not written");
        app.cluster.forget(node, uid);
        return false;
    }
    match app.binder.annotate(name, uid, &annotation::write(placement, &app.keys)).await {
        WriteOutcome::Written => {
            app.decisions.made(pod, placement, request.policy_or(app.policy), None);
            true
        }
        WriteOutcome::Refused(error) => {
            tracing::warn!(pod = %name, %uid, %node, error, "GPU placement was refused; check that the extender may patch pods/status");
            app.cluster.forget(node, uid);
            false
        }
        WriteOutcome::Unknown(error) => {
            // it may have been written, so its cards stay taken until the pod is placed again or the deadline has
            // passed
            tracing::warn!(pod = %name, %uid, %node, error, "no answer to the GPU placement");
            false
        }
    }
}
