//! `filter`: which of the candidates can take the pod.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;
use kerf::ids::PodUid;
use kerf::k8s;
use kerf::placement::Planner;
use kerf::request::GpuRequest;
use kerf::unfit::Unfit;
use tokio::time::{Instant, timeout_at};

use super::ranking::best;
use super::wire::{Args, Candidates, FilterResult};
use super::{json, read, uid};
use crate::App;
use crate::freed::Freed;
use crate::metrics::Verb;
use crate::planning::{Place, TooMuch};
use crate::refused::LINGER;

pub(super) async fn handle(State(app): State<Arc<App>>, body: Body) -> Response {
    let _timer = app.metrics.timer(Verb::Filter);
    let failed = |error| json(&FilterResult::failed(app.failed(Verb::Filter, error)));
    let body = match read(&app, body).await {
        Ok(body) => body,
        Err(error) => return failed(error),
    };
    lingering(&app, &body, evaluate).await.unwrap_or_else(failed)
}

fn evaluate(app: &App, body: &[u8], place: Place, until: Option<Instant>) -> Result<Option<Response>, TooMuch> {
    let (pod, request, candidates) = match Asked::parse(app, Verb::Filter, body) {
        Asked::Answered(response) => return Ok(Some(response)),
        Asked::Pod(pod, request, candidates) => (pod, request, candidates),
    };
    place.allows(&request, app.policy, candidates.len())?;
    // the policies that weigh the whole cluster know the demand by the watch, which may be behind the scheduler's
    let unseen = || request.policy.unwrap_or(app.policy).surveys(&request) && !app.cluster.is_pending(&uid(&pod));
    if until.is_none_or(|until| Instant::now() < until) && unseen() {
        return Ok(None);
    }
    let Some(verdicts) = judge(app, &uid(&pod), &request, &candidates, until) else { return Ok(None) };
    let fitting = || fitting(&candidates, &verdicts);
    let count = fitting().count();
    let chosen = app.candidates.filter(|most| *most < count).map(|most| best(app, &pod, &request, fitting(), most));
    let is_left = |node: &str| chosen.as_ref().is_none_or(|chosen| chosen.contains(node));
    let mut left = fitting().filter(|node| is_left(node));
    if let (Some(only), None) = (left.next(), left.next()) {
        // prioritize will not be called: this is where the pod goes
        app.intend(&pod, &request, only);
    }
    app.metrics.unfit(verdicts.iter().flatten());
    app.metrics.answered(Verb::Filter, "ok");
    Ok(Some(json(&answer(&candidates, &verdicts, &request, is_left))))
}

/// What a call of filter asks.
pub(super) enum Asked<'a> {
    /// Nothing that cards matter to.
    Answered(Response),
    /// Which of these candidates can take the pod.
    Pod(Box<Pod>, Arc<GpuRequest>, Candidates<'a>),
}

impl<'a> Asked<'a> {
    pub fn parse(app: &App, verb: Verb, body: &'a [u8]) -> Self {
        let (pod, candidates) = match Args::parse(body) {
            Ok(parsed) => parsed,
            Err(error) => return Self::Answered(json(&FilterResult::failed(app.failed(verb, error)))),
        };
        match k8s::request(&pod, &app.keys) {
            Ok(Some(request)) => Self::Pod(pod.into(), Arc::new(request), candidates),
            Ok(None) => {
                app.metrics.answered(verb, "no-gpu-pod");
                Self::Answered(json(&candidates.keep(|_, _| true)))
            }
            Err(error) => {
                app.metrics.answered(verb, "invalid");
                app.metrics.invalid.with_label_values(&[error.code()]).inc();
                Self::Answered(json(&refuse_all(&candidates, &error.to_string())))
            }
        }
    }
}

/// Answers a call where it may be looked at so much; `None` while it lingers, for which the time is over then.
type Evaluate<T> = fn(&App, &[u8], Place, Option<Instant>) -> Result<Option<T>, TooMuch>;

/// Evaluates a call, again when there is news for as long as it lingers: while there is no answer. `evaluate` is told
/// until when it may.
pub(super) async fn lingering<T: Send + 'static>(
    app: &Arc<App>,
    body: &Bytes,
    evaluate: Evaluate<T>,
) -> Result<T, String> {
    let mut changes = app.cluster.changes();
    let (bytes, mut until) = (body.len(), None);
    loop {
        changes.mark_unchanged();
        let (own, body) = (app.clone(), body.clone());
        let evaluate = move |place| evaluate(&own, &body, place, until);
        let evaluated = app.planning.run_here_or_there(bytes, evaluate).await?;
        if let Some(answer) = evaluated {
            return Ok(answer);
        }
        let end = *until.get_or_insert_with(|| Instant::now() + LINGER);
        // told or not: when the time is over it has to answer
        let _told = timeout_at(end, changes.changed()).await;
    }
}

/// For each candidate, why it does not fit; `None` where it does. Who fits nowhere is remembered, to be told when cards
/// become free; and since the scheduler may have heard of it before us, news that are on their way are waited for: there
/// is no verdict before, at most `until` then.
pub(super) fn judge(
    app: &App,
    uid: &PodUid,
    request: &Arc<GpuRequest>,
    candidates: &Candidates<'_>,
    until: Option<Instant>,
) -> Option<Vec<Option<Unfit>>> {
    let look = || -> Vec<_> {
        let mut planner = Planner::default();
        let asking = app.cluster.asking(uid, request, app.policy);
        candidates.names().map(|node| asking.fit(&mut planner, node).err()).collect()
    };
    let remember = |seen| {
        let now = Instant::now();
        let lingers = until.map_or_else(|| app.refused.may_linger(uid, now), |until| now < until);
        if !lingers {
            app.refused.remember(uid, request, seen, now);
        }
        !lingers
    };
    let found = verdicts(app.cluster.freed(), look, remember)?;
    if any_fits(&found) {
        app.refused.forget(uid);
    } else {
        app.cluster.expect_no_more(uid);
    }
    Some(found)
}

/// What a look finds; `None` where none fits and `remember` puts the refusal off. It is told how much had become free
/// before the look.
fn verdicts(
    freed: &Freed,
    look: impl Fn() -> Vec<Option<Unfit>>,
    remember: impl FnOnce(u64) -> bool,
) -> Option<Vec<Option<Unfit>>> {
    let seen = freed.count();
    let found = look();
    if any_fits(&found) {
        return Some(found);
    }
    if !remember(seen) {
        return None;
    }
    // what became free before it was remembered may have been offered to those who were remembered then
    Some(if freed.count() == seen { found } else { look() })
}

fn any_fits(verdicts: &[Option<Unfit>]) -> bool {
    verdicts.iter().any(Option::is_none)
}

/// The candidates that fit.
pub(super) fn fitting<'a>(
    candidates: &'a Candidates<'_>,
    verdicts: &'a [Option<Unfit>],
) -> impl Iterator<Item = &'a str> {
    candidates.names().zip(verdicts).filter(|(_, verdict)| verdict.is_none()).map(|(node, _)| node)
}

/// The candidates that fit and are left to the scheduler, and reasons for those that do not fit. The rest is in
/// neither list, which the scheduler takes for what it is: they could have the pod, and others are better.
pub(super) fn answer<'a>(
    candidates: &'a Candidates<'a>,
    verdicts: &[Option<Unfit>],
    request: &GpuRequest,
    is_left: impl Fn(&str) -> bool,
) -> FilterResult<'a> {
    let mut result = candidates.keep(|at, node| matches!(verdicts.get(at), Some(None)) && is_left(node));
    for (node, why) in candidates.names().zip(verdicts).filter_map(|(node, why)| Some((node, (*why)?))) {
        let failed =
            if why.resolvable() { &mut result.failed_nodes } else { &mut result.failed_and_unresolvable_nodes };
        failed.insert(node, reason(why, request));
    }
    result
}

/// No candidate can take a pod that breaks the contract. The same reason for each, so that the event says it
/// once, and unresolvable, so that nothing is evicted for it.
pub(super) fn refuse_all<'a>(candidates: &'a Candidates<'a>, reason: &'a str) -> FilterResult<'a> {
    let mut result = candidates.keep(|_, _| false);
    let failed = candidates.names().map(|node| (node, Cow::Borrowed(reason)));
    result.failed_and_unresolvable_nodes = failed.collect();
    result
}

/// Why a node does not fit. Names the container where its request, and not the cluster's load, is the reason.
fn reason(unfit: Unfit, request: &GpuRequest) -> Cow<'static, str> {
    match (unfit, request.largest_share()) {
        (Unfit::CardTooSmall, Some(container)) => format!("container {:?}: {unfit}", container.name).into(),
        _ => unfit.reason().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::freed::News;

    /// A node becomes free while the pod is looked at, and is offered to all that are remembered before this pod is.
    #[test]
    fn what_becomes_free_before_a_refusal_is_remembered_is_looked_at() {
        for becomes_free in [false, true] {
            let (freed, looks) = (Freed::default(), Cell::new(0));
            let look = || {
                looks.set(looks.get() + 1);
                if becomes_free && looks.get() == 1 {
                    freed.mark(&"n".into(), News::Silent);
                    assert_eq!(freed.due().len(), 1, "offered to those who are remembered by now");
                }
                vec![(looks.get() == 1).then_some(Unfit::Compute)]
            };
            let found = verdicts(&freed, look, |seen| seen == 0).unwrap();
            assert_eq!((any_fits(&found), looks.get()), (becomes_free, 1 + usize::from(becomes_free)));
        }
    }

    #[test]
    fn a_refusal_that_is_put_off_is_none() {
        assert!(verdicts(&Freed::default(), || vec![Some(Unfit::Compute)], |_| false).is_none());
        assert!(verdicts(&Freed::default(), || vec![None], |_| false).is_some());
    }
}
