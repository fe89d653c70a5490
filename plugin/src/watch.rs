//! Follows this node's pods at the API server.

use std::time::Duration;

use futures::StreamExt;
use kerf::runtime::readiness::Condition;
use kube::runtime::watcher::{self, Event};
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, Cluster};
use crate::metrics::Counters;
use crate::state::State;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Translates every event and drops the object. Ends with the token.
pub async fn follow(
    cluster: Cluster,
    state: State,
    counters: Counters,
    synced: Condition,
    token: CancellationToken,
) {
    let config = watcher::Config::default().fields(&cluster.selector());
    let mut events = Box::pin(watcher::watcher(cluster.pods(), config));
    let mut pause = FIRST_PAUSE;
    loop {
        let event = tokio::select! {
            () = token.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            Some(Ok(event)) => {
                pause = FIRST_PAUSE;
                let listed = matches!(event, Event::InitDone);
                apply(event, &cluster, &state);
                if listed {
                    synced.set(true);
                    // what kubelet listed before the pods were known is understood now
                    state.doubt();
                }
            }
            Some(Err(error)) => {
                counters.api_errors.with_label_values(&["watch"]).inc();
                tracing::warn!(%error, "watch of pods interrupted");
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            None => return,
        }
    }
}

fn apply(event: Event<k8s_openapi::api::core::v1::Pod>, cluster: &Cluster, state: &State) {
    match event {
        Event::Init => state.claims(|claims| claims.begin_list()),
        Event::InitDone => state.claims(|claims| claims.end_list()),
        Event::Apply(object) | Event::InitApply(object) => {
            if let Some(seen) = cluster::pod(&object, cluster.keys()) {
                state.claims(|claims| claims.see(seen));
                mind(state);
            }
        }
        Event::Delete(object) => {
            if let Some(uid) = cluster::uid(&object) {
                tracing::debug!(%uid, "pod deleted");
                state.claims(|claims| claims.forget(&uid));
                mind(state);
            }
        }
    }
}

/// A pod that is over is still on kubelet's books.
fn mind(state: &State) {
    if state.claims(|claims| claims.departing()) {
        state.doubt();
    }
}
