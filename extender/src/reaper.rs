//! What depends on time alone, once per round: the API server is asked about each binding whose outcome is unknown, and
//! cards that an exchange of records left are freed where its other half never came.

use std::sync::Arc;
use std::time::Duration;

use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s;
use kerf::units::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often overdue commitments are looked for.
const ROUND: Duration = Duration::from_secs(1);

pub(crate) async fn run(app: Arc<App>, token: CancellationToken) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let work = async {
        loop {
            rounds.tick().await;
            round(&app).await;
        }
    };
    // a round may have to wait for an answer about each of many bindings
    token.run_until_cancelled(work).await;
}

/// Settles every overdue commitment that the API server answers about; the others wait for the next round.
pub(crate) async fn round(app: &App) {
    let now = app.clock.now();
    app.cluster.settle(now);
    for (node, uid, pod) in app.cluster.overdue(now) {
        match app.binder.read(&pod).await {
            Ok(Some(found)) => match k8s::pod(&found, &app.keys) {
                Some(view) if view.uid == uid && view.node.is_some() => {
                    app.cluster.apply_answer(view, &app.clock);
                    tracing::info!(%pod, %uid, %node, "binding with an unknown outcome was written");
                }
                // unbound, or another pod of the same name
                _ => expire(app, &node, &uid, &pod, now),
            },
            Ok(None) => expire(app, &node, &uid, &pod, now),
            Err(error) => {
                tracing::warn!(%pod, %uid, %node, %error, "outcome of a binding is unknown; the API server does not answer")
            }
        }
    }
}

fn expire(app: &App, node: &NodeName, uid: &PodUid, pod: &PodRef, now: Timestamp) {
    if app.cluster.expire(node, uid, now) {
        app.metrics.expired.inc();
        tracing::info!(%pod, %uid, %node, "binding with an unknown outcome was not written; its GPUs are free");
    }
}
