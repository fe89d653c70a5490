//! `prioritize`: how well each candidate suits the pod.

use std::sync::Arc;

use axum::response::Response;
use kerf::k8s;
use kerf::placement::scores;

use super::prepare::{Call, CallError, Early, Handler, json};
use super::ranking::ranks;
use super::wire::{Args, Candidates, HostPriority};
use crate::planning::{Place, TooMuch};
use crate::verb::{Outcome, Verb};

/// How many of the best nodes the log has.
const NAMED: usize = 3;

pub(super) struct Prioritize;

impl Handler for Prioritize {
    const VERB: Verb = Verb::Prioritize;
    type Args<'a> = Candidates<'a>;

    fn early(early: Early<Candidates<'_>>) -> (Outcome, Response) {
        match early {
            // the answer is a bare list; the scheduler logs the error, and goes on without scores
            Early::Failed(error) => (Outcome::Error, error.answer()),
            // filter has said what is wrong with the pod
            Early::NoGpu(candidates) | Early::Invalid(candidates, _) => {
                (Outcome::NoGpu, json(&candidates.names().map(unsuited).collect::<Vec<_>>()))
            }
        }
    }

    async fn answer(call: Arc<Call>) -> Result<Response, CallError> {
        Ok(call.evaluated(evaluate).await?)
    }
}

fn evaluate(call: &Call, place: Place) -> Result<Response, TooMuch> {
    let app = &call.app;
    let asked = match call.asked::<Prioritize>(Args::parse) {
        Ok(asked) => asked,
        Err(answered) => return Ok(*answered),
    };
    place.allows(&asked.asking.request, app.policy, asked.args.len())?;
    let (mut ranked, unfit) = ranks(app, &asked.asking, k8s::requested(&asked.pod), asked.args.names());
    let scores = scores(&mut ranked);
    if let Some((best, _)) = scores.first() {
        app.intend(&asked.asking, best);
    }
    let best = ranked.get(..NAMED).unwrap_or(&ranked);
    tracing::debug!(policy = asked.policy.as_str(), fitting = scores.len(), ?best, "prioritized");
    app.decisions.scored(&asked.asking.uid, &scores);
    app.metrics.answered(Verb::Prioritize, Outcome::Ok);
    let scores = scores.iter().map(|(host, score)| HostPriority { host, score: i64::from(*score) });
    Ok(json(&scores.chain(unfit.into_iter().map(unsuited)).collect::<Vec<_>>()))
}

fn unsuited(host: &str) -> HostPriority<'_> {
    HostPriority { host, score: 0 }
}
