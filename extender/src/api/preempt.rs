//! `preempt`: whether evicting the scheduler's victims frees what the pod needs, and who has to go instead.
//!
//! The scheduler knows a node's totals. Of what its victims free no one card may be free enough, and then they would go for
//! nothing. So for each of its candidates the cards are looked at: a candidate that evictions cannot help is dropped; where
//! the cards suffice already, the victims are for something else and stay as they are; otherwise those pods go that free
//! a card, and of the scheduler's own those that hold no card. Up to Kubernetes 1.37 the scheduler asks only where its own
//! count finds somebody to evict, so not where a node's total suffices and no one card does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use kerf::ids::PodUid;
use kerf::k8s;
use kerf::placement::{Planner, eviction};

use super::wire::{MetaPod, MetaVictims, PreemptArgs, PreemptResult};
use super::{json, read, uid};
use crate::App;
use crate::metrics::Verb;

pub(super) async fn handle(State(app): State<Arc<App>>, body: Body) -> Response {
    let _timer = app.metrics.timer(Verb::Preempt);
    let parsed = read(&app, body).await;
    let parsed = parsed.as_ref().map_err(String::clone).and_then(|body| PreemptArgs::parse(body));
    let (pod, candidates) = match parsed {
        Ok(parsed) => parsed,
        // the answer has no place for an error; without a candidate nothing is evicted, and the pod is tried again
        Err(error) => {
            app.failed(Verb::Preempt, error);
            return json(&PreemptResult::default());
        }
    };
    let request = match k8s::request(&pod, &app.keys) {
        Ok(Some(request)) => request,
        Ok(None) => {
            app.metrics.answered(Verb::Preempt, "no-gpu-pod");
            return json(&PreemptResult { node_name_to_meta_victims: candidates });
        }
        Err(error) => {
            app.metrics.answered(Verb::Preempt, "invalid");
            app.metrics.invalid.with_label_values(&[error.code()]).inc();
            return json(&PreemptResult::default());
        }
    };
    let policy = request.policy.unwrap_or(app.policy);
    let mut planner = Planner::default();
    let uid = uid(&pod);
    let asking = app.cluster.asking(&uid, &request, app.policy);
    let mut left = BTreeMap::new();
    for (node, victims) in candidates {
        let chosen: BTreeSet<PodUid> = victims.pods.iter().map(|pod| pod.uid.as_str().into()).collect();
        let Some(ledger) = asking.ledger(&node) else { continue };
        let Some(needed) = eviction::victims(&mut planner, &ledger, &request, policy, &chosen) else { continue };
        let pods = if needed.is_empty() {
            victims.pods
        } else {
            let others = chosen.iter().filter(|uid| !ledger.commitments().contains_key(*uid));
            needed.iter().chain(others).map(|uid| MetaPod { uid: uid.as_str().to_owned() }).collect()
        };
        // the scheduler takes a node without victims for an error
        if !pods.is_empty() {
            left.insert(node, MetaVictims { pods, ..victims });
        }
    }
    app.metrics.answered(Verb::Preempt, if left.is_empty() { "nowhere" } else { "ok" });
    json(&PreemptResult { node_name_to_meta_victims: left })
}
