//! Pods that filter has left no node, and the write that has kube-scheduler try them again.
//!
//! kube-scheduler tries a pod again that an extender has refused when an object of the API server changes, else after five
//! minutes. Cards become free without that: a reservation ends whose binding was not written, an exchange of records is
//! given up, the time of an expected pod has passed. And what does change may reach the scheduler before it reaches us,
//! so that it asks too early. So whoever was refused and would fit now is told, by a change of an object that is there
//! for nothing else (`retries`).

use std::time::Duration;

use kerf::ids::PodUid;
use kerf::request::pod::PodRequest;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

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
pub(crate) struct Refusal {
    pub pod: PodRequest,
    /// What became free up to here was looked at ([`crate::freed::Freed::count`]).
    pub seen: u64,
    at: Instant,
}

impl Refused {
    /// A pod was refused everywhere, by someone who began to look when so much had become free.
    pub fn remember(&self, pod: &PodRequest, seen: u64, now: Instant) {
        let (uid, refusal) = (&pod.uid, Refusal { pod: pod.clone(), seen, at: now });
        let mut state = self.state.lock();
        if state.pods.len() < MAX || state.pods.contains_key(uid) {
            state.pods.insert(uid.clone(), refusal);
        }
    }

    /// It was left a node, is bound or gone.
    pub fn forget(&self, uid: &PodUid) {
        self.state.lock().pods.remove(uid);
    }

    /// Whether a refusal of this pod may wait for news now: its first in a while, and of few.
    pub fn may_linger(&self, uid: &PodUid, now: Instant) -> bool {
        let mut state = self.state.lock();
        let again = state.pods.get(uid).is_some_and(|refusal| now < refusal.at + RECENT);
        let often = state.lingered.is_some_and(|last| now < last + LINGER_EVERY);
        if !again && !often {
            state.lingered = Some(now);
        }
        !again && !often
    }

    /// All that were refused before something of this number became free.
    pub fn before(&self, freed: u64) -> Vec<Refusal> {
        self.state.lock().pods.values().filter(|refusal| refusal.seen < freed).cloned().collect()
    }

    /// All are tried again: what became free up to here is no news.
    pub fn told(&self, freed: u64) {
        for refusal in self.state.lock().pods.values_mut() {
            refusal.seen = refusal.seen.max(freed);
        }
    }

    /// Drops what nobody waits for any more.
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
