//! `predicates`: gpu-admission's filter, for clusters that keep their old scheduler configuration. Served with `--legacy`
//! alone.
//!
//! It returns one node and writes the placement on the pod by itself, since that scheduler binds by itself. The
//! same ledger and the same code as bind; the commitment stays assumed until the watch shows the pod bound.
//! Needs the right to patch `pods/status`, which nothing else here does.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;
use kerf::annotation;
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s;
use kerf::placement::Unfit;
use kerf::plan::Placement;
use kerf::request::GpuRequest;

use super::filter::{answer, fitting, judge, refuse_all};
use super::lookup::Missing;
use super::ranking::ranks;
use super::wire::{Args, Candidates, FilterResult};
use super::{json, lookup, read, uid};
use crate::App;
use crate::binder::Outcome;
use crate::cluster::{PREDICATE_TTL_MS, Waiting};
use crate::in_flight::Writing;
use crate::metrics::Verb;

const TAKEN: &str = "pod has been placed on another node";
const NOT_WRITTEN: &str = "GPU placement could not be written on the pod";

pub(super) async fn handle(State(app): State<Arc<App>>, body: Body) -> Response {
    let _timer = app.metrics.timer(Verb::Predicates);
    let parsed = read(&app, body).await;
    let parsed = parsed.as_ref().map_err(String::clone).and_then(|body| Args::parse(body));
    let (pod, candidates) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return json(&FilterResult::failed(app.failed(Verb::Predicates, error))),
    };
    match k8s::request(&pod, &app.keys) {
        Ok(Some(request)) => json(&choose(&app, &pod, &Arc::new(request), &candidates).await),
        Ok(None) => {
            app.metrics.answered(Verb::Predicates, "no-gpu-pod");
            json(&candidates.keep(|_, _| true))
        }
        Err(error) => {
            app.metrics.answered(Verb::Predicates, "invalid");
            app.metrics.invalid.with_label_values(&[error.code()]).inc();
            json(&refuse_all(&candidates, &error.to_string()))
        }
    }
}

async fn choose<'a>(
    app: &App,
    pod: &Pod,
    request: &Arc<GpuRequest>,
    candidates: &'a Candidates<'a>,
) -> FilterResult<'a> {
    let metadata = &pod.metadata;
    let uid = uid(pod);
    let name = PodRef::new(
        metadata.namespace.as_deref().unwrap_or("default"),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let before = judge(app, &uid, request, candidates).await;
    let placed = match begin(app, &uid, &name).await {
        Ok((_writing, waiting)) => {
            let (mut ranked, _) = ranks(app, pod, &waiting.request, fitting(candidates, &before));
            ranked.sort_unstable();
            place(app, &uid, &waiting, ranked.into_iter().map(|(_, node)| node)).await
        }
        Err(error) => {
            tracing::warn!(pod = %name, %uid, error, "not placed");
            Placed::nowhere(fitting(candidates, &before))
        }
    };
    app.metrics.answered(Verb::Predicates, if placed.chosen.is_some() { "ok" } else { "no-node" });
    let mut result = answer(candidates, &before, request, |node| placed.chosen == Some(node));
    result.failed_nodes.extend(placed.failed.into_iter().map(|(node, reason)| (node, reason.into())));
    result
}

/// What became of the nodes that fit.
struct Placed<'a> {
    chosen: Option<&'a str>,
    failed: Vec<(&'a str, &'static str)>,
}

impl<'a> Placed<'a> {
    fn nowhere(nodes: impl Iterator<Item = &'a str>) -> Self {
        Self { chosen: None, failed: nodes.map(|node| (node, NOT_WRITTEN)).collect() }
    }
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
async fn place<'a>(app: &App, uid: &PodUid, pod: &Waiting, mut nodes: impl Iterator<Item = &'a str>) -> Placed<'a> {
    let mut failed: Vec<(&str, &'static str)> = Vec::new();
    while let Some(node) = nodes.next() {
        match reserve(app, uid, pod, node) {
            Err(unfit) => failed.push((node, unfit.reason())),
            Ok(placement) => {
                let (chosen, rest) =
                    if write(app, uid, pod, &placement).await { (Some(node), TAKEN) } else { (None, NOT_WRITTEN) };
                failed.extend(chosen.is_none().then_some((node, rest)));
                failed.extend(nodes.map(|node| (node, rest)));
                return Placed { chosen, failed };
            }
        }
    }
    Placed { chosen: None, failed }
}

fn reserve(app: &App, uid: &PodUid, pod: &Waiting, node: &str) -> Result<Placement, Unfit> {
    let node = NodeName::from(node);
    let deadline = app.clock.now().plus(PREDICATE_TTL_MS);
    let plan = app.cluster.assume_recorded(&node, uid, &pod.pod, &pod.request, app.policy, deadline)?;
    Ok(Placement { node, time: app.clock.nanos(), limit: pod.request.limit, plan })
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
