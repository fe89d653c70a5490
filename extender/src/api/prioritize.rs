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
use crate::planning::{Place, TooMuch};

pub(super) async fn handle(State(app): State<Arc<App>>, body: Body) -> Response {
    let _timer = app.metrics.timer(Verb::Prioritize);
    // the answer is a bare list: there is no place for an error, and the scheduler goes on without scores
    let failed = |error| {
        app.failed(Verb::Prioritize, error);
        json(&Vec::<HostPriority<'_>>::new())
    };
    let body = match read(&app, body).await {
        Ok(body) => body,
        Err(error) => return failed(error),
    };
    let own = app.clone();
    let evaluated = app.planning.run_here_or_there(body.len(), move |place| evaluate(&own, &body, place)).await;
    evaluated.and_then(|answer| answer).unwrap_or_else(failed)
}

fn evaluate(app: &App, body: &[u8], place: Place) -> Result<Result<Response, String>, TooMuch> {
    let (pod, candidates) = match Args::parse(body) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Err(error)),
    };
    let Ok(Some(request)) = k8s::request(&pod, &app.keys) else {
        app.metrics.answered(Verb::Prioritize, "no-gpu-pod");
        return Ok(Ok(json(&candidates.names().map(|host| HostPriority { host, score: 0 }).collect::<Vec<_>>())));
    };
    place.allows(&request, app.policy, candidates.len())?;
    let request = Arc::new(request);
    let (ranked, unfit) = ranks(app, &pod, &request, candidates.names());
    let scores = scores(ranked);
    if let Some((best, _)) = scores.first() {
        app.intend(&pod, &request, best);
    }
    app.metrics.answered(Verb::Prioritize, "ok");
    let unfit = unfit.into_iter().map(|host| HostPriority { host, score: 0 });
    let scores = scores.iter().map(|(host, score)| HostPriority { host, score: i64::from(*score) });
    Ok(Ok(json(&scores.chain(unfit).collect::<Vec<_>>())))
}
