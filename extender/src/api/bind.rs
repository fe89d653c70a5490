//! `bind`: commits the pod to cards of the chosen node, in one write.
//!
//! It acts for whoever calls, so it does nothing that kube-scheduler would not do by itself: it binds pods that wait and
//! ask for cards, and to no node that is closed to them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use kerf::annotation;
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s;
use kerf::plan::Placement;

use super::lookup::Missing;
use super::wire::{BindArgs, BindResult};
use super::{json, lookup, read};
use crate::binder::Outcome;
use crate::metrics::{Bind, Verb};
use crate::{App, DEADLINE_MS};

pub(super) async fn handle(State(app): State<Arc<App>>, body: Body) -> Response {
    let _timer = app.metrics.timer(Verb::Bind);
    let body = read(&app, body).await;
    let args = match body.and_then(|body| BindArgs::parse(&body)) {
        Ok(args) => args,
        Err(error) => return json(&BindResult { error: app.failed(Verb::Bind, error) }),
    };
    // The scheduler may hang up; a write that has begun must be followed to its end all the same.
    let task = app.tasks.spawn_short(bind(app.clone(), args));
    let (outcome, error) = task.await.unwrap_or_else(|_| (Bind::Failed, "bind ended unexpectedly".into()));
    app.metrics.bound(outcome);
    app.metrics.answered(Verb::Bind, if error.is_empty() { "ok" } else { "error" });
    json(&BindResult { error })
}

async fn bind(app: Arc<App>, args: BindArgs) -> (Bind, String) {
    let uid = PodUid::from(args.pod_uid);
    let pod = PodRef::new(args.pod_namespace, args.pod_name);
    let node = NodeName::from(args.node);
    let (outcome, error) = commit(&app, &uid, &pod, &node).await;
    app.intents.drop(&uid);
    app.cluster.expect_no_more(&uid);
    match outcome {
        Bind::Bound | Bind::Already => {}
        _ => tracing::warn!(%pod, %uid, %node, outcome = outcome.as_str(), error, "not bound"),
    }
    (outcome, error)
}

async fn commit(app: &Arc<App>, uid: &PodUid, pod: &PodRef, node: &NodeName) -> (Bind, String) {
    let Some(_writing) = app.in_flight.begin(uid) else {
        return (Bind::Refused, format!("pod {pod} is being placed by another call"));
    };
    let waiting = match lookup::waiting(app, uid, pod).await {
        Ok(waiting) => waiting,
        Err(Missing::Bound(home)) if home == *node => {
            tracing::info!(%pod, %uid, %node, outcome = Bind::Already.as_str(), "bound");
            return (Bind::Already, String::new());
        }
        Err(Missing::Bound(home)) => return (Bind::Refused, format!("pod {pod} is bound to node {home} already")),
        Err(Missing::Refused(error)) => return (Bind::Refused, error),
        Err(Missing::Invalid(error)) => return (Bind::Invalid, error),
        Err(Missing::Unread(error)) => return (Bind::Failed, error),
    };
    // kube-scheduler has looked at this before it calls; whoever else may call has not
    if let Some(closed) = app.cluster.closed(node, &waiting.tolerations) {
        return (Bind::Refused, closed);
    }
    let request = waiting.request;
    let deadline = app.clock.now().plus(DEADLINE_MS);
    let assume = {
        let (node, uid, pod, request) = (node.clone(), uid.clone(), pod.clone(), request.clone());
        move |app: &App| app.cluster.assume(&node, &uid, &pod, &request, app.policy, deadline)
    };
    let plan = match app.planned(&request, assume).await {
        Ok(Ok(plan)) => plan,
        Ok(Err(unfit)) => return (Bind::Unfit, format!("pod no longer fits on the node: {unfit}")),
        Err(error) => return (Bind::Failed, error),
    };
    let placement = Placement { node: node.clone(), time: app.clock.nanos(), limit: request.limit, plan };
    let written = app.binder.bind(pod, uid, node, annotation::write(&placement, &app.keys)).await;
    let (outcome, error) = settle(app, uid, pod, node, written).await;
    if matches!(outcome, Bind::Bound | Bind::Already) {
        // a record that was written before stands where this one was not: the watch shows it
        let (outcome, policy) = (outcome.as_str(), request.policy.unwrap_or(app.policy).as_str());
        tracing::info!(%pod, %uid, %node, gpus = %placement.plan, policy, outcome, "bound");
    }
    (outcome, error)
}

/// Brings the ledger in line with what became of the write.
async fn settle(app: &App, uid: &PodUid, pod: &PodRef, node: &NodeName, written: Outcome) -> (Bind, String) {
    let (refused, error) = match written {
        Outcome::Written => {
            app.cluster.bound(node, uid);
            return (Bind::Bound, String::new());
        }
        Outcome::Refused(error) => (true, error),
        Outcome::Unknown(error) => {
            app.cluster.unanswered(node, uid);
            (false, error)
        }
    };
    // Both may mean that an earlier write was accepted whose answer was lost: one look tells.
    if let Ok(found) = app.binder.read(pod).await {
        let view = found.and_then(|found| k8s::pod(&found, &app.keys)).filter(|view| view.uid == *uid);
        let home = view.as_ref().and_then(|view| view.node.clone());
        if let Some(view) = view.filter(|view| view.node.is_some()) {
            app.cluster.apply_answer(view, &app.clock);
        }
        if home.as_ref() == Some(node) {
            return (Bind::Already, String::new());
        }
        if refused && app.cluster.forget(node, uid) {
            return (Bind::Refused, error);
        }
    }
    // Not known, or this write or one before it may be carried out yet: the hold stays until the reaper has learnt more.
    (Bind::Unknown, format!("outcome of the binding is unknown: {error}"))
}
