//! Pods for which filter found no node, and when kube-scheduler is to try them again.
//!
//! kube-scheduler tries a pod that an extender refused again when an object of the API server changes, otherwise after
//! five minutes. Cards also become free without such a change: a reservation whose binding was not written ends, an
//! exchange of records is given up, the time of an expected pod has passed. And a change may reach the scheduler before
//! it reaches us, so that it asks too early. So when a refused pod would fit now, an object that exists only for this
//! is changed (`retries`).

use std::time::Duration;

use kerf::ids::PodUid;
use kerf::request::PodRequest;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

/// How long a first refusal may wait for news on its way. The scheduler serves one pod after the other.
pub(crate) const LINGER: Duration = Duration::from_millis(50);
/// The least time between two such waits, so that they take at most a tenth of the scheduler's time.
const LINGER_EVERY: Duration = Duration::from_millis(500);
/// A pod whose last refusal is more recent than this is being tried again and again: it does not wait.
const RECENT: Duration = Duration::from_secs(10);
/// After this time the scheduler has tried a pod again by itself.
const FORGOTTEN: Duration = Duration::from_secs(330);
/// How long a refused pod may be unknown to the watch before it is dropped.
const STRANGE: Duration = Duration::from_secs(10);
/// More pods than wait in any cluster: a bound on memory.
const MAX: usize = 16_384;

/// The pods that were refused everywhere in their last filter call.
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
pub(crate) struct Refusal {
    pub pod: PodRequest,
    /// What became free up to this number was considered ([`crate::freed::Freed::count`]).
    pub seen: u64,
    at: Instant,
}

impl Refused {
    /// A pod was refused everywhere. `seen`: the freed count when that look began.
    pub fn remember(&self, pod: &PodRequest, seen: u64, now: Instant) {
        let (uid, refusal) = (&pod.uid, Refusal { pod: pod.clone(), seen, at: now });
        let mut state = self.state.lock();
        if state.pods.len() < MAX || state.pods.contains_key(uid) {
            state.pods.insert(uid.clone(), refusal);
        }
    }

    /// The pod fits on a node, is bound or gone.
    pub fn forget(&self, uid: &PodUid) {
        self.state.lock().pods.remove(uid);
    }

    /// Whether a refusal of this pod may wait for news now: its first in a while, and not too soon after another wait.
    pub fn may_linger(&self, uid: &PodUid, now: Instant) -> bool {
        let mut state = self.state.lock();
        let again = state.pods.get(uid).is_some_and(|refusal| now < refusal.at + RECENT);
        let often = state.lingered.is_some_and(|last| now < last + LINGER_EVERY);
        if !again && !often {
            state.lingered = Some(now);
        }
        !again && !often
    }

    /// Refusals from before the mark with this number.
    pub fn before(&self, freed: u64) -> Vec<Refusal> {
        self.state.lock().pods.values().filter(|refusal| refusal.seen < freed).cloned().collect()
    }

    /// The scheduler tries all pods again: what became free up to this number is not news any more.
    pub fn told(&self, freed: u64) {
        for refusal in self.state.lock().pods.values_mut() {
            refusal.seen = refusal.seen.max(freed);
        }
    }

    /// Drops refusals that are outdated or whose pods are unknown.
    pub fn clear_up(&self, now: Instant, is_known: impl Fn(&PodUid) -> bool) {
        self.state.lock().pods.retain(|uid, refusal| {
            let age = now.saturating_duration_since(refusal.at);
            age < STRANGE || age < FORGOTTEN && is_known(uid)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kerf::ids::PodRef;
    use kerf::request::GpuRequest;

    fn pod(uid: &str) -> PodRequest {
        let request = GpuRequest::unreadable().into();
        PodRequest { uid: uid.into(), name: PodRef::new("default", uid), request }
    }

    #[test]
    fn a_refusal_is_news_until_it_is_told_or_asked_again() {
        let (refused, now) = (Refused::default(), Instant::now());
        refused.remember(&pod("a"), 3, now);
        assert_eq!(refused.before(3).len(), 0);
        assert_eq!(refused.before(4).len(), 1);
        refused.told(4);
        assert_eq!(refused.before(4).len(), 0);
        assert_eq!(refused.before(5).len(), 1);
        refused.remember(&pod("a"), 5, now);
        assert_eq!(refused.before(5).len(), 0);
        refused.forget(&"a".into());
        assert_eq!(refused.before(9).len(), 0);
    }

    #[test]
    fn pods_that_the_watch_never_shows_leave_nothing_behind() {
        let (refused, now) = (Refused::default(), Instant::now());
        for number in 0..2 * MAX {
            refused.remember(&pod(&number.to_string()), 0, now);
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
        refused.remember(&pod("a"), 0, later);
        assert!(!refused.may_linger(&"a".into(), later));
        assert!(refused.may_linger(&"b".into(), later));
        assert!(refused.may_linger(&"a".into(), later + RECENT));
    }
}
