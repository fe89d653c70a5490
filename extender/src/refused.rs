//! Pods for which filter found no node, and when kube-scheduler is to try them again.
//!
//! kube-scheduler tries a pod that an extender refused again when an object of the API server changes, otherwise after
//! five minutes. Cards also become free without such a change: a reservation whose binding was not written ends, an
//! exchange of records is given up, the time of an expected pod has passed. And a change may reach the scheduler before
//! it reaches us, so that it asks too early. So when a refused pod would fit now, an object that exists only for this
//! is changed (`retries`).
//!
//! With `percentageOfNodesToScore` below 100, kube-scheduler also asks about a part of the nodes only, at its next try about
//! those that follow. A pod that none of them can take is tried again soon where another node can.

use std::time::Duration;

use kerf::ids::PodUid;
use kerf::request::PodRequest;
use kerf::unfit::Unfit;
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
/// kube-scheduler asks about no part of the nodes with fewer than this, unless these are all that it would take itself
/// (`minFeasibleNodesToFind` in its source).
const LEAST_PART: usize = 100;
/// After so many tries in a row evictions are as good as room elsewhere: the pod may not be allowed there.
const PATIENT_TRIES: u32 = 20;
/// How long after a refusal by a part of the nodes the others are looked at; after more tries in a row the square of their
/// number as often, since the scheduler may have reasons of its own against the other nodes.
const NEXT_PART: Duration = Duration::from_millis(20);
/// The longest such time.
const LAST_PART: Duration = Duration::from_secs(60);

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
    /// Refusals in a row by what may have been a part of the nodes.
    tries: u32,
    /// When to look at all nodes, after such a refusal.
    elsewhere: Option<Instant>,
    why: Option<Why>,
}

/// Why a pod fits nowhere.
#[derive(Clone, Copy, Debug)]
struct Why {
    reason: Unfit,
    /// Whether all nodes together had enough of what it asks for.
    scattered: bool,
}

impl Refused {
    /// A pod was refused by all nodes that the scheduler asked about, this many. `seen`: the freed count when that look
    /// began.
    pub fn remember(&self, pod: &PodRequest, nodes: usize, seen: u64, now: Instant) {
        let uid = &pod.uid;
        let mut state = self.state.lock();
        let before = state.pods.get(uid).map(|refusal| (refusal.tries, refusal.why));
        if state.pods.len() >= MAX && before.is_none() {
            return;
        }
        let tries = if nodes < LEAST_PART { 0 } else { before.map_or(0, |(tries, _)| tries).saturating_add(1) };
        let pause = NEXT_PART.saturating_mul(tries.saturating_mul(tries)).min(LAST_PART);
        let elsewhere = (tries > 0).then(|| now + pause);
        let why = before.and_then(|(_, why)| why);
        state.pods.insert(uid.clone(), Refusal { pod: pod.clone(), seen, at: now, tries, elsewhere, why });
    }

    /// Why the pod, if it is remembered, fits nowhere: the reason, and whether all nodes together had enough of what it
    /// asks for.
    pub fn because(&self, uid: &PodUid, reason: Unfit, scattered: bool) {
        if let Some(refusal) = self.state.lock().pods.get_mut(uid) {
            refusal.why = Some(Why { reason, scattered });
        }
    }

    /// What [`Refused::because`] was told of each pod that `is_known`.
    pub fn reasons(&self, is_known: impl Fn(&PodUid) -> bool) -> Vec<(Unfit, bool)> {
        let why = |(uid, refusal): (&PodUid, &Refusal)| Some((uid.clone(), refusal.why?));
        let all: Vec<(PodUid, Why)> = self.state.lock().pods.iter().filter_map(why).collect();
        let known = all.into_iter().filter(|(uid, _)| is_known(uid));
        known.map(|(_, why)| (why.reason, why.scattered)).collect()
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

    /// Refusals by a part of the nodes after which all are to be looked at now. Each is returned once.
    pub fn elsewhere(&self, now: Instant) -> Vec<Refusal> {
        let mut state = self.state.lock();
        let due = |refusal: &&mut Refusal| refusal.elsewhere.is_some_and(|due| due <= now);
        let taken = |refusal: &mut Refusal| {
            refusal.elsewhere = None;
            refusal.clone()
        };
        state.pods.values_mut().filter(due).map(taken).collect()
    }

    /// Whether the last look for this pod may have been at a part of the nodes, and it should wait for the others before
    /// any pod is evicted for it.
    pub fn may_fit_elsewhere(&self, uid: &PodUid) -> bool {
        self.state.lock().pods.get(uid).is_some_and(|refusal| (1..=PATIENT_TRIES).contains(&refusal.tries))
    }

    /// How many pods were refused.
    pub fn count(&self) -> usize {
        self.state.lock().pods.len()
    }

    /// The scheduler tries all pods again: what became free up to this number is not news any more, and nobody waits to
    /// be tried on other nodes.
    pub fn told(&self, freed: u64) {
        for refusal in self.state.lock().pods.values_mut() {
            refusal.seen = refusal.seen.max(freed);
            refusal.elsewhere = None;
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
        refused.remember(&pod("a"), 1, 3, now);
        assert_eq!(refused.before(3).len(), 0);
        assert_eq!(refused.before(4).len(), 1);
        refused.told(4);
        assert_eq!(refused.before(4).len(), 0);
        assert_eq!(refused.before(5).len(), 1);
        refused.remember(&pod("a"), 1, 5, now);
        assert_eq!(refused.before(5).len(), 0);
        refused.forget(&"a".into());
        assert_eq!(refused.before(9).len(), 0);
    }

    #[test]
    fn the_reason_of_the_last_refusal_counts_while_the_pod_is_known() {
        let (refused, now) = (Refused::default(), Instant::now());
        refused.because(&"a".into(), Unfit::Compute, true);
        assert_eq!(refused.reasons(|_| true), [], "it was not refused");
        refused.remember(&pod("a"), 1, 0, now);
        assert_eq!(refused.reasons(|_| true), []);
        refused.because(&"a".into(), Unfit::Compute, true);
        refused.because(&"a".into(), Unfit::Memory, false);
        assert_eq!(refused.reasons(|_| true), [(Unfit::Memory, false)]);
        assert_eq!(refused.reasons(|uid| uid.as_str() == "b"), []);
    }

    #[test]
    fn pods_that_the_watch_never_shows_leave_nothing_behind() {
        let (refused, now) = (Refused::default(), Instant::now());
        for number in 0..2 * MAX {
            refused.remember(&pod(&number.to_string()), 1, 0, now);
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
        refused.remember(&pod("a"), 1, 0, later);
        assert!(!refused.may_linger(&"a".into(), later));
        assert!(refused.may_linger(&"b".into(), later));
        assert!(refused.may_linger(&"a".into(), later + RECENT));
    }

    #[test]
    fn after_a_part_of_the_nodes_the_others_are_looked_at_ever_more_seldom() {
        let (refused, now) = (Refused::default(), Instant::now());
        let due = |at| refused.elsewhere(at).len();
        refused.remember(&pod("a"), LEAST_PART - 1, 0, now);
        assert_eq!((due(now + LAST_PART), refused.may_fit_elsewhere(&"a".into())), (0, false));
        refused.remember(&pod("a"), LEAST_PART, 0, now);
        assert!(refused.may_fit_elsewhere(&"a".into()));
        assert_eq!((due(now), due(now + NEXT_PART), due(now + NEXT_PART)), (0, 1, 0));
        refused.remember(&pod("a"), LEAST_PART, 0, now);
        assert_eq!((due(now + 3 * NEXT_PART), due(now + 4 * NEXT_PART)), (0, 1));
        for _ in 2..=PATIENT_TRIES {
            assert!(refused.may_fit_elsewhere(&"a".into()));
            refused.remember(&pod("a"), LEAST_PART, 0, now);
        }
        assert!(!refused.may_fit_elsewhere(&"a".into()));
        for _ in 0..100 {
            refused.remember(&pod("a"), LEAST_PART, 0, now);
        }
        assert_eq!((due(now + LAST_PART / 2), due(now + LAST_PART)), (0, 1));
        // it fits somewhere: the next refusal is the first again
        refused.forget(&"a".into());
        refused.remember(&pod("a"), LEAST_PART, 0, now);
        refused.told(0);
        assert_eq!(due(now + LAST_PART), 0);
    }
}
