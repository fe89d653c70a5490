//! Pods of the same shape that change places, and ids that kubelet gives twice.

use super::*;

fn recorded(allocations: &Allocations, pod: &Pod) -> Placement {
    let keys = Keys::default();
    let mut annotations = annotation::write(pod.record.as_ref().unwrap(), &keys);
    let correction = allocations.corrections(&keys).into_iter().find(|correction| correction.uid == pod.uid);
    annotations.extend(correction.map(|correction| correction.annotations).unwrap_or_default());
    match annotation::read(&annotations, &keys, &pod.request) {
        Record::Placed(placement) => placement,
        other => panic!("{other:?}"),
    }
}

fn card(placement: &Placement) -> &str {
    placement.plan.grants[0].gpus.ids().next().unwrap().as_str()
}

/// Served in each other's place, and one record of two is written when the plugin ends.
#[test]
fn after_half_of_an_exchange_both_have_what_they_were_given() {
    for whole in [false, true] {
        let (units, memory) = if whole { (100, 0) } else { (50, 5) };
        let twins = [share("a", units, memory, 0, 1), share("b", units, memory, 1, 2)];
        let mut allocations = allocations_with(twins.clone());
        let size = u32::try_from(units).unwrap();
        let sets = [core(2, 0..size), core(3, 0..size)];
        // no list: each is taken for the other
        assert_eq!(device(&allocations.allocate(&Resource::Core, sets[0].clone()).unwrap()), "GPU-0");
        assert_eq!(device(&allocations.allocate(&Resource::Core, sets[1].clone()).unwrap()), "GPU-1");
        let answers = allocations.answers.all().to_vec();
        let memory = |card: u32| if whole { Ids::default() } else { core(card, 0..5) };
        let truth = listing(
            [held(&twins[1], sets[0].clone(), memory(0)), held(&twins[0], sets[1].clone(), memory(1))],
            &[],
        );
        within(&mut allocations, &truth);
        let [new_a, new_b] = [recorded(&allocations, &twins[0]), recorded(&allocations, &twins[1])];
        assert_eq!((card(&new_a), card(&new_b)), ("GPU-1", "GPU-0"));
        for written in [0, 1] {
            let mut half = twins.clone();
            half[written].record = Some([&new_a, &new_b][written].clone());
            let mut later = allocations_with(half.clone());
            later.answers.restore(answers.clone());
            within(&mut later, &truth);
            let now = [recorded(&later, &half[0]), recorded(&later, &half[1])];
            assert_eq!((card(&now[0]), card(&now[1])), ("GPU-1", "GPU-0"), "whole {whole}, written {written}");
            assert_eq!(later.allocated(&"GPU-0".into()), later.allocated(&"GPU-1".into()));
        }
    }
}

/// kubelet loses count of the ids that it gave when it removes a pod while it waits for an answer.
#[test]
fn ids_that_kubelet_lists_twice_are_both_their_holders() {
    let pods = [share("a", 50, 5, 0, 1), share("b", 50, 5, 1, 2)];
    let mut allocations = allocations_with(pods.clone());
    within(&mut allocations, &listing([], &[&pods[0]]));
    allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap();
    within(&mut allocations, &listing([held(&pods[0], core(0, 0..50), Ids::default())], &[]));
    allocations.allocate(&Resource::Memory, core(0, 0..5)).unwrap();
    let first = held(&pods[0], core(0, 0..50), core(0, 0..5));
    within(&mut allocations, &listing([first.clone()], &[&pods[1]]));
    assert_eq!(device(&allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap()), "GPU-1");
    within(&mut allocations, &listing([first.clone(), held(&pods[1], core(0, 0..50), Ids::default())], &[]));
    allocations.allocate(&Resource::Memory, core(0, 0..5)).unwrap();
    let both = listing([first, held(&pods[1], core(0, 0..50), core(0, 0..5))], &[]);
    for _ in 0..2 {
        assert_eq!(within(&mut allocations, &both), Comparison::default());
        for (pod, gpu) in pods.iter().zip(["GPU-0", "GPU-1"]) {
            assert_eq!(card(&recorded(&allocations, pod)), gpu);
            assert_eq!(allocations.allocated(&gpu.into()), Share::new(500, 5 * 256));
        }
    }
    // after a restart the plugin knows it from the saved answers
    let mut later = allocations_with(pods.clone());
    later.answers.restore(allocations.answers.all().to_vec());
    within(&mut later, &both);
    assert_eq!(pods.each_ref().map(|pod| card(&recorded(&later, pod)).to_owned()), ["GPU-0", "GPU-1"]);
}

/// kubelet served the one while the other was taken for it, init container and all.
#[test]
fn an_init_container_that_was_taken_for_anothers_has_nothing_of_it() {
    let request = request(&[(ContainerKind::Init, 20, 5), (ContainerKind::App, 20, 5)]);
    let twins = ["a", "b"].map(|name| {
        let time = if name == "a" { 1 } else { 2 };
        pod(name, request.clone(), place(&[], &request, time, u32::from(name == "b")))
    });
    let mut allocations = allocations_with(twins.clone());
    // no list: the first is assumed to be served
    let ids = core(2, 0..20);
    assert_eq!(allocations.allocate(&Resource::Core, ids.clone()).unwrap().key, key(&twins[0], "c0"));
    allocations.allocate(&Resource::Memory, core(2, 0..5)).unwrap();
    assert_eq!(allocations.allocate(&Resource::Core, ids.clone()).unwrap().key, key(&twins[0], "c1"));
    allocations.allocate(&Resource::Memory, core(2, 0..5)).unwrap();
    let app = ContainerResources { container: "c1".into(), ..held(&twins[1], ids.clone(), core(2, 0..5)) };
    within(&mut allocations, &listing([app], &[&twins[0]]));
    let holders: Vec<Key> = allocations.holding(&ids).into_iter().map(|answer| answer.key).collect();
    assert_eq!(holders[0], key(&twins[1], "c1"));
    assert!(holders.iter().all(|holder| holder.pod == twins[1].uid), "{holders:?}");
}
