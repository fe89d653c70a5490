//! `predicates`: gpu-admission's filter, for clusters that keep their old scheduler configuration.
//!
//! It returns one node and writes the placement on the pod by itself, since that scheduler binds by itself. The
//! same ledger and the same code as bind; the commitment stays assumed until the watch shows the pod bound.
//! Needs the right to patch pods, which nothing else here does.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;
use kerf::annotation;
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s;
use kerf::plan::Placement;
use kerf::request::GpuRequest;

use super::filter::{answer, fitting, judge, refuse_all};
use super::ranking::ranks;
use super::wire::{Args, Candidates, FilterResult};
use super::{json, read, uid};
use crate::App;
use crate::binder::Outcome;
use crate::cluster::PREDICATE_TTL_MS;
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
    let (mut ranked, _) = ranks(app, pod, request, fitting(candidates, &before));
    ranked.sort_unstable();
    let mut failed: Vec<(&str, &str)> = Vec::new();
    let mut chosen = None;
    for (_, node) in ranked {
        if chosen.is_some() {
            failed.push((node, TAKEN));
            continue;
        }
        match place(app, &uid, &name, request, node).await {
            Ok(()) => chosen = Some(node),
            Err(reason) => failed.push((node, reason)),
        }
    }
    app.metrics.answered(Verb::Predicates, if chosen.is_some() { "ok" } else { "no-node" });
    let mut result = answer(candidates, &before, request, |node| chosen == Some(node));
    result.failed_nodes.extend(failed.into_iter().map(|(node, reason)| (node, reason.into())));
    result
}

/// Reserves cards on the node and writes them on the pod.
async fn place(
    app: &App,
    uid: &PodUid,
    pod: &PodRef,
    request: &Arc<GpuRequest>,
    node: &str,
) -> Result<(), &'static str> {
    let node = NodeName::from(node);
    // a retried pod gets the node it had, or a new one; the old hold must not count against it
    app.cluster.forget_elsewhere(uid, &node);
    let deadline = app.clock.now().plus(PREDICATE_TTL_MS);
    let plan = app
        .cluster
        .assume(&node, uid, pod, request, app.policy, deadline)
        .map_err(kerf::placement::Unfit::reason)?;
    let placement = Placement { node: node.clone(), time: app.clock.nanos(), limit: request.limit, plan };
    match app.binder.annotate(pod, uid, &annotation::write(&placement, &app.keys)).await {
        Outcome::Written => {
            tracing::info!(%pod, %uid, %node, "placed");
            Ok(())
        }
        Outcome::Refused(error) => {
            tracing::warn!(%pod, %uid, %node, error, "GPU placement was refused; may the extender patch pods?");
            app.cluster.forget(&node, uid);
            Err(NOT_WRITTEN)
        }
        Outcome::Unknown(error) => {
            // It may be written. Another node tried now would write over it, so freeing this one is safe: what
            // stands on the pod in the end is what the watch shows.
            tracing::warn!(%pod, %uid, %node, error, "no answer to the GPU placement");
            app.cluster.forget(&node, uid);
            Err(NOT_WRITTEN)
        }
    }
}
