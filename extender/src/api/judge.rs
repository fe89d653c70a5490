//! Whether each candidate can take the pod, and the short wait for news that is on its way.

use std::sync::Arc;

use kerf::placement::Planner;
use kerf::request::PodRequest;
use kerf::unfit::Unfit;
use tokio::time::{Instant, timeout_at};

use super::prepare::{Call, CallError};
use super::wire::Candidates;
use crate::app::App;
use crate::decisions::Refusals;
use crate::freed::Freed;
use crate::planning::{Place, TooMuch};
use crate::refused::LINGER;

/// Answers a call, unless that is too much planning for the place; `None` to wait for news, until the given time at
/// most.
type Evaluate<T> = fn(&Call, Place, Option<Instant>) -> Result<Option<T>, TooMuch>;

/// Evaluates a call, and again with each change as long as it waits for news. `evaluate` gets the end of that wait.
pub(super) async fn lingering<T: Send + 'static>(call: &Arc<Call>, evaluate: Evaluate<T>) -> Result<T, CallError> {
    let mut changes = call.app.cluster.changes();
    let mut until = None;
    loop {
        changes.mark_unchanged();
        if let Some(answer) = call.evaluated(move |call, place| evaluate(call, place, until)).await? {
            return Ok(answer);
        }
        let end = *until.get_or_insert_with(|| Instant::now() + LINGER);
        // with or without a change: after the end it has to answer
        let _told = timeout_at(end, changes.changed()).await;
    }
}

/// For each candidate, why it does not fit; `None` where it does. A pod that fits nowhere is remembered, so that the
/// scheduler tries it again when cards become free. Since the scheduler may have seen a change before us, a first
/// refusal waits for news on its way: no verdict before `until`.
pub(super) fn judge(
    app: &App,
    pod: &PodRequest,
    candidates: &Candidates<'_>,
    until: Option<Instant>,
) -> Option<Vec<Option<Unfit>>> {
    let look = || -> Vec<_> {
        let mut planner = Planner::default();
        let asking = app.cluster.asking(pod, app.policy);
        candidates.names().map(|node| asking.fit(&mut planner, node).err()).collect()
    };
    let remember = |seen| {
        let now = Instant::now();
        let lingers = until.map_or_else(|| app.refused.may_linger(&pod.uid, now), |until| now < until);
        if !lingers {
            app.refused.remember(pod, candidates.len(), seen, now);
        }
        !lingers
    };
    let found = verdicts(&app.cluster.freed, look, remember)?;
    if any_fits(&found) {
        app.refused.forget(&pod.uid);
    } else {
        app.cluster.expect_no_more(&pod.uid);
        if let Some(reason) = Refusals::count(found.iter().flatten()).main() {
            let scattered = reason.resolvable() && app.cluster.together_enough(&pod.request, candidates.names());
            app.refused.because(&pod.uid, reason, scattered);
        }
    }
    Some(found)
}

pub(super) fn fitting<'a>(
    candidates: &'a Candidates<'_>,
    verdicts: &'a [Option<Unfit>],
) -> impl Iterator<Item = &'a str> {
    candidates.names().zip(verdicts).filter(|(_, verdict)| verdict.is_none()).map(|(node, _)| node)
}

/// What `look` finds; `None` where no candidate fits and `remember` delays the refusal. `remember` gets the count of
/// freed marks from before the look.
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
    // what became free before the pod was remembered may already have been offered to the pods remembered earlier
    Some(if freed.count() == seen { found } else { look() })
}

fn any_fits(verdicts: &[Option<Unfit>]) -> bool {
    verdicts.iter().any(Option::is_none)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::freed::News;

    /// A node becomes free while the pod is judged, and is offered to all remembered pods before this one is
    /// remembered.
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
