//! `filter`: which of the candidates can take the pod.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use kerf::ids::PodUid;
use kerf::k8s;
use kerf::placement::{Planner, Unfit};
use kerf::request::GpuRequest;
use tokio::time::{Instant, timeout_at};

use super::ranking::best;
use super::wire::{Args, Candidates, FilterResult};
use super::{json, read, uid};
use crate::App;
use crate::metrics::Verb;
use crate::refused::LINGER;

pub(super) async fn handle(State(app): State<Arc<App>>, body: Body) -> Response {
    let _timer = app.metrics.timer(Verb::Filter);
    let body = match read(&app, body).await {
        Ok(body) => body,
        Err(error) => return json(&FilterResult::failed(app.failed(Verb::Filter, error))),
    };
    let (pod, candidates) = match Args::parse(&body) {
        Ok(parsed) => parsed,
        Err(error) => return json(&FilterResult::failed(app.failed(Verb::Filter, error))),
    };
    let request = match k8s::request(&pod, &app.keys) {
        Ok(Some(request)) => Arc::new(request),
        Ok(None) => {
            app.metrics.answered(Verb::Filter, "no-gpu-pod");
            return json(&candidates.keep(|_, _| true));
        }
        Err(error) => {
            app.metrics.answered(Verb::Filter, "invalid");
            app.metrics.invalid.with_label_values(&[error.code()]).inc();
            return json(&refuse_all(&candidates, &error.to_string()));
        }
    };
    let verdicts = judge(&app, &uid(&pod), &request, &candidates).await;
    let fitting =
        || candidates.names().zip(&verdicts).filter(|(_, verdict)| verdict.is_none()).map(|(node, _)| node);
    let count = fitting().count();
    let chosen =
        app.candidates.filter(|most| *most < count).map(|most| best(&app, &pod, &request, fitting(), most));
    let is_left = |node: &str| chosen.as_ref().is_none_or(|chosen| chosen.contains(node));
    let mut left = fitting().filter(|node| is_left(node));
    if let (Some(only), None) = (left.next(), left.next()) {
        // prioritize will not be called: this is where the pod goes
        app.intend(&pod, &request, only);
    }
    app.metrics.unfit(verdicts.iter().flatten());
    app.metrics.answered(Verb::Filter, "ok");
    json(&answer(&candidates, &verdicts, &request, is_left))
}

/// For each candidate, why it does not fit; `None` where it does. Who fits nowhere is remembered, to be told when cards
/// become free; and since the scheduler may have heard of it before us, news that are on their way are waited for.
pub(super) async fn judge(
    app: &App,
    uid: &PodUid,
    request: &Arc<GpuRequest>,
    candidates: &Candidates<'_>,
) -> Vec<Option<Unfit>> {
    let mut seen = app.cluster.freed().count();
    let mut found = verdicts(app, uid, request, candidates);
    let nowhere = |found: &[Option<Unfit>]| found.iter().all(Option::is_some);
    if nowhere(&found) && app.refused.may_linger(uid, Instant::now()) {
        let mut changes = app.cluster.changes();
        let until = Instant::now() + LINGER;
        loop {
            seen = app.cluster.freed().count();
            found = verdicts(app, uid, request, candidates);
            if !nowhere(&found) || !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
                break;
            }
        }
    }
    if nowhere(&found) {
        app.refused.remember(uid, request, seen, Instant::now());
        app.cluster.expect_no_more(uid);
    } else {
        app.refused.forget(uid);
    }
    found
}

/// For each candidate, why it does not fit; `None` where it does.
fn verdicts(app: &App, uid: &PodUid, request: &GpuRequest, candidates: &Candidates<'_>) -> Vec<Option<Unfit>> {
    let mut planner = Planner::default();
    let asking = app.cluster.asking(uid, request, app.policy);
    candidates.names().map(|node| asking.fit(&mut planner, node).err()).collect()
}

/// The candidates that fit.
pub(super) fn fitting<'a>(
    candidates: &'a Candidates<'_>,
    verdicts: &[Option<Unfit>],
) -> impl Iterator<Item = &'a str> {
    candidates.names().zip(verdicts).filter(|(_, verdict)| verdict.is_none()).map(|(node, _)| node)
}

/// The candidates that fit and are left to the scheduler, and reasons for those that do not fit. The rest is in
/// neither list, which the scheduler takes for what it is: they could have the pod, and others are better.
pub(super) fn answer<'a>(
    candidates: &'a Candidates<'a>,
    verdicts: &[Option<Unfit>],
    request: &GpuRequest,
    is_left: impl Fn(&str) -> bool,
) -> FilterResult<'a> {
    let mut result = candidates.keep(|at, node| matches!(verdicts.get(at), Some(None)) && is_left(node));
    for (node, why) in candidates.names().zip(verdicts).filter_map(|(node, why)| Some((node, (*why)?))) {
        let failed =
            if why.resolvable() { &mut result.failed_nodes } else { &mut result.failed_and_unresolvable_nodes };
        failed.insert(node, reason(why, request));
    }
    result
}

/// No candidate can take a pod that breaks the contract. The same reason for each, so that the event says it
/// once, and unresolvable, so that nothing is evicted for it.
pub(super) fn refuse_all<'a>(candidates: &'a Candidates<'a>, reason: &'a str) -> FilterResult<'a> {
    let mut result = candidates.keep(|_, _| false);
    let failed = candidates.names().map(|node| (node, Cow::Borrowed(reason)));
    result.failed_and_unresolvable_nodes = failed.collect();
    result
}

/// Why a node does not fit. Names the container where its request, and not the cluster's load, is the reason.
fn reason(unfit: Unfit, request: &GpuRequest) -> Cow<'static, str> {
    match (unfit, request.largest_share()) {
        (Unfit::CardTooSmall, Some(container)) => format!("container {:?}: {unfit}", container.name).into(),
        _ => unfit.reason().into(),
    }
}
