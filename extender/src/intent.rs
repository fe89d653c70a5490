//! Pods in flight: the scheduler asks about the next pod before it binds the last one.
//!
//! An intent is the node where a pod will most likely be bound: the one with its top score, or the only one that filter
//! left. Later pods are ranked as if it were there. It steers and never refuses: filter does not use it. (Pods that
//! wait longer between filter and bind are in `queue`, too.)

use std::collections::BTreeMap;

use kerf::ids::{NodeName, PodUid};
use kerf::plan::Plan;
use kerf::units::Timestamp;
use parking_lot::Mutex;

/// How long an intent lasts, in milliseconds, unless the bind comes first.
const TTL_MS: u64 = 2_000;
/// More pods than are ever in flight: a bound on memory.
const MAX: usize = 4_096;
/// How many of them may be pods that the watch has not shown, since any client may make up pods; the watch lags by
/// fewer.
const MAX_UNSEEN: usize = 64;

#[derive(Clone, Debug)]
struct Intent {
    node: NodeName,
    plan: Plan,
    expires: Timestamp,
    /// Whether the watch has shown the pod.
    seen: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Intents {
    by_pod: Mutex<BTreeMap<PodUid, Intent>>,
}

impl Intents {
    /// Replaces an earlier intent of the same pod. `seen`: the watch has shown the pod.
    pub fn remember(&self, uid: PodUid, seen: bool, node: NodeName, plan: Plan, now: Timestamp) {
        let mut intents = self.by_pod.lock();
        intents.retain(|_, intent| intent.expires > now);
        let unseen = || intents.iter().filter(|(pod, intent)| !intent.seen && **pod != uid).count();
        if intents.len() < MAX && (seen || unseen() < MAX_UNSEEN) {
            intents.insert(uid, Intent { node, plan, expires: now.plus(TTL_MS), seen });
        }
    }

    /// The pod is bound or its bind has failed.
    pub fn drop(&self, uid: &PodUid) {
        self.by_pod.lock().remove(uid);
    }

    /// Plans of those pods in flight for which `counts` is true, by node.
    pub fn by_node(&self, counts: impl Fn(&PodUid) -> bool, now: Timestamp) -> BTreeMap<NodeName, Vec<Plan>> {
        let intents = self.by_pod.lock();
        let mut by_node: BTreeMap<NodeName, Vec<Plan>> = BTreeMap::new();
        for (_, intent) in intents.iter().filter(|(pod, intent)| intent.expires > now && counts(pod)) {
            by_node.entry(intent.node.clone()).or_default().push(intent.plan.clone());
        }
        by_node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intents_end_by_bind_or_time_and_are_left_out_where_they_do_not_count() {
        let intents = Intents::default();
        let now = Timestamp(0);
        for uid in ["a", "b"] {
            intents.remember(uid.into(), true, "n".into(), Plan::default(), now);
        }
        let except = |uid: &'static str| move |pod: &PodUid| pod.as_str() != uid;
        assert_eq!(intents.by_node(except("a"), now)["n"].len(), 1);
        intents.drop(&"b".into());
        assert!(intents.by_node(except("a"), now).is_empty());
        assert!(intents.by_node(except("b"), now.plus(TTL_MS)).is_empty());
    }

    #[test]
    fn pods_that_the_watch_has_not_shown_are_few() {
        let intents = Intents::default();
        let tell = |uid: String, seen, now| {
            intents.remember(uid.into(), seen, "n".into(), Plan::default(), now);
        };
        let now = Timestamp(0);
        (0..1_000).for_each(|number| tell(format!("u{number}"), false, now));
        let known = |now| intents.by_node(|_| true, now).get("n").map_or(0, Vec::len);
        assert_eq!(known(now), MAX_UNSEEN);
        (0..10).for_each(|number| tell(format!("s{number}"), true, now));
        assert_eq!(known(now), MAX_UNSEEN + 10);
        assert_eq!(known(now.plus(TTL_MS)), 0);
    }
}
