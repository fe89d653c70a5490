//! `prioritize`: how well each candidate suits the pod.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use kerf::ids::PodUid;
use kerf::k8s;
use kerf::placement::scores;
use kerf::request::GpuRequest;

use super::wire::{Args, Candidates, HostPriority};
use super::{json, read};
use crate::cluster::NodeRank;
use crate::metrics::Verb;
use crate::{App, Footprint};

pub(super) async fn handle(State(app): State<Arc<App>>, body: Body) -> Response {
    let _timer = app.metrics.timer(Verb::Prioritize);
    let parsed = read(&app, body).await;
    let parsed = parsed.as_ref().map_err(String::clone).and_then(|body| Args::parse(body));
    let (pod, candidates) = match parsed {
        Ok(parsed) => parsed,
        // the answer is a bare list: there is no place for an error, and the scheduler goes on without scores
        Err(error) => {
            app.failed(Verb::Prioritize, error);
            return json(&Vec::<HostPriority<'_>>::new());
        }
    };
    let Ok(Some(request)) = k8s::request(&pod, &app.keys) else {
        app.metrics.answered(Verb::Prioritize, "no-gpu-pod");
        return json(&candidates.names().map(|host| HostPriority { host, score: 0 }).collect::<Vec<_>>());
    };
    let request = Arc::new(request);
    let uid = PodUid::from(pod.metadata.uid.as_deref().unwrap_or_default());
    let (ranked, unfit) = ranks(&app, &uid, &request, Footprint::of(&pod), &candidates);
    let scores = scores(ranked);
    if let Some((best, _)) = scores.first() {
        app.intend(&pod, &request, best);
    }
    app.metrics.answered(Verb::Prioritize, "ok");
    let unfit = unfit.into_iter().map(|host| HostPriority { host, score: 0 });
    let scores = scores.iter().map(|(host, score)| HostPriority { host, score: i64::from(*score) });
    json(&scores.chain(unfit).collect::<Vec<_>>())
}

/// The candidates that fit with their ranks, as if every pod in flight were placed already; and the others.
pub(super) fn ranks<'a>(
    app: &App,
    uid: &PodUid,
    request: &GpuRequest,
    footprint: Footprint,
    candidates: &'a Candidates<'a>,
) -> (Vec<(NodeRank, &'a str)>, Vec<&'a str>) {
    // the scheduler's watch may be ahead of ours
    app.cluster.apply_footprint(uid, None, footprint, Some(request));
    let ahead = app.intents.by_node(uid, app.clock.now());
    let (mut ranked, mut unfit) = (Vec::new(), Vec::new());
    for (node, rank) in app.cluster.ranks(candidates.names(), request, footprint, app.policy, &ahead) {
        match rank {
            Some(rank) => ranked.push((rank, node)),
            None => unfit.push(node),
        }
    }
    (ranked, unfit)
}
