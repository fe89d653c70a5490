//! A container's isolation is its own, whichever other container has, or had, its ids.

use super::*;

/// An init container and an app container that asks for the same amount: kubelet gives both the same ids.
fn pair(name: &str, first: u32, time: u64) -> Pod {
    let request = request(&[(ContainerKind::Init, 20, 2), (ContainerKind::App, 20, 2)]);
    let placement = place(&[], &request, time, first);
    pod(name, request, placement)
}

fn levels(allocations: &Allocations, pod: &Pod) -> Vec<Option<Isolation>> {
    let view = allocations.view();
    let own = view.iter().find(|view| view.pod.uid == pod.uid).unwrap();
    own.containers.iter().map(|container| container.level).collect()
}

#[test]
fn an_init_container_and_an_app_with_equal_ids_have_each_their_own_level() {
    let a = pair("a", 0, 1);
    let mut allocations = allocations_with([a.clone()]);
    within(&mut allocations, &listing([], &[&a]));
    for (container, level) in [("c0", Isolation::Limiter), ("c1", Isolation::Mps)] {
        let answer = allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap();
        assert_eq!(answer.key, key(&a, container));
        allocations.enforced(&answer.key, core(0, 0..20), level);
        allocations.allocate(&Resource::Memory, core(0, 0..2)).unwrap();
    }
    assert_eq!(levels(&allocations, &a), [Some(Isolation::Limiter), Some(Isolation::Mps)]);
    // either may be the one that starts
    let holding = allocations.holding(&core(0, 0..20));
    let names: Vec<_> = holding.iter().map(|held| held.key.container.as_str()).collect();
    assert_eq!(names, ["c1", "c0"]);
    assert!(allocations.starts(&core(0, 0..20)));
    let app = ContainerResources { container: "c1".into(), ..held(&a, core(0, 0..20), core(0, 0..2)) };
    within(&mut allocations, &listing([app], &[]));
    assert_eq!(allocations.view()[0].containers[0].state, Some(State::Confirmed));
    let written = allocations.corrections(&Keys::default()).remove(0).annotations;
    assert_eq!(written[&Keys::default().isolated], r#"{"c1":"mps"}"#);
}

#[test]
fn a_later_pod_with_the_ids_of_an_earlier_one_has_its_own_level() {
    let (a, b) = (share("a", 20, 2, 0, 1), share("b", 20, 2, 0, 2));
    for (first, second) in [(&a, &b), (&b, &a)] {
        // what a previous run left on the disk, the later pod's first
        let mut allocations = allocations_with([second.clone()]);
        allocations.enforced(&key(second, "c0"), core(0, 0..20), Isolation::Limiter);
        allocations.enforced(&key(first, "c0"), core(0, 0..20), Isolation::Driver);
        within(&mut allocations, &listing([held(second, core(0, 0..20), core(0, 0..2))], &[]));
        assert_eq!(levels(&allocations, second), [Some(Isolation::Limiter)]);
    }
}

#[test]
fn ids_that_are_given_anew_say_nothing_of_who_had_them() {
    let (a, b) = (share("a", 20, 2, 0, 1), share("b", 20, 2, 0, 2));
    let mut allocations = allocations_with([a.clone()]);
    allocations.enforced(&key(&a, "c0"), core(0, 0..20), Isolation::Driver);
    within(&mut allocations, &listing([held(&a, core(0, 0..20), core(0, 0..2))], &[]));
    allocations.observe(b.clone());
    // kubelet still lists it: it keeps what it has, whichever container is given its ids
    within(&mut allocations, &listing([held(&a, core(0, 0..20), core(0, 0..2))], &[&b]));
    assert!(allocations.keeps(&key(&a, "c0"), &core(0, 0..20), &b.uid));
    allocations.observe(Pod { stage: Stage::Ended, ..a.clone() });
    assert!(allocations.keeps(&key(&a, "c0"), &core(0, 0..20), &b.uid), "kubelet decides");
    within(&mut allocations, &listing([], &[&b]));
    assert!(!allocations.keeps(&key(&a, "c0"), &core(0, 0..20), &b.uid));
    assert!(allocations.keeps(&key(&b, "c0"), &core(0, 0..20), &b.uid), "its own");
    allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap();
    assert_eq!(levels(&allocations, &b), [None], "still being prepared");
}

/// kubelet restarts in a call, and gives the ids to another container by the next one.
#[test]
fn the_work_of_a_call_that_was_overtaken_ends_nothing() {
    let (a, b) = (share("a", 20, 2, 0, 1), share("b", 20, 2, 0, 2));
    let mut allocations = allocations_with([a.clone(), b.clone()]);
    within(&mut allocations, &listing([], &[&a]));
    let ids = core(0, 0..20);
    let first = allocations.allocate(&Resource::Core, ids.clone()).unwrap().key;
    assert!(!allocations.ends(&first, &ids, (&first, &ids)), "its own");
    // it did not note the answer
    within(&mut allocations, &listing([], &[&b]));
    let second = allocations.allocate(&Resource::Core, ids.clone()).unwrap().key;
    assert_eq!([&first, &second], [&key(&a, "c0"), &key(&b, "c0")]);
    assert!(allocations.ends(&first, &ids, (&second, &ids)));
    assert!(!allocations.ends(&second, &ids, (&first, &ids)));
    // a list that is older than the second pod
    within(&mut allocations, &listing([], &[]));
    assert!(!allocations.keeps(&second, &ids, &a.uid));
    assert!(!allocations.ends(&second, &ids, (&first, &ids)));
}

#[test]
fn the_ids_of_an_init_container_that_kubelet_does_not_list_are_its_pods() {
    let (a, b) = (pair("a", 0, 1), share("b", 20, 2, 0, 2));
    let mut allocations = allocations_with([a.clone(), b.clone()]);
    within(&mut allocations, &listing([], &[&a]));
    allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap();
    within(&mut allocations, &listing([], &[&a, &b]));
    assert!(allocations.keeps(&key(&a, "c0"), &core(0, 0..20), &b.uid));
    within(&mut allocations, &listing([], &[&b]));
    assert!(!allocations.keeps(&key(&a, "c0"), &core(0, 0..20), &b.uid), "its pod was rejected");
}

/// A pod that kubelet lists and the API server has not shown yet counts, too.
#[test]
fn what_kubelet_lists_for_strangers_is_in_use() {
    let a = share("a", 20, 2, 0, 1);
    let mut allocations = allocations_with([]);
    assert!(allocations.in_use().is_none(), "kubelet was not heard");
    within(&mut allocations, &listing([held(&a, core(0, 0..20), core(0, 0..2))], &[]));
    allocations.begin_list();
    allocations.end_list();
    let (_, strangers) = allocations.in_use().unwrap();
    assert_eq!(strangers, BTreeSet::from([core(0, 0..20)]));
    allocations.observe(a.clone());
    assert!(allocations.in_use().unwrap().1.is_empty());
}

#[test]
fn pods_that_change_places_take_what_enforces_their_shares_along() {
    let (a, b) = (share("a", 20, 2, 0, 1), share("b", 20, 2, 1, 2));
    let mut allocations = allocations_with([a.clone(), b.clone()]);
    let answer = allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap();
    allocations.enforced(&answer.key, core(0, 0..20), Isolation::Limiter);
    let findings = within(&mut allocations, &listing([held(&b, core(0, 0..20), Ids::default())], &[]));
    assert_eq!(findings.swaps.len(), 1);
    assert_eq!((levels(&allocations, &a), levels(&allocations, &b)), (vec![None], vec![Some(Isolation::Limiter)]));
    // after a restart the plugin knows only the container that the directory was made for
    let mut allocations = allocations_with([a.clone(), b.clone()]);
    allocations.enforced(&key(&a, "c0"), core(0, 0..20), Isolation::Limiter);
    within(&mut allocations, &listing([held(&b, core(0, 0..20), core(0, 0..2))], &[&a]));
    assert_eq!((levels(&allocations, &a), levels(&allocations, &b)), (vec![None], vec![Some(Isolation::Limiter)]));
}
