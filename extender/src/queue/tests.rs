use super::*;
use kerf::ids::PodRef;
use kerf::request::{ContainerKind, GpuRequest, RawAnnotations, RawContainer};

fn request(priority: i32) -> Arc<GpuRequest> {
    let raw =
        RawContainer { name: "c", kind: ContainerKind::App, core: Some("10"), memory: Some("1"), counted: &[] };
    let request = GpuRequest::parse([raw], RawAnnotations::default()).unwrap().unwrap();
    Arc::new(GpuRequest { priority, ..request })
}

fn queued(created: i64) -> Queued {
    Queued { created, ..Queued::default() }
}

fn grouped(created: i64, group: &str) -> Queued {
    Queued { group: Some(group.into()), waits: true, ..queued(created) }
}

fn nominated(created: i64) -> Queued {
    Queued { nominated: Some("n".into()), ..queued(created) }
}

fn see(queue: &Queue, uid: &str, priority: i32, queued: Queued) -> Vec<NodeName> {
    let pod = PodRequest { uid: uid.into(), name: PodRef::new("ns", uid), request: request(priority) };
    queue.seen(Waiting { pod, tolerations: Arc::default() });
    queue.stands(&uid.into(), queued)
}

/// The pods that come before a pod on node `n`.
fn before(queue: &Queue, uid: &str, priority: i32) -> Vec<String> {
    let claims = queue.before(&uid.into(), priority);
    claims.get("n").into_iter().flatten().map(|claim| claim.uid.to_string()).collect()
}

#[test]
fn nominated_pods_come_before_those_of_lower_and_equal_priority() {
    let queue = Queue::default();
    see(&queue, "p", 5, nominated(9));
    for (uid, priority) in [("low", 0), ("equal", 5), ("high", 6)] {
        see(&queue, uid, priority, queued(1));
    }
    assert_eq!(before(&queue, "low", 0), ["p"]);
    assert_eq!(before(&queue, "equal", 5), ["p"], "it was there first, and nobody made room for it");
    assert!(before(&queue, "high", 6).is_empty());
    assert!(before(&queue, "p", 5).is_empty(), "not before itself");
    assert_eq!(before(&queue, "unknown", 5), ["p"]);
    assert!(before(&queue, "unknown", 6).is_empty());
}

#[test]
fn of_two_that_are_nominated_only_one_waits_for_the_other() {
    let queue = Queue::default();
    see(&queue, "old", 0, nominated(1));
    see(&queue, "young", 0, nominated(2));
    see(&queue, "twin", 0, nominated(2));
    assert!(before(&queue, "old", 0).is_empty());
    assert_eq!(before(&queue, "twin", 0), ["old"]);
    assert_eq!(before(&queue, "young", 0), ["old", "twin"]);
}

#[test]
fn a_nomination_ends_where_it_is_cleared_moved_bound_gone_or_its_node_is() {
    let queue = Queue::default();
    let there = |queue: &Queue| !before(queue, "x", 0).is_empty();
    see(&queue, "p", 5, nominated(1));
    assert_eq!(see(&queue, "p", 5, queued(1)), ["n".into()]);
    assert!(!there(&queue));
    see(&queue, "p", 5, nominated(1));
    assert_eq!(see(&queue, "p", 5, nominated(1)), Vec::<NodeName>::new());
    let moved = Queued { nominated: Some("m".into()), ..queued(1) };
    assert_eq!(see(&queue, "p", 5, moved), ["n".into()]);
    assert!(!there(&queue));
    see(&queue, "p", 5, nominated(1));
    assert_eq!(queue.remove(&"p".into()), ["n".into()]);
    assert!(!there(&queue));
    see(&queue, "p", 5, nominated(1));
    assert_eq!(queue.retain(&BTreeSet::new()), ["n".into()]);
    assert!(!there(&queue));
    see(&queue, "p", 5, nominated(1));
    queue.forget_node("n");
    assert!(!there(&queue));
    assert!(queue.contains(&"p".into()));
}

#[test]
fn only_those_that_wait_are_expected_where_they_were_sent_and_for_a_while() {
    let queue = Queue::default();
    let (n, now) = (NodeName::from("n"), Timestamp(1_000));
    see(&queue, "quick", 0, queued(1));
    see(&queue, "waits", 0, Queued { waits: true, ..queued(1) });
    for uid in ["quick", "waits", "never-shown"] {
        queue.sent(&uid.into(), &n, now);
    }
    assert_eq!(before(&queue, "x", 0), ["waits"]);
    // expected elsewhere now
    assert_eq!(queue.sent(&"waits".into(), &"m".into(), now), ["n".into()]);
    assert_eq!(queue.sent(&"waits".into(), &n, now), ["m".into()]);
    assert_eq!(queue.expire(now.plus(HOLD_MS - 1)), Vec::<NodeName>::new());
    assert_eq!(queue.expire(now.plus(HOLD_MS)), ["n".into()]);
    assert!(before(&queue, "x", 0).is_empty());
    // a group that never becomes complete leaves its cards to others in between
    let later = now.plus(2 * HOLD_MS);
    queue.sent(&"waits".into(), &n, Timestamp(later.0 - 1));
    assert!(before(&queue, "x", 0).is_empty());
    queue.sent(&"waits".into(), &n, later);
    assert_eq!(before(&queue, "x", 0), ["waits"]);
    queue.sent(&"waits".into(), &n, later.plus(HOLD_MS - 1));
    assert_eq!(queue.expire(later.plus(HOLD_MS)), ["n".into()]);
    let now = later.plus(2 * HOLD_MS);
    queue.sent(&"waits".into(), &n, now);
    assert_eq!(queue.released(&"waits".into()), ["n".into()]);
    assert_eq!(queue.released(&"waits".into()), Vec::<NodeName>::new());
    // the scheduler nominates where it really waits
    queue.sent(&"waits".into(), &n, now);
    let elsewhere = Queued { nominated: Some("m".into()), waits: true, ..queued(1) };
    assert_eq!(see(&queue, "waits", 0, elsewhere), ["n".into()]);
}

#[test]
fn of_two_groups_that_are_half_placed_the_younger_waits_for_the_older() {
    let queue = Queue::default();
    let (n, now) = (NodeName::from("n"), Timestamp(0));
    for (uid, created, group) in [("a1", 3, "ns/a"), ("b1", 2, "ns/b"), ("a2", 1, "ns/a"), ("b2", 4, "ns/b")] {
        see(&queue, uid, 0, grouped(created, group));
    }
    queue.sent(&"a1".into(), &n, now);
    queue.sent(&"b1".into(), &n, now);
    assert_eq!(before(&queue, "a2", 0), ["a1"]);
    assert_eq!(before(&queue, "b2", 0), ["a1", "b1"]);
    assert_eq!(before(&queue, "a1", 0), Vec::<String>::new());
    // as old as its oldest pod was, also when that is bound
    queue.remove(&"a2".into());
    assert_eq!(before(&queue, "b2", 0), ["a1", "b1"]);
    see(&queue, "a1", 0, grouped(3, "ns/a"));
    assert_eq!(before(&queue, "b2", 0), ["a1", "b1"]);
    // a pod that is not expected anywhere waits for both
    see(&queue, "x", 0, queued(0));
    assert_eq!(before(&queue, "x", 0), ["a1", "b1"]);
}

#[test]
fn the_pods_of_a_group_leave_each_other_their_cards_whoever_comes_first() {
    let queue = Queue::default();
    for (uid, priority, created) in [("a", 0, 5), ("b", 9, 1)] {
        see(&queue, uid, priority, grouped(created, "ns/g"));
    }
    queue.sent(&"a".into(), &"n".into(), Timestamp(0));
    assert_eq!(before(&queue, "b", 9), ["a"]);
}
