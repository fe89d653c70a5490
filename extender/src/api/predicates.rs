//! `predicates`: gpu-admission's filter, for clusters that keep their old scheduler configuration.
//!
//! It returns one node and writes the placement on the pod by itself, since that scheduler binds by itself. The
//! same ledger and the same code as bind; the commitment stays assumed until the watch shows the pod bound.
//! Needs the right to patch pods, which nothing else here does.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use kerf::annotation;
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::placement::Unfit;
use kerf::plan::Placement;
use kerf::request::GpuRequest;
use tokio::time::Instant;

use super::filter::{Asked, answer, fitting, judge, lingering};
use super::ranking::ranks;
use super::wire::{Args, FilterResult};
use super::{json, read, uid};
use crate::App;
use crate::binder::Outcome;
use crate::cluster::PREDICATE_TTL_MS;
use crate::metrics::Verb;
use crate::planning::{Place, TooMuch};

const TAKEN: &str = "pod has been placed on another node";
const NOT_WRITTEN: &str = "GPU placement could not be written on the pod";

pub(super) async fn handle(State(app): State<Arc<App>>, body: Body) -> Response {
    let _timer = app.metrics.timer(Verb::Predicates);
    let failed = |error| json(&FilterResult::failed(app.failed(Verb::Predicates, error)));
    let body = match read(&app, body).await {
        Ok(body) => body,
        Err(error) => return failed(error),
    };
    let Choice { uid, pod, request, verdicts, ranked } = match lingering(&app, &body, evaluate).await {
        Ok(Evaluated::Answered(response)) => return response,
        Ok(Evaluated::Choice(choice)) => *choice,
        Err(error) => return failed(error),
    };
    let mut reasons: BTreeMap<NodeName, &'static str> = BTreeMap::new();
    let mut chosen = None;
    for node in ranked {
        if chosen.is_some() {
            reasons.insert(node, TAKEN);
            continue;
        }
        match place(&app, &uid, &pod, &request, &node).await {
            Ok(()) => chosen = Some(node),
            Err(Missed::Node(reason)) => {
                reasons.insert(node, reason);
            }
            Err(Missed::Call(error)) => return failed(error),
        }
    }
    app.metrics.answered(Verb::Predicates, if chosen.is_some() { "ok" } else { "no-node" });
    let told = app.planning.run(move || {
        let (_, candidates) = Args::parse(&body)?;
        let is_chosen = |node: &str| chosen.as_ref().is_some_and(|chosen| chosen.as_str() == node);
        let mut result = answer(&candidates, &verdicts, &request, is_chosen);
        let failed = candidates.names().filter_map(|node| Some((node, Cow::Borrowed(*reasons.get(node)?))));
        result.failed_nodes.extend(failed);
        Ok(json(&result))
    });
    told.await.and_then(|told| told).unwrap_or_else(failed)
}

/// What there is to do for a call.
enum Evaluated {
    Answered(Response),
    Choice(Box<Choice>),
}

/// A pod, and where it can go.
struct Choice {
    uid: PodUid,
    pod: PodRef,
    request: Arc<GpuRequest>,
    /// For each candidate, why it does not fit.
    verdicts: Vec<Option<Unfit>>,
    /// The others, the best first.
    ranked: Vec<NodeName>,
}

fn evaluate(app: &App, body: &[u8], place: Place, until: Option<Instant>) -> Result<Option<Evaluated>, TooMuch> {
    let (pod, request, candidates) = match Asked::parse(app, Verb::Predicates, body) {
        Asked::Answered(response) => return Ok(Some(Evaluated::Answered(response))),
        Asked::Pod(pod, request, candidates) => (pod, request, candidates),
    };
    place.allows(&request, app.policy, candidates.len())?;
    let uid = uid(&pod);
    let Some(verdicts) = judge(app, &uid, &request, &candidates, until) else { return Ok(None) };
    let (mut ranked, _) = ranks(app, &pod, &request, fitting(&candidates, &verdicts));
    ranked.sort_unstable();
    let ranked = ranked.into_iter().map(|(_, node)| node.into()).collect();
    let metadata = &pod.metadata;
    let pod = PodRef::new(
        metadata.namespace.as_deref().unwrap_or("default"),
        metadata.name.as_deref().unwrap_or_default(),
    );
    Ok(Some(Evaluated::Choice(Box::new(Choice { uid, pod, request, verdicts, ranked }))))
}

/// Why a pod was not placed.
enum Missed {
    /// Not on this node.
    Node(&'static str),
    /// Nothing can be said now.
    Call(String),
}

/// Reserves cards on the node and writes them on the pod.
async fn place(
    app: &Arc<App>,
    uid: &PodUid,
    pod: &PodRef,
    request: &Arc<GpuRequest>,
    node: &NodeName,
) -> Result<(), Missed> {
    // a retried pod gets the node it had, or a new one; the old hold must not count against it
    app.cluster.forget_elsewhere(uid, node);
    let deadline = app.clock.now().plus(PREDICATE_TTL_MS);
    let plan = app.assume(node, uid, pod, request, deadline).await.map_err(Missed::Call)?;
    let plan = plan.map_err(|unfit| Missed::Node(unfit.reason()))?;
    let placement = Placement { node: node.clone(), time: app.clock.nanos(), limit: request.limit, plan };
    match app.binder.annotate(pod, uid, &annotation::write(&placement, &app.keys)).await {
        Outcome::Written => {
            tracing::info!(%pod, %uid, %node, "placed");
            Ok(())
        }
        Outcome::Refused(error) => {
            tracing::warn!(%pod, %uid, %node, error, "GPU placement was refused; may the extender patch pods?");
            app.cluster.forget(node, uid);
            Err(Missed::Node(NOT_WRITTEN))
        }
        Outcome::Unknown(error) => {
            // It may be written. Another node tried now would write over it, so freeing this one is safe: what
            // stands on the pod in the end is what the watch shows.
            tracing::warn!(%pod, %uid, %node, error, "no answer to the GPU placement");
            app.cluster.forget(node, uid);
            Err(Missed::Node(NOT_WRITTEN))
        }
    }
}
