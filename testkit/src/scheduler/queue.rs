//! Pods that want a node: active, backing off, or waiting for something to happen.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::request;
use crate::api::object;

/// By priority, then by arrival.
type Rank = (Reverse<i64>, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active(Rank),
    Backoff(Instant),
    Unschedulable {
        since: Instant,
        retry: Instant,
    },
    /// Taken out by [`Queue::pop`] and not put back yet.
    InFlight,
}

#[derive(Debug)]
struct Item {
    pod: Arc<Value>,
    place: Place,
    failures: u32,
}

/// The number of pods in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Ready for an attempt.
    pub active: usize,
    /// Failed and ready again after a pause.
    pub backing_off: usize,
    /// Waiting for an event in the cluster.
    pub unschedulable: usize,
    /// Placed, and waiting for their group.
    pub permit: usize,
    /// Placed, with the bind call in flight.
    pub binding: usize,
    /// Pods bound so far.
    pub bound: u64,
    /// Attempts made so far.
    pub attempts: u64,
}

impl QueueState {
    /// Whether no attempt and no bind is due before something happens in the cluster.
    pub fn is_idle(&self) -> bool {
        self.active == 0 && self.backing_off == 0 && self.permit == 0 && self.binding == 0
    }
}

#[derive(Debug)]
pub(crate) struct Queue {
    items: HashMap<String, Item>,
    active: BTreeSet<(Rank, String)>,
    backoff: BTreeSet<(Instant, String)>,
    /// Unschedulable pods by the start of their wait.
    waiting: BTreeSet<(Instant, String)>,
    arrivals: u64,
    initial: Duration,
    max: Duration,
}

impl Queue {
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        Self {
            items: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            waiting: BTreeSet::new(),
            arrivals: 0,
            initial,
            max,
        }
    }

    /// Takes in a pod without a node, new or changed.
    pub(crate) fn apply(&mut self, pod: Arc<Value>, now: Instant) {
        let uid = object::uid(&pod).to_owned();
        let Some(item) = self.items.get_mut(&uid) else {
            self.items.insert(uid.clone(), Item { pod, place: Place::InFlight, failures: 0 });
            self.activate(&uid);
            return;
        };
        let changed = relevant(&item.pod) != relevant(&pod);
        item.pod = pod;
        if changed && matches!(item.place, Place::Unschedulable { .. }) {
            self.wake(&uid, now);
        }
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        self.unplace(uid);
        self.items.remove(uid);
    }

    pub(crate) fn uids(&self) -> Vec<String> {
        self.items.keys().cloned().collect()
    }

    /// The pod as it was last seen, for writing its status.
    pub(crate) fn pod(&self, uid: &str) -> Option<Arc<Value>> {
        Some(self.items.get(uid)?.pod.clone())
    }

    /// The next pod to try.
    pub(crate) fn pop(&mut self) -> Option<Arc<Value>> {
        let (_, uid) = self.active.pop_first()?;
        let item = self.items.get_mut(&uid)?;
        item.place = Place::InFlight;
        Some(item.pod.clone())
    }

    /// The attempt failed for now: try again after the pod's backoff.
    pub(crate) fn back_off(&mut self, uid: &str, now: Instant) {
        let retry = self.fail(uid, now);
        self.place_backoff(uid, retry);
    }

    /// No node fits: try again when something happens, but not before the pod's backoff is over.
    pub(crate) fn wait(&mut self, uid: &str, now: Instant) {
        let retry = self.fail(uid, now);
        if let Some(item) = self.items.get_mut(uid) {
            item.place = Place::Unschedulable { since: now, retry };
            self.waiting.insert((now, uid.to_owned()));
        }
    }

    /// Something happened in the cluster: every waiting pod may fit now.
    pub(crate) fn wake_all(&mut self, now: Instant) {
        self.flush(Duration::ZERO, now);
    }

    /// Wakes pods that have waited for at least this time.
    pub(crate) fn flush(&mut self, after: Duration, now: Instant) {
        while let Some((since, uid)) = self.waiting.first().cloned() {
            if now < since + after {
                return;
            }
            self.wake(&uid, now);
        }
    }

    /// Moves pods whose backoff is over to the active ones.
    pub(crate) fn mature(&mut self, now: Instant) {
        while let Some((ready, uid)) = self.backoff.first().cloned() {
            if ready > now {
                return;
            }
            self.activate(&uid);
        }
    }

    /// When the next backoff ends.
    pub(crate) fn next_ready(&self) -> Option<Instant> {
        self.backoff.first().map(|(ready, _)| *ready)
    }

    /// When the longest waiting pod is due for a flush.
    pub(crate) fn next_flush(&self, after: Duration) -> Option<Instant> {
        self.waiting.first().map(|(since, _)| *since + after)
    }

    pub(crate) fn state(&self) -> QueueState {
        QueueState {
            active: self.active.len(),
            backing_off: self.backoff.len(),
            unschedulable: self.waiting.len(),
            ..QueueState::default()
        }
    }

    fn wake(&mut self, uid: &str, now: Instant) {
        let Some(Place::Unschedulable { retry, .. }) = self.items.get(uid).map(|item| item.place) else {
            return;
        };
        if retry > now {
            self.place_backoff(uid, retry);
        } else {
            self.activate(uid);
        }
    }

    fn fail(&mut self, uid: &str, now: Instant) -> Instant {
        let Some(item) = self.items.get_mut(uid) else {
            return now;
        };
        let factor = 1_u32 << item.failures.min(16);
        item.failures += 1;
        now + self.initial.saturating_mul(factor).min(self.max)
    }

    fn place_backoff(&mut self, uid: &str, ready: Instant) {
        self.unplace(uid);
        if let Some(item) = self.items.get_mut(uid) {
            item.place = Place::Backoff(ready);
            self.backoff.insert((ready, uid.to_owned()));
        }
    }

    fn activate(&mut self, uid: &str) {
        self.unplace(uid);
        self.arrivals += 1;
        if let Some(item) = self.items.get_mut(uid) {
            let rank = (Reverse(request::priority(&item.pod)), self.arrivals);
            item.place = Place::Active(rank);
            self.active.insert((rank, uid.to_owned()));
        }
    }

    fn unplace(&mut self, uid: &str) {
        match self.items.get(uid).map(|item| item.place) {
            Some(Place::Active(rank)) => {
                self.active.remove(&(rank, uid.to_owned()));
            }
            Some(Place::Backoff(ready)) => {
                self.backoff.remove(&(ready, uid.to_owned()));
            }
            Some(Place::Unschedulable { since, .. }) => {
                self.waiting.remove(&(since, uid.to_owned()));
            }
            _ => {}
        }
    }
}

/// The parts of a pod by which kube-scheduler decides whether to try it again.
fn relevant(pod: &Value) -> [Option<&Value>; 4] {
    [
        pod.get("spec"),
        object::at(pod, &["metadata", "labels"]),
        object::at(pod, &["metadata", "annotations"]),
        object::at(pod, &["metadata", "deletionTimestamp"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, priority: i64) -> Arc<Value> {
        Arc::new(json!({ "metadata": { "uid": uid }, "spec": { "priority": priority } }))
    }

    fn next(queue: &mut Queue) -> Option<String> {
        queue.pop().map(|pod| object::uid(&pod).to_owned())
    }

    #[test]
    fn pods_come_by_priority_then_arrival_and_back_off_longer_each_time() {
        let mut now = Instant::now();
        let mut queue = Queue::new(Duration::from_secs(1), Duration::from_secs(3));
        for (uid, priority) in [("a", 0), ("b", 0), ("c", 5)] {
            queue.apply(pod(uid, priority), now);
        }
        assert_eq!(next(&mut queue).as_deref(), Some("c"));
        assert_eq!(next(&mut queue).as_deref(), Some("a"));
        for wait in [1, 2, 3, 3] {
            queue.back_off("a", now);
            let ready = queue.next_ready().expect("backing off");
            assert_eq!(ready - now, Duration::from_secs(wait));
            now += Duration::from_secs(wait);
            queue.mature(now);
            assert_eq!(queue.next_ready(), None);
        }
    }

    #[test]
    fn waiting_pods_wake_on_events_but_not_before_their_backoff() {
        let mut now = Instant::now();
        let mut queue = Queue::new(Duration::from_secs(1), Duration::from_secs(3));
        queue.apply(pod("a", 0), now);
        queue.pop();
        queue.wait("a", now);
        assert_eq!(queue.state().unschedulable, 1);
        queue.wake_all(now);
        assert_eq!((queue.state().backing_off, queue.state().active), (1, 0));
        now += Duration::from_secs(1);
        queue.mature(now);
        assert_eq!(next(&mut queue).as_deref(), Some("a"));
        queue.wait("a", now);
        now += Duration::from_secs(5);
        queue.apply(
            Arc::new(json!({ "metadata": { "uid": "a", "labels": { "x": "y" } }, "spec": { "priority": 0 } })),
            now,
        );
        assert_eq!(queue.state().active, 1);
    }
}
