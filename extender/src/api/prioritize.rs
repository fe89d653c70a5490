//! `prioritize`: how well each candidate suits the pod.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use kerf::k8s;
use kerf::placement::scores;

use super::ranking::ranks;
use super::wire::{Args, HostPriority};
use super::{json, read};
use crate::App;
use crate::metrics::Verb;

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
    let (ranked, unfit) = ranks(&app, &pod, &request, candidates.names());
    let scores = scores(ranked);
    if let Some((best, _)) = scores.first() {
        app.intend(&pod, &request, best);
    }
    app.metrics.answered(Verb::Prioritize, "ok");
    let unfit = unfit.into_iter().map(|host| HostPriority { host, score: 0 });
    let scores = scores.iter().map(|(host, score)| HostPriority { host, score: i64::from(*score) });
    json(&scores.chain(unfit).collect::<Vec<_>>())
}
