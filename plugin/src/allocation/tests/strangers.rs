//! Pods without a placement.

use super::*;

fn stranger(name: &str, core: u64, memory: u64) -> Pod {
    pod(name, request(&[(ContainerKind::App, core, memory)]), None)
}

fn refused(allocations: &mut Allocations, units: u32) -> &'static str {
    allocations.allocate(&Resource::Core, core(3, 0..units)).unwrap_err().code()
}

#[test]
fn who_is_alone_on_kubelets_list_is_served_with_nobody_elses_card() {
    let waits = share("a", 50, 5, 0, 1);
    let stranger = stranger("b", 50, 5);
    // whether it is known or not, and whatever waits besides
    for known in [true, false] {
        let mut allocations = allocations_with([waits.clone()]);
        if known {
            allocations.observe(stranger.clone());
        }
        within(&mut allocations, &listing([], &[&stranger]));
        assert!(allocations.callers(&Resource::Core, 50, None).is_err());
        assert_eq!(refused(&mut allocations, 50), if known { "not-placed" } else { "nobody-waits" });
        // its turn comes, and it has its GPU
        within(&mut allocations, &listing([], &[&waits]));
        let answer = allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap();
        assert_eq!((answer.key.pod.as_str(), device(&answer).as_str()), ("uid-a", "GPU-0"));
    }
}

#[test]
fn of_two_on_kubelets_list_it_is_the_one_that_came_last() {
    let (waits, stranger) = (share("a", 50, 5, 0, 1), stranger("b", 50, 5));
    // the stranger ran before the plugin was installed
    let mut allocations = allocations_with([waits.clone(), stranger.clone()]);
    within(&mut allocations, &listing([], &[&stranger]));
    within(&mut allocations, &listing([], &[&stranger, &waits]));
    assert_eq!(allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap().key.pod.as_str(), "uid-a");
    // the other one did
    let mut allocations = allocations_with([waits.clone(), stranger.clone()]);
    within(&mut allocations, &listing([], &[&waits]));
    within(&mut allocations, &listing([], &[&stranger, &waits]));
    assert_eq!(refused(&mut allocations, 50), "not-placed");
    // both came at once: nothing tells them apart
    let mut allocations = allocations_with([waits.clone(), stranger.clone()]);
    within(&mut allocations, &listing([], &[&stranger, &waits]));
    assert!(!allocations.certain(&Resource::Core, 50));
    assert_eq!(refused(&mut allocations, 50), "ambiguous");
    // a pod that the API server has not shown is not ignored
    let mut allocations = allocations_with([waits.clone()]);
    within(&mut allocations, &listing([], &[&waits]));
    within(&mut allocations, &listing([], &[&stranger, &waits]));
    assert!(!allocations.certain(&Resource::Core, 50));
    assert_eq!(refused(&mut allocations, 50), "nobody-waits");
}

#[test]
fn a_pod_without_cards_that_came_later_is_no_stranger() {
    let waits = share("a", 50, 5, 0, 1);
    let other = stranger("b", 50, 5);
    let mut allocations = allocations_with([waits.clone()]);
    let (uid, reference) = (other.uid.clone(), other.reference.clone());
    let bystander = Bystander { uid, reference, runtime_ids: BTreeMap::new() };
    allocations.see(Seen::Other { pod: bystander, stage: Stage::Live });
    within(&mut allocations, &listing([], &[&waits]));
    within(&mut allocations, &listing([], &[&waits, &other]));
    assert!(allocations.certain(&Resource::Core, 50));
    assert_eq!(allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap().key.pod.as_str(), "uid-a");
}

#[test]
fn a_new_pod_of_an_old_name_came_last() {
    let (old, other) = (share("a", 50, 5, 0, 1), stranger("b", 50, 5));
    let mut allocations = allocations_with([old.clone(), other.clone()]);
    let ids = held(&old, core(0, 0..50), core(0, 0..5));
    within(&mut allocations, &listing([ids.clone()], &[]));
    within(&mut allocations, &listing([ids], &[&other]));
    // without a list in between: its ids are gone, or the API server has shown its end
    for told in [false, true] {
        let mut allocations = allocations.clone();
        let new = Pod { uid: "uid-new".into(), ..old.clone() };
        if told {
            allocations.forget(&old.uid);
        }
        allocations.observe(Pod { stage: Stage::Ended, ..old.clone() });
        allocations.observe(new.clone());
        within(&mut allocations, &listing([], &[&new, &other]));
        assert_eq!(allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap().key.pod, new.uid, "{told}");
    }
}

#[test]
fn the_list_of_a_call_that_was_given_up_says_nothing_of_the_next() {
    let waits = share("a", 50, 5, 0, 1);
    let mut allocations = allocations_with([waits.clone()]);
    within(&mut allocations, &listing([], &[&waits]));
    let advice = Ids::new(prefer(&allocations, &Resource::Core, &[unit("GPU-0", 1), unit("GPU-0", 2)], &[], 1));
    allocations.kubelet.advise(&Resource::Core, &advice);
    assert!(allocations.kubelet.advised(&Resource::Core, &advice));
    assert!(
        !allocations.kubelet.advised(&Resource::Memory, &advice)
            && !allocations.kubelet.advised(&Resource::Core, &core(1, 0..1))
    );
    within(&mut allocations, &listing([], &[&waits]));
    assert!(!allocations.kubelet.advised(&Resource::Core, &advice), "of an earlier call");
}

#[test]
fn without_a_list_nobody_is_served_while_a_stranger_waits_for_as_much() {
    let (waits, stranger) = (share("a", 50, 5, 0, 1), stranger("b", 50, 5));
    let mut allocations = allocations_with([waits.clone(), stranger.clone()]);
    assert_eq!(refused(&mut allocations, 50), "ambiguous");
    allocations.forget(&stranger.uid);
    allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap();
    // the same ids again do not belong to another pod
    allocations.observe(Pod { uid: "uid-c".into(), ..stranger });
    let refusal = allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap_err();
    assert_eq!(refusal.code(), "not-placed");
}

/// It was served in the other's place all the same, while kubelet gave no list.
#[test]
fn a_stranger_that_has_a_card_counts_there_and_the_card_is_not_given_again() {
    let (waits, stranger) = (share("a", 60, 6, 0, 1), stranger("b", 60, 6));
    let mut allocations = allocations_with([waits.clone()]);
    allocations.allocate(&Resource::Core, core(1, 0..60)).unwrap();
    allocations.allocate(&Resource::Memory, core(1, 0..6)).unwrap();
    let list = listing([held(&stranger, core(1, 0..60), core(1, 0..6))], &[&waits]);
    for known in [false, true] {
        if known {
            allocations.observe(stranger.clone());
        }
        within(&mut allocations, &list);
        assert_eq!(allocations.allocated(&"GPU-0".into()), Share::new(600, 6 * 256), "{known}");
        assert_eq!(
            allocations.clone().allocate(&Resource::Core, core(0, 0..60)).unwrap_err().code(),
            "overcommitted"
        );
    }
    // and its record shows it from now on
    let written = allocations.corrections(&Keys::default());
    let of = written.iter().find(|correction| correction.uid == stranger.uid).unwrap();
    let Record::Placed(placement) = annotation::read(&of.annotations, &Keys::default(), &stranger.request) else {
        panic!()
    };
    assert_eq!(placement.plan.grants[0].gpus.ids().next().unwrap().as_str(), "GPU-0");
}

/// Nothing is known of it but what kubelet lists.
#[test]
fn what_kubelet_lists_counts_by_the_cards_that_its_ids_name() {
    let (unknown, thief) = (share("a", 60, 6, 0, 1), share("b", 60, 4, 0, 2));
    let mut allocations = allocations_with([thief.clone()]);
    let list = listing([held(&unknown, core(0, 0..60), core(0, 0..6))], &[&thief]);
    within(&mut allocations, &list);
    assert_eq!(allocations.allocated(&"GPU-0".into()), Share::new(600, 6 * 256));
    assert_eq!(allocations.allocate(&Resource::Core, core(1, 0..60)).unwrap_err().code(), "overcommitted");
    allocations.begin_list();
    allocations.observe(thief.clone());
    allocations.end_list();
    let (_, ids) = allocations.in_use().unwrap();
    assert!(ids.contains(&core(0, 0..60)), "its limits are kept");
    let whole = listing([held(&unknown, core(0, 0..100), Ids::default())], &[&thief]);
    within(&mut allocations, &whole);
    assert_eq!(allocations.allocated(&"GPU-0".into()), cards()[0].capacity());
    within(&mut allocations, &listing([], &[&thief]));
    assert_eq!(allocations.allocated(&"GPU-0".into()), Share::ZERO);
}

#[test]
fn a_pod_that_was_deleted_stays_deleted_however_late_an_answer_comes() {
    let a = share("a", 60, 6, 0, 1);
    let mut allocations = allocations_with([a.clone()]);
    allocations.forget(&a.uid);
    allocations.observe(a);
    assert!(allocations.view().is_empty());
}

#[test]
fn a_stranger_with_shares_by_count_is_not_taken_for_another() {
    // kubelet's list tells which pod has these ids, and it is none that waits
    let waits = share("a", 50, 5, 0, 1);
    let mut allocations = allocations_with([waits]);
    let unknown = stranger("b", 1, 1);
    within(&mut allocations, &listing([], &[&unknown]));
    assert_eq!(allocations.take_counted(&Resource::Counted("example.com/shared".into()), core(0, 0..1)), None);
}

#[test]
fn pods_that_an_old_kubelet_rejected_and_lists_are_passed_over() {
    let (rejected, next) = (share("a", 50, 5, 0, 1), share("b", 50, 5, 1, 2));
    let mut allocations = allocations_with([rejected.clone(), next.clone()]);
    within(&mut allocations, &listing([], &[&rejected]));
    within(&mut allocations, &listing([], &[&rejected, &next]));
    assert_eq!(device(&allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap()), "GPU-1");
    // rejected before it called: both are new
    let mut allocations = allocations_with([rejected.clone(), next.clone()]);
    within(&mut allocations, &listing([], &[&rejected, &next]));
    assert!(!allocations.certain(&Resource::Core, 50), "the API server is asked");
    assert_eq!(refused(&mut allocations, 50), "ambiguous");
    allocations.observe(Pod { stage: Stage::Ended, ..rejected.clone() });
    within(&mut allocations, &listing([], &[&rejected, &next]));
    assert_eq!(device(&allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap()), "GPU-1");
}

#[test]
fn while_pods_of_another_resource_domain_hold_cards_nobody_is_served() {
    let waits = share("a", 50, 5, 0, 1);
    let mut allocations = allocations_with([waits.clone()]);
    let other = OtherDomain { pod: PodRef::new("ns", "old"), resource: "example.com/vcuda-core".into() };
    let list = Listing { other_domain: Some(other), ..listing([], &[&waits]) };
    within(&mut allocations, &list);
    let refusal = allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap_err();
    assert_eq!(refusal.code(), "other-domain");
    assert!(refusal.to_string().contains("drain"), "{refusal}");
    within(&mut allocations, &listing([], &[&waits]));
    allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap();
}
