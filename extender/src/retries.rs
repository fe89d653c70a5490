//! The write that makes kube-scheduler try refused pods again ([`crate::binder::Binder::wake`]), where one of them
//! would fit now: because GPUs became free, or on nodes that it did not ask about.

use std::sync::Arc;
use std::time::Duration;

use kerf::placement::Planner;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::binder::WriteOutcome;
use crate::refused::Refusal;

/// The most pairs of pod and node per round: more would cost more than trying all pods in vain.
pub(crate) const LOOKS: usize = 50_000;
const ROUND: Duration = Duration::from_millis(500);
/// The least time between two writes for each pod that is tried again, so that this is a part of the scheduler's time.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest such time.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Runs until the token is cancelled.
pub(crate) async fn run(app: Arc<App>, token: CancellationToken) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // the freed number that the scheduler has yet to be told, and when it was told last
    let (mut untold, mut last): (Option<u64>, Option<Instant>) = (None, None);
    let work = async {
        loop {
            rounds.tick().await;
            app.cluster.expire_expected(app.clock.now());
            app.refused.clear_up(Instant::now(), |uid| app.cluster.is_pending(uid));
            let own = app.clone();
            // thousands of pods and nodes may have to be checked
            untold = tokio::task::spawn_blocking(move || helped(&own)).await.ok().flatten().or(untold);
            let pause = PAUSE.saturating_mul(app.refused.count().try_into().unwrap_or(u32::MAX)).min(LONGEST_PAUSE);
            let Some(freed) = untold.filter(|_| last.is_none_or(|last| last.elapsed() >= pause)) else { continue };
            last = Some(Instant::now());
            match app.binder.wake(&app.keys.domain, app.clock.nanos()).await {
                WriteOutcome::Written => {
                    app.refused.told(freed);
                    app.metrics.retries.inc();
                    tracing::info!("GPUs are free for pods that wait; kube-scheduler is told");
                    untold = None;
                }
                WriteOutcome::Refused(error) | WriteOutcome::Unknown(error) => {
                    tracing::warn!(error, "kube-scheduler cannot be told to try waiting pods again");
                }
            }
        }
    };
    token.run_until_cancelled(work).await;
}

/// Whether what became free helps a pod that was refused before and not tried since, or one that was refused by a part of
/// the nodes fits on another; returns the number up to which freed nodes were checked.
fn helped(app: &App) -> Option<u64> {
    let (mut planner, mut looks) = (Planner::default(), LOOKS);
    let freed = app.cluster.freed.due();
    if let Some(latest) = freed.iter().map(|(_, number)| *number).max() {
        for refusal in app.refused.before(latest) {
            // only pods that the watch has shown: any client may make up others
            if !app.cluster.is_pending(&refusal.pod.uid) {
                continue;
            }
            let asking = app.cluster.asking(&refusal.pod, app.policy);
            for (node, _) in freed.iter().filter(|(_, number)| refusal.seen < *number) {
                looks = looks.saturating_sub(1);
                if looks == 0 || planner.exhausted() || asking.fit(&mut planner, node.as_str()).is_ok() {
                    return Some(latest);
                }
            }
        }
    }
    let fits_elsewhere = |refusal: Refusal| {
        let Some(waiting) = app.cluster.waiting(&refusal.pod.uid) else { return false };
        let asking = app.cluster.asking(&waiting.pod, app.policy);
        asking.fits_anywhere(&mut planner, &waiting.tolerations, &mut looks)
    };
    app.refused.elsewhere(Instant::now()).into_iter().any(fits_elsewhere).then_some(0)
}
