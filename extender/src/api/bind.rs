//! `bind`: commits the pod to cards of the chosen node, in one write.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use kerf::annotation;
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s;
use kerf::plan::Placement;
use kerf::request::GpuRequest;

use super::wire::{BindArgs, BindResult};
use super::{json, read};
use crate::binder::Outcome;
use crate::metrics::{Bind, Verb};
use crate::{App, DEADLINE_MS};

pub(super) async fn handle(State(app): State<Arc<App>>, body: Body) -> Response {
    let _timer = app.metrics.timer(Verb::Bind);
    let body = read(&app, body).await;
    let args = body.and_then(|body| {
        serde_json::from_slice::<BindArgs>(&body).map_err(|error| format!("request cannot be read: {error}"))
    });
    let args = match args {
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
        Bind::Bound | Bind::Already => tracing::info!(%pod, %uid, %node, outcome = outcome.as_str(), "bound"),
        _ => tracing::warn!(%pod, %uid, %node, outcome = outcome.as_str(), error, "not bound"),
    }
    (outcome, error)
}

async fn commit(app: &App, uid: &PodUid, pod: &PodRef, node: &NodeName) -> (Bind, String) {
    let request = match app.cluster.pending_request(uid) {
        Some(request) => Some(request),
        None => match look_up(app, uid, pod, node).await {
            Ok(request) => request,
            Err(answer) => return answer,
        },
    };
    let Some(request) = request else {
        // a scheduler without managedResources asks this of every pod
        return match app.binder.bind(pod, uid, node, Default::default()).await {
            Outcome::Written => (Bind::Bound, String::new()),
            Outcome::Refused(error) => (Bind::Refused, error),
            Outcome::Unknown(error) => (Bind::Unknown, error),
        };
    };
    let deadline = app.clock.now().plus(DEADLINE_MS);
    let plan = match app.cluster.assume(node, uid, pod, &request, app.policy, deadline) {
        Ok(plan) => plan,
        Err(unfit) => return (Bind::Unfit, format!("pod no longer fits on the node: {unfit}")),
    };
    let placement = Placement { node: node.clone(), time: app.clock.nanos(), limit: request.limit, plan };
    let written = app.binder.bind(pod, uid, node, annotation::write(&placement, &app.keys)).await;
    settle(app, uid, pod, node, written).await
}

/// What the pod asks for, from the API server: the watch may lag behind the scheduler's.
async fn look_up(
    app: &App,
    uid: &PodUid,
    pod: &PodRef,
    node: &NodeName,
) -> Result<Option<Arc<GpuRequest>>, (Bind, String)> {
    let found = match app.binder.read(pod).await {
        Ok(Some(found)) => found,
        Ok(None) => return Err((Bind::Refused, format!("pod {pod} is gone"))),
        Err(error) => return Err((Bind::Failed, format!("pod {pod} cannot be read: {error}"))),
    };
    let Some(view) = k8s::pod(&found, &app.keys).filter(|view| view.uid == *uid) else {
        return Err((Bind::Refused, format!("pod {pod} is another one by now: its uid is not {uid}")));
    };
    if let Some(home) = &view.node {
        let answer = if home == node {
            (Bind::Already, String::new())
        } else {
            (Bind::Refused, format!("pod {pod} is bound to node {home} already"))
        };
        app.cluster.apply_pod(view, app.clock.now());
        return Err(answer);
    }
    view.request.map_err(|error| (Bind::Invalid, error.to_string()))
}

/// Brings the ledger in line with what became of the write.
async fn settle(app: &App, uid: &PodUid, pod: &PodRef, node: &NodeName, written: Outcome) -> (Bind, String) {
    let (refused, error) = match written {
        Outcome::Written => {
            app.cluster.bound(node, uid);
            return (Bind::Bound, String::new());
        }
        Outcome::Refused(error) => (true, error),
        Outcome::Unknown(error) => (false, error),
    };
    // Both may mean that an earlier write was accepted whose answer was lost: one look tells.
    if let Ok(found) = app.binder.read(pod).await {
        let view = found.and_then(|found| k8s::pod(&found, &app.keys)).filter(|view| view.uid == *uid);
        let home = view.as_ref().and_then(|view| view.node.clone());
        if let Some(view) = view.filter(|view| view.node.is_some()) {
            app.cluster.apply_pod(view, app.clock.now());
        }
        if home.as_ref() == Some(node) {
            return (Bind::Already, String::new());
        }
        if refused {
            app.cluster.forget(node, uid);
            return (Bind::Refused, error);
        }
    }
    // Not known, or not written yet: the hold stays until the reaper has learnt more.
    (Bind::Unknown, format!("outcome of the binding is unknown: {error}"))
}
