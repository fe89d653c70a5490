//! Whether each candidate can take the pod, and the wait for news that are on their way.

use std::sync::Arc;

use kerf::placement::Planner;
use kerf::request::pod::PodRequest;
use kerf::unfit::Unfit;
use tokio::time::{Instant, timeout_at};

use super::prepare::{Call, CallError};
use super::wire::Candidates;
use crate::app::App;
use crate::freed::Freed;
use crate::planning::{Place, TooMuch};
use crate::refused::LINGER;

/// Answers a call where it may be looked at so much; `None` while it lingers, for which the time is over then.
type Evaluate<T> = fn(&Call, Place, Option<Instant>) -> Result<Option<T>, TooMuch>;

/// Evaluates a call, again when there is news for as long as it lingers: while there is no answer. `evaluate` is told
/// until when it may.
pub(super) async fn lingering<T: Send + 'static>(call: &Arc<Call>, evaluate: Evaluate<T>) -> Result<T, CallError> {
    let mut changes = call.app.cluster.changes();
    let mut until = None;
    loop {
        changes.mark_unchanged();
        let own = call.clone();
        let evaluate = move |place| evaluate(&own, place, until);
        if let Some(answer) = call.app.planning.run_here_or_there(call.body.len(), evaluate).await? {
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
            app.refused.remember(pod, seen, now);
        }
        !lingers
    };
    let found = verdicts(app.cluster.freed(), look, remember)?;
    if any_fits(&found) {
        app.refused.forget(&pod.uid);
    } else {
        app.cluster.expect_no_more(&pod.uid);
    }
    Some(found)
}

/// The candidates that fit.
pub(super) fn fitting<'a>(
    candidates: &'a Candidates<'_>,
    verdicts: &'a [Option<Unfit>],
) -> impl Iterator<Item = &'a str> {
    candidates.names().zip(verdicts).filter(|(_, verdict)| verdict.is_none()).map(|(node, _)| node)
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
