//! `bind`: commits the pod to GPUs of the chosen node, in one write.
//!
//! Any caller may use it, so it does nothing that kube-scheduler would not do: it binds only waiting pods that ask for
//! GPUs, and never to a node that is closed to them.

use std::sync::Arc;

use axum::response::Response;
use kerf::annotation;
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s;
use kerf::plan::Placement;
use tracing::Instrument;

use super::lookup::{self, Missing};
use super::prepare::{Call, CallError, Early, Handler, json};
use super::wire::{BindArgs, BindResult};
use crate::app::App;
use crate::binder::WriteOutcome;
use crate::lease::NotLeading;
use crate::verb::{BindOutcome, Outcome, Verb};

/// How long a binding's outcome may be unknown before the API server is asked, in milliseconds. Far longer than any
/// write can be in flight.
const DEADLINE_MS: u64 = 15_000;

pub(super) struct Bind;

impl Handler for Bind {
    const VERB: Verb = Verb::Bind;
    /// The call has only the pod's name; its request is looked up.
    type Args<'a> = PodRef;

    fn early(early: Early<PodRef>) -> (Outcome, Response) {
        let error = match early {
            Early::Failed(error) => error.to_string(),
            Early::NoGpu(pod) => Missing::NoGpu(pod).to_string(),
            Early::Invalid(_, error) => Missing::Invalid(error).to_string(),
        };
        (Outcome::Error, json(&BindResult { error }))
    }

    async fn answer(call: Arc<Call>) -> Result<Response, CallError> {
        let args = BindArgs::parse(&call.body)?;
        let app = &call.app;
        let bound = Binding {
            app: app.clone(),
            uid: args.pod_uid.into(),
            pod: PodRef::new(args.pod_namespace, args.pod_name),
            node: args.node.into(),
        };
        call.concerns(&bound.pod, bound.uid.as_str());
        // a write that has begun must be followed to its end even where the scheduler closes the connection
        let task = app.tasks.spawn_short(bound.run().in_current_span());
        let broken = || (BindOutcome::Failed, "bind ended unexpectedly".to_owned());
        let (outcome, error) = task.await.unwrap_or_else(|_| broken());
        app.metrics.bound(outcome);
        app.metrics.answered(Verb::Bind, if error.is_empty() { Outcome::Ok } else { Outcome::Error });
        Ok(json(&BindResult { error }))
    }
}

struct Binding {
    app: Arc<App>,
    uid: PodUid,
    pod: PodRef,
    node: NodeName,
}

struct NotBound(BindOutcome, String);

impl From<NotLeading> for NotBound {
    fn from(error: NotLeading) -> Self {
        Self(BindOutcome::Refused, error.to_string())
    }
}

impl From<Missing> for NotBound {
    fn from(missing: Missing) -> Self {
        let outcome = match missing {
            Missing::Bound { .. }
            | Missing::Gone(_)
            | Missing::Another { .. }
            | Missing::Ended(_)
            | Missing::NoGpu(_) => BindOutcome::Refused,
            Missing::Invalid(_) => BindOutcome::Invalid,
            Missing::Unread { .. } => BindOutcome::Failed,
        };
        Self(outcome, missing.to_string())
    }
}

impl Binding {
    /// The outcome, and the answer's error; empty where the pod is bound.
    async fn run(self) -> (BindOutcome, String) {
        let Self { app, uid, pod, node } = &self;
        let committed = self.commit().await;
        app.intents.drop(uid);
        app.cluster.expect_no_more(uid);
        match committed {
            Ok(outcome) => (outcome, String::new()),
            Err(NotBound(outcome, error)) => {
                tracing::warn!(%pod, %uid, %node, outcome = outcome.as_str(), error, "not bound");
                (outcome, error)
            }
        }
    }

    async fn commit(&self) -> Result<BindOutcome, NotBound> {
        let Self { app, uid, pod, node } = self;
        let Some(_writing) = app.in_flight.begin(uid) else {
            return Err(NotBound(BindOutcome::Refused, format!("pod {pod} is being placed by another call")));
        };
        app.leads()?;
        let waiting = match lookup::waiting(app, uid, pod).await {
            Ok(waiting) => waiting,
            Err(Missing::Bound { node: home, .. }) if home == *node => {
                tracing::info!(%pod, %uid, %node, outcome = BindOutcome::Already.as_str(), "bound");
                return Ok(BindOutcome::Already);
            }
            Err(missing) => return Err(missing.into()),
        };
        // kube-scheduler has checked this before it calls; another caller may not have
        if let Some(closed) = app.cluster.closed(node, &waiting.tolerations) {
            return Err(NotBound(BindOutcome::Refused, closed));
        }
        let asking = waiting.pod;
        let deadline = app.clock.now().plus(DEADLINE_MS);
        let assume = {
            let (node, asking) = (node.clone(), asking.clone());
            move |app: &App| app.cluster.assume(&node, &asking, app.policy, deadline)
        };
        let plan = match app.planned(&asking.request, assume).await {
            Ok(Ok(plan)) => plan,
            Ok(Err(unfit)) => {
                return Err(NotBound(BindOutcome::Unfit, format!("pod no longer fits on the node: {unfit}")));
            }
            Err(error) => return Err(NotBound(BindOutcome::Failed, error.to_string())),
        };
        let request = &asking.request;
        let placement = Placement { node: node.clone(), time: app.clock.nanos(), limit: request.limit, plan };
        // again: it may have changed while the pod was read and planned
        if let Err(error) = app.leads() {
            app.cluster.forget(node, uid);
            return Err(error.into());
        }
        let written = app.binder.bind(pod, uid, node, annotation::write(&placement, &app.keys)).await;
        let outcome = self.settle(written).await?;
        // an earlier record counts where this one was not written: the watch shows it
        let policy = request.policy_or(app.policy);
        app.decisions.made(&asking, &placement, policy, Some(outcome));
        Ok(outcome)
    }

    /// Updates the ledger with the outcome of the write.
    async fn settle(&self, written: WriteOutcome) -> Result<BindOutcome, NotBound> {
        let Self { app, uid, pod, node } = self;
        let (refused, error) = match written {
            WriteOutcome::Written => {
                app.cluster.bound(node, uid);
                return Ok(BindOutcome::Bound);
            }
            WriteOutcome::Refused(error) => (true, error),
            WriteOutcome::Unknown(error) => {
                app.cluster.unanswered(node, uid);
                (false, error)
            }
        };
        // both may mean that an earlier write was accepted and its answer was lost: a read tells
        if let Ok(found) = app.binder.read(pod).await {
            let view = found.and_then(|found| k8s::pod(&found, &app.keys)).filter(|view| view.uid == *uid);
            let home = view.as_ref().and_then(|view| view.node.clone());
            if let Some(view) = view.filter(|view| view.node.is_some()) {
                app.cluster.apply_answer(view, &app.clock);
            }
            if home.as_ref() == Some(node) {
                return Ok(BindOutcome::Already);
            }
            if refused && app.cluster.forget(node, uid) {
                return Err(NotBound(BindOutcome::Refused, error));
            }
        }
        // unknown, or this write or an earlier one may still be carried out: the hold stays until the reaper learns
        // more
        Err(NotBound(BindOutcome::Unknown, format!("outcome of the binding is unknown: {error}")))
    }
}
