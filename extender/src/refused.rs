//! Pods that filter has left no node, and the write that has kube-scheduler try them again.
//!
//! kube-scheduler tries a pod again that an extender has refused when an object of the API server changes, else after five
//! minutes. Cards become free without that: a reservation ends whose binding was not written, an exchange of records is
//! given up, the time of an expected pod has passed. And what does change may reach the scheduler before it reaches us,
//! so that it asks too early. So whoever was refused and would fit now is told, by a change of an object that is there
//! for nothing else ([`crate::binder::Binder::wake`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kerf::ids::PodUid;
use kerf::placement::Planner;
use kerf::request::GpuRequest;
use rustc_hash::FxHashMap;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::binder::Outcome;

/// How long a first refusal may wait for news that are on their way. The scheduler serves one pod after the other.
pub(crate) const LINGER: Duration = Duration::from_millis(50);
/// Of the scheduler's time no more than a tenth is spent so.
const LINGER_EVERY: Duration = Duration::from_millis(500);
/// A pod that was refused not longer ago than this is being tried again and again: it need not linger.
const RECENT: Duration = Duration::from_secs(10);
/// After this time the scheduler has tried a pod again by itself.
const FORGOTTEN: Duration = Duration::from_secs(330);
/// How long a pod may be unknown to the watch.
const STRANGE: Duration = Duration::from_secs(10);
/// More pods than anybody waits for: a bound on memory.
const MAX: usize = 16_384;
/// More looks than this in one round cost more than trying all pods in vain.
const LOOKS: usize = 50_000;
const ROUND: Duration = Duration::from_millis(500);
/// The least time between two writes.
const PAUSE: Duration = Duration::from_secs(2);

/// The pods that were refused everywhere when they were last asked about.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pods: FxHashMap<PodUid, Refusal>,
    lingered: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Refusal {
    request: Arc<GpuRequest>,
    /// What became free up to here was looked at ([`crate::freed::Freed::count`]).
    seen: u64,
    at: Instant,
}

impl Refused {
    /// A pod was refused everywhere, by someone who began to look when so much had become free.
    pub fn remember(&self, uid: &PodUid, request: &Arc<GpuRequest>, seen: u64, now: Instant) {
        let refusal = Refusal { request: request.clone(), seen, at: now };
        let mut state = self.lock();
        if state.pods.len() < MAX || state.pods.contains_key(uid) {
            state.pods.insert(uid.clone(), refusal);
        }
    }

    /// It was left a node, is bound or gone.
    pub fn forget(&self, uid: &PodUid) {
        self.lock().pods.remove(uid);
    }

    /// Whether a refusal of this pod may wait for news now: its first in a while, and of few.
    pub fn may_linger(&self, uid: &PodUid, now: Instant) -> bool {
        let mut state = self.lock();
        let again = state.pods.get(uid).is_some_and(|refusal| now < refusal.at + RECENT);
        let often = state.lingered.is_some_and(|last| now < last + LINGER_EVERY);
        if !again && !often {
            state.lingered = Some(now);
        }
        !again && !often
    }

    /// All that were refused before something of this number became free.
    fn before(&self, freed: u64) -> Vec<(PodUid, Refusal)> {
        let older = |refusal: &Refusal| refusal.seen < freed;
        let state = self.lock();
        state.pods.iter().filter(|(_, refusal)| older(refusal)).map(|(uid, r)| (uid.clone(), r.clone())).collect()
    }

    /// All are tried again: what became free up to here is no news.
    fn told(&self, freed: u64) {
        for refusal in self.lock().pods.values_mut() {
            refusal.seen = refusal.seen.max(freed);
        }
    }

    /// Drops what nobody waits for any more.
    fn clear_up(&self, now: Instant, is_known: impl Fn(&PodUid) -> bool) {
        self.lock().pods.retain(|uid, refusal| {
            let age = now.saturating_duration_since(refusal.at);
            age < STRANGE || age < FORGOTTEN && is_known(uid)
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the scheduler try again whom it should, until the token is cancelled.
pub(crate) async fn run(app: Arc<App>, token: CancellationToken) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // what is to be told up to, and when the scheduler was told last
    let (mut untold, mut last): (Option<u64>, Option<Instant>) = (None, None);
    let work = async {
        loop {
            rounds.tick().await;
            app.cluster.expire_expected(app.clock.now());
            app.refused.clear_up(Instant::now(), |uid| app.cluster.pending_request(uid).is_some());
            let own = app.clone();
            // thousands of pods and nodes may have to be looked at
            untold = tokio::task::spawn_blocking(move || helped(&own)).await.ok().flatten().or(untold);
            let Some(freed) = untold.filter(|_| last.is_none_or(|last| last.elapsed() >= PAUSE)) else { continue };
            last = Some(Instant::now());
            match app.binder.wake(&app.keys.domain, app.clock.nanos()).await {
                Outcome::Written => {
                    app.refused.told(freed);
                    app.metrics.retries.inc();
                    tracing::info!("GPUs became free for pods that wait; kube-scheduler is told");
                    untold = None;
                }
                Outcome::Refused(error) | Outcome::Unknown(error) => {
                    tracing::warn!(error, "kube-scheduler cannot be told to try waiting pods again");
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = token.cancelled() => {}
    }
}

/// Whether what became free helps a pod that was refused before and has not been asked about since: the number up to which
/// it was looked at.
fn helped(app: &App) -> Option<u64> {
    let freed = app.cluster.freed().due();
    let latest = freed.iter().map(|(_, number)| *number).max()?;
    let waiting = app.refused.before(latest);
    // the watch vouches for a pod; a call of who knows whom does not
    let waiting = waiting.iter().filter(|(uid, _)| app.cluster.pending_request(uid).is_some());
    let mut planner = Planner::default();
    let mut looks = 0;
    for (uid, refusal) in waiting {
        let asking = app.cluster.asking(uid, &refusal.request, app.policy);
        for (node, _) in freed.iter().filter(|(_, number)| refusal.seen < *number) {
            looks += 1;
            if looks > LOOKS || planner.exhausted() || asking.fit(&mut planner, node.as_str()).is_ok() {
                return Some(latest);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use kerf::request::{ContainerKind, RawAnnotations, RawContainer};

    fn request() -> Arc<GpuRequest> {
        let raw =
            RawContainer { name: "c", kind: ContainerKind::App, core: Some("10"), memory: Some("1"), counted: &[] };
        Arc::new(GpuRequest::parse([raw], RawAnnotations::default()).unwrap().unwrap())
    }

    #[test]
    fn a_refusal_is_news_until_it_is_told_or_asked_again() {
        let (refused, now) = (Refused::default(), Instant::now());
        let uid = PodUid::from("a");
        refused.remember(&uid, &request(), 3, now);
        assert_eq!(refused.before(3).len(), 0);
        assert_eq!(refused.before(4).len(), 1);
        refused.told(4);
        assert_eq!(refused.before(4).len(), 0);
        assert_eq!(refused.before(5).len(), 1);
        refused.remember(&uid, &request(), 5, now);
        assert_eq!(refused.before(5).len(), 0);
        refused.forget(&uid);
        assert_eq!(refused.before(9).len(), 0);
    }

    #[test]
    fn pods_that_the_watch_never_shows_leave_nothing_behind() {
        let (refused, now) = (Refused::default(), Instant::now());
        for number in 0..2 * MAX {
            refused.remember(&PodUid::from(number.to_string()), &request(), 0, now);
        }
        assert_eq!(refused.before(1).len(), MAX);
        refused.clear_up(now + STRANGE, |uid| uid.as_str() == "7");
        assert_eq!(refused.before(1).len(), 1);
        refused.clear_up(now + FORGOTTEN, |_| true);
        assert_eq!(refused.before(1).len(), 0);
    }

    #[test]
    fn few_refusals_linger_and_none_twice_in_a_row() {
        let (refused, now) = (Refused::default(), Instant::now());
        assert!(refused.may_linger(&"a".into(), now));
        assert!(!refused.may_linger(&"b".into(), now));
        let later = now + LINGER_EVERY;
        refused.remember(&"a".into(), &request(), 0, later);
        assert!(!refused.may_linger(&"a".into(), later));
        assert!(refused.may_linger(&"b".into(), later));
        assert!(refused.may_linger(&"a".into(), later + RECENT));
    }
}
