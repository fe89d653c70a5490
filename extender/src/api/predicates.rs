//! `predicates`: gpu-admission's filter, for clusters that keep their old scheduler configuration. Served with `--legacy`
//! alone.
//!
//! It returns one node and writes the placement on the pod by itself, since that scheduler binds by itself. The
//! same ledger and the same code as bind; the commitment stays assumed until the watch shows the pod bound.
//! Needs the right to patch `pods/status`, which nothing else here does.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;
use kerf::annotation;
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::plan::Placement;
use kerf::request::GpuRequest;
use kerf::unfit::Unfit;
use tokio::time::Instant;

use super::filter::{Asked, answer, fitting, judge, lingering};
use super::lookup::Missing;
use super::ranking::ranks;
use super::wire::{Args, FilterResult};
use super::{json, lookup, read, uid};
use crate::App;
use crate::binder::Outcome;
use crate::cluster::{PREDICATE_TTL_MS, Waiting};
use crate::in_flight::Writing;
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
    let judged = match lingering(&app, &body, evaluate).await {
        Ok(Evaluated::Answered(response)) => return response,
        Ok(Evaluated::Judged(judged)) => Arc::new(judged),
        Err(error) => return failed(error),
    };
    choose(&app, body, &judged).await.unwrap_or_else(failed)
}

/// What there is to do for a call.
enum Evaluated {
    Answered(Response),
    Judged(Judged),
}

/// A pod, and for each candidate why it does not fit.
struct Judged {
    pod: Box<Pod>,
    request: Arc<GpuRequest>,
    verdicts: Vec<Option<Unfit>>,
}

fn evaluate(app: &App, body: &[u8], place: Place, until: Option<Instant>) -> Result<Option<Evaluated>, TooMuch> {
    let (pod, request, candidates) = match Asked::parse(app, Verb::Predicates, body) {
        Asked::Answered(response) => return Ok(Some(Evaluated::Answered(response))),
        Asked::Pod(pod, request, candidates) => (pod, request, candidates),
    };
    place.allows(&request, app.policy, candidates.len())?;
    let verdicts = judge(app, &uid(&pod), &request, &candidates, until);
    Ok(verdicts.map(|verdicts| Evaluated::Judged(Judged { pod, request, verdicts })))
}

async fn choose(app: &Arc<App>, body: Bytes, judged: &Arc<Judged>) -> Result<Response, String> {
    let metadata = &judged.pod.metadata;
    let uid = uid(&judged.pod);
    let name = PodRef::new(
        metadata.namespace.as_deref().unwrap_or("default"),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let placed = match begin(app, &uid, &name).await {
        Ok((_writing, waiting)) => {
            let nodes = ranked(app, body.clone(), judged, &waiting.request).await?;
            place(app, &uid, &waiting, nodes).await?
        }
        Err(error) => {
            tracing::warn!(pod = %name, %uid, error, "not placed");
            Placed { chosen: None, failed: BTreeMap::new(), others: NOT_WRITTEN }
        }
    };
    app.metrics.answered(Verb::Predicates, if placed.chosen.is_some() { "ok" } else { "no-node" });
    let judged = judged.clone();
    let answered = move || {
        let (_, candidates) = Args::parse(&body)?;
        let is_chosen = |node: &str| placed.chosen.as_ref().is_some_and(|chosen| chosen.as_str() == node);
        let mut result = answer(&candidates, &judged.verdicts, &judged.request, is_chosen);
        let others = fitting(&candidates, &judged.verdicts).filter(|node| !is_chosen(node));
        let reason = |node| *placed.failed.get(node).unwrap_or(&placed.others);
        result.failed_nodes.extend(others.map(|node| (node, Cow::Borrowed(reason(node)))));
        Ok(json(&result))
    };
    app.planning.run(answered).await?
}

/// The candidates that fit, the best first.
async fn ranked(
    app: &Arc<App>,
    body: Bytes,
    judged: &Arc<Judged>,
    request: &Arc<GpuRequest>,
) -> Result<Vec<NodeName>, String> {
    let (own, judged, request, bytes) = (app.clone(), judged.clone(), request.clone(), body.len());
    let ranked = move |place: Place| {
        place.allows(&request, own.policy, judged.verdicts.len())?;
        Ok(Args::parse(&body).map(|(_, candidates)| {
            let fitting = fitting(&candidates, &judged.verdicts);
            let (mut ranked, _) = ranks(&own, &judged.pod, &request, fitting);
            ranked.sort_unstable();
            ranked.into_iter().map(|(_, node)| NodeName::from(node)).collect()
        }))
    };
    app.planning.run_here_or_there(bytes, ranked).await?
}

/// What became of the nodes that fit.
struct Placed {
    chosen: Option<NodeName>,
    failed: BTreeMap<NodeName, &'static str>,
    /// Why it was none of the others.
    others: &'static str,
}

/// The pod as it is known, if it waits and nobody else is writing about it. A made-up pod reserves nothing, and one that
/// kerf itself may have bound keeps the cards of that binding.
async fn begin<'a>(app: &'a App, uid: &'a PodUid, pod: &PodRef) -> Result<(Writing<'a>, Waiting), String> {
    if uid.as_str().is_empty() || pod.name.is_empty() {
        return Err("pod has no name, or no uid".into());
    }
    let writing = app.in_flight.begin(uid).ok_or("another call is placing the pod")?;
    let waiting = lookup::waiting(app, uid, pod).await.map_err(|missing| match missing {
        Missing::Bound(home) => format!("pod is bound to node {home} already"),
        Missing::Refused(error) | Missing::Invalid(error) | Missing::Unread(error) => error,
    })?;
    if app.cluster.binding_in_doubt(uid) {
        return Err("it is not known yet whether the pod has been bound".into());
    }
    Ok((writing, waiting))
}

/// Reserves cards on the first of these nodes that still takes the pod, and writes them on it. A write that fails would
/// fail for the next node as well, so it is the last one.
async fn place(app: &Arc<App>, uid: &PodUid, pod: &Waiting, nodes: Vec<NodeName>) -> Result<Placed, String> {
    let mut failed = BTreeMap::new();
    for node in nodes {
        match reserve(app, uid, pod, &node).await? {
            Err(unfit) => {
                failed.insert(node, unfit.reason());
            }
            Ok(placement) if write(app, uid, pod, &placement).await => {
                return Ok(Placed { chosen: Some(node), failed, others: TAKEN });
            }
            Ok(_) => break,
        }
    }
    Ok(Placed { chosen: None, failed, others: NOT_WRITTEN })
}

async fn reserve(
    app: &Arc<App>,
    uid: &PodUid,
    pod: &Waiting,
    node: &NodeName,
) -> Result<Result<Placement, Unfit>, String> {
    let deadline = app.clock.now().plus(PREDICATE_TTL_MS);
    let assume = {
        let (node, uid, pod, request) = (node.clone(), uid.clone(), pod.pod.clone(), pod.request.clone());
        move |app: &App| app.cluster.assume_recorded(&node, &uid, &pod, &request, app.policy, deadline)
    };
    let plan = app.planned(&pod.request, assume).await?;
    let (node, time, limit) = (node.clone(), app.clock.nanos(), pod.request.limit);
    Ok(plan.map(|plan| Placement { node, time, limit, plan }))
}

/// Whether the placement stands on the pod.
async fn write(app: &App, uid: &PodUid, pod: &Waiting, placement: &Placement) -> bool {
    let (node, name) = (&placement.node, &pod.pod);
    match app.binder.annotate(name, uid, &annotation::write(placement, &app.keys)).await {
        Outcome::Written => {
            tracing::info!(pod = %name, %uid, %node, "placed");
            true
        }
        Outcome::Refused(error) => {
            tracing::warn!(pod = %name, %uid, %node, error, "GPU placement was refused; may the extender patch pods/status?");
            app.cluster.forget(node, uid);
            false
        }
        Outcome::Unknown(error) => {
            // it may be written, so its cards stay taken until the pod is placed anew or that can no longer come
            tracing::warn!(pod = %name, %uid, %node, error, "no answer to the GPU placement");
            false
        }
    }
}
