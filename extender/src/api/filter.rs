//! `filter`: which candidates can take the pod.

use std::borrow::Cow;
use std::sync::Arc;

use axum::response::Response;
use kerf::request::GpuRequest;
use kerf::unfit::Unfit;
use tokio::time::Instant;

use super::judge::{fitting, judge, lingering};
use super::prepare::{Call, CallError, Early, Handler, json};
use super::ranking::best;
use super::wire::{Args, Candidates, FilterResult};
use crate::decisions::Refusals;
use crate::planning::{Place, TooMuch};
use crate::verb::{Outcome, Verb};

pub(super) struct Filter;

impl Handler for Filter {
    const VERB: Verb = Verb::Filter;
    type Args<'a> = Candidates<'a>;

    /// Also for `predicates`.
    fn early(early: Early<Candidates<'_>>) -> (Outcome, Response) {
        match early {
            Early::Failed(error) => {
                (Outcome::Error, json(&FilterResult { error: error.to_string(), ..FilterResult::default() }))
            }
            Early::NoGpu(candidates) => (Outcome::NoGpu, json(&candidates.keep(|_, _| true))),
            Early::Invalid(candidates, error) => {
                (Outcome::Invalid, json(&refuse_all(&candidates, &error.to_string())))
            }
        }
    }

    async fn answer(call: Arc<Call>) -> Result<Response, CallError> {
        call.app.handed_over().await;
        lingering(&call, evaluate).await
    }
}

fn evaluate(call: &Call, place: Place, until: Option<Instant>) -> Result<Option<Response>, TooMuch> {
    let app = &call.app;
    let asked = match call.asked::<Filter>(Args::parse) {
        Ok(asked) => asked,
        Err(answered) => return Ok(Some(*answered)),
    };
    let (pod, candidates) = (&asked.asking, &asked.args);
    place.allows(&pod.request, app.policy, candidates.len())?;
    // policies that weigh the whole cluster learn the demand from the watch, which may be behind the scheduler's
    let unseen = || asked.policy.surveys(&pod.request) && !app.cluster.is_pending(&pod.uid);
    if until.is_none_or(|until| Instant::now() < until) && unseen() {
        return Ok(None);
    }
    let Some(verdicts) = judge(app, pod, candidates, until) else { return Ok(None) };
    let fitting = || fitting(candidates, &verdicts);
    let count = fitting().count();
    let chosen = app.candidates.filter(|most| *most < count).map(|most| best(app, &asked, fitting(), most));
    let is_left = |node: &str| chosen.as_ref().is_none_or(|chosen| chosen.contains(node));
    let mut left = fitting().filter(|node| is_left(node));
    if let (Some(only), None) = (left.next(), left.next()) {
        // prioritize will not be called: the pod goes here
        app.intend(pod, only);
    }
    let refusals = Refusals::count(verdicts.iter().flatten());
    tracing::debug!(policy = asked.policy.as_str(), fitting = count, refused = %refusals, "filtered");
    app.metrics.unfit(&refusals);
    app.decisions.filtered(&pod.uid, count, refusals);
    app.metrics.answered(Verb::Filter, Outcome::Ok);
    Ok(Some(json(&answer(candidates, &verdicts, &pod.request, is_left, |_, why| why.resolvable()))))
}

/// The candidates that fit and are left to the scheduler, and reasons for those that do not fit. Other candidates that
/// fit are in neither list: the scheduler then neither uses them nor counts them as failed. `resolvable`: whether pods that
/// leave could make the candidate at this position fit.
pub(super) fn answer<'a>(
    candidates: &'a Candidates<'a>,
    verdicts: &[Option<Unfit>],
    request: &GpuRequest,
    is_left: impl Fn(&str) -> bool,
    resolvable: impl Fn(usize, Unfit) -> bool,
) -> FilterResult<'a> {
    let mut result = candidates.keep(|at, node| matches!(verdicts.get(at), Some(None)) && is_left(node));
    let refused = candidates.names().zip(verdicts).enumerate();
    for (at, node, why) in refused.filter_map(|(at, (node, why))| Some((at, node, (*why)?))) {
        let failed =
            if resolvable(at, why) { &mut result.failed_nodes } else { &mut result.failed_and_unresolvable_nodes };
        failed.insert(node, reason(why, request));
    }
    result
}

/// For a pod that breaks a rule of its request. The same reason for each candidate, so that the event has it once, and
/// unresolvable, so that nothing is evicted for it.
pub(super) fn refuse_all<'a>(candidates: &'a Candidates<'a>, reason: &'a str) -> FilterResult<'a> {
    let mut result = candidates.keep(|_, _| false);
    let failed = candidates.names().map(|node| (node, Cow::Borrowed(reason)));
    result.failed_and_unresolvable_nodes = failed.collect();
    result
}

/// Why a node does not fit; with the container where its request, and not the cluster's load, is the reason.
fn reason(unfit: Unfit, request: &GpuRequest) -> Cow<'static, str> {
    match (unfit, request.largest_share()) {
        (Unfit::CardTooSmall, Some(container)) => format!("container {:?}: {unfit}", container.name).into(),
        _ => unfit.reason().into(),
    }
}
