//! Why a container was chosen, and which others it could have been.

use super::*;
use crate::allocation::decision::{Criterion, Evidence};

fn two() -> [Pod; 2] {
    [share("a", 20, 2, 0, 1), share("b", 20, 2, 1, 2)]
}

/// An Allocate for 20 units of core on a GPU on which no pod was placed.
fn decide(allocations: &mut Allocations) -> (String, Decision) {
    let answer = allocations.allocate(&Resource::Core, core(3, 0..20)).unwrap();
    (answer.key.pod.to_string(), answer.decision)
}

fn behind(pod: &Pod, behind_in: Criterion) -> Vec<RunnerUp> {
    vec![RunnerUp { key: key(pod, "c0"), behind_in }]
}

/// The criterion by which the second of two pods is chosen over the first, which was placed earlier.
fn second(allocations: &mut Allocations, pods: &[Pod; 2], criterion: Criterion) {
    let (chosen, decision) = decide(allocations);
    let runners_up = behind(&pods[0], criterion);
    let expected = Decision { evidence: Evidence::Ahead(criterion), candidates: 2, runners_up };
    assert_eq!((chosen.as_str(), decision), ("uid-b", expected));
}

fn outside(allocations: &mut Allocations, listing: &Listing) {
    let question = allocations.kubelet.question(false);
    allocations.reconcile(listing, question);
}

#[test]
fn kubelets_list_names_the_pod() {
    let pods = two();
    let mut allocations = allocations_with(pods.clone());
    within(&mut allocations, &listing([], &[&pods[1]]));
    let alone = Decision { evidence: Evidence::ListedNow, candidates: 1, runners_up: Vec::new() };
    assert_eq!(decide(&mut allocations), ("uid-b".to_owned(), alone));
    // the other pod has been on the list for longer
    let mut allocations = allocations_with(pods.clone());
    within(&mut allocations, &listing([], &[&pods[0]]));
    within(&mut allocations, &listing([], &[&pods[0], &pods[1]]));
    let runners_up = behind(&pods[0], Criterion::ListedLater);
    let later = Decision { evidence: Evidence::ListedNow, candidates: 2, runners_up };
    assert_eq!(decide(&mut allocations), ("uid-b".to_owned(), later));
}

#[test]
fn nobody_else_waits() {
    let mut allocations = allocations_with([share("a", 20, 2, 0, 1), share("b", 30, 2, 1, 2)]);
    let (chosen, decision) = decide(&mut allocations);
    let alone = Decision { evidence: Evidence::OnlyCandidate, candidates: 1, runners_up: Vec::new() };
    assert_eq!((chosen.as_str(), decision), ("uid-a", alone));
}

#[test]
fn the_oldest_where_nothing_else_tells_and_eight_of_the_others_are_named() {
    let pods: Vec<Pod> = (0..12).map(|at| share(&format!("{at:02}"), 20, 1, at % 3, u64::from(at))).collect();
    let mut allocations = allocations_with(pods.clone());
    let (chosen, decision) = decide(&mut allocations);
    assert_eq!((chosen.as_str(), decision.evidence, decision.candidates), ("uid-00", Evidence::OldestOf(12), 12));
    let named: Vec<RunnerUp> = pods[1..9].iter().flat_map(|pod| behind(pod, Criterion::PlacedEarlier)).collect();
    assert_eq!(decision.runners_up, named);
    assert_eq!(decision.evidence.to_string(), "oldest-of-12");
}

#[test]
fn the_ids_name_the_gpus() {
    let pods = two();
    let mut allocations = allocations_with(pods.clone());
    let answer = allocations.allocate(&Resource::Core, core(1, 0..20)).unwrap();
    assert_eq!(answer.key, key(&pods[1], "c0"));
    assert_eq!(answer.decision.evidence, Evidence::Ahead(Criterion::IdsNameItsGpus));
}

#[test]
fn the_last_call_was_for_the_same_pod() {
    let pods = two();
    let mut allocations = allocations_with(pods.clone());
    allocations.allocate(&Resource::Core, core(1, 0..20)).unwrap();
    let answer = allocations.allocate(&Resource::Memory, core(0, 0..2)).unwrap();
    assert_eq!(answer.key, key(&pods[1], "c0"));
    assert_eq!(answer.decision.evidence, Evidence::Ahead(Criterion::SamePodAsLastCall));
}

#[test]
fn the_pod_is_on_an_earlier_list() {
    let pods = two();
    let mut allocations = allocations_with(pods.clone());
    outside(&mut allocations, &listing([], &[&pods[1]]));
    second(&mut allocations, &pods, Criterion::Listed);
}

#[test]
fn the_other_pod_is_terminating_or_runs() {
    let pods = two();
    let mut allocations = allocations_with(pods.clone());
    allocations.observe(Pod { stage: Stage::Terminating, ..pods[0].clone() });
    second(&mut allocations, &pods, Criterion::NotTerminating);
    let mut allocations = allocations_with(pods.clone());
    allocations.observe(Pod { confirmed: true, ..pods[0].clone() });
    second(&mut allocations, &pods, Criterion::NotRunning);
}

#[test]
fn the_other_pods_init_container_would_have_to_be_over() {
    let shape = [(ContainerKind::Init, 50, 5), (ContainerKind::App, 20, 2)];
    let first = pod("a", request(&shape), place(&[], &request(&shape), 1, 0));
    let mut allocations = allocations_with([first.clone(), share("b", 20, 2, 1, 2)]);
    let answer = allocations.allocate(&Resource::Memory, core(3, 0..2)).unwrap();
    let runners_up = vec![RunnerUp { key: key(&first, "c1"), behind_in: Criterion::NextContainer }];
    let evidence = Evidence::Ahead(Criterion::NextContainer);
    assert_eq!(answer.decision, Decision { evidence, candidates: 2, runners_up });
}

#[test]
fn the_other_pods_answer_was_lost() {
    let pods = two();
    let mut allocations = allocations_with(pods.clone());
    assert_eq!(decide(&mut allocations).0, "uid-a");
    // kubelet does not list it
    within(&mut allocations, &listing([], &[]));
    allocations.allocate(&Resource::Core, core(3, 0..30)).unwrap_err();
    second(&mut allocations, &pods, Criterion::NoAnswerLost);
}

#[test]
fn the_pod_has_something_already() {
    let pair = request(&[(ContainerKind::App, 20, 2), (ContainerKind::App, 20, 2)]);
    let pods = [share("a", 20, 2, 0, 1), pod("b", pair.clone(), place(&[], &pair, 2, 1))];
    let mut allocations = allocations_with(pods.clone());
    outside(&mut allocations, &listing([held(&pods[1], core(1, 0..20), core(1, 0..2))], &[&pods[0]]));
    second(&mut allocations, &pods, Criterion::Begun);
}

#[test]
fn the_older_pods_gpu_has_no_room() {
    let pods = two();
    let mut allocations = allocations_with(pods.clone());
    let mut cards = cards();
    cards[0].health = Health::Unhealthy;
    allocations.set_cards(cards);
    second(&mut allocations, &pods, Criterion::HasRoom);
}

#[test]
fn the_same_ids_were_answered_before() {
    let mut allocations = allocations_with([share("a", 20, 2, 0, 1)]);
    decide(&mut allocations);
    let again = Decision { evidence: Evidence::SameIds, candidates: 1, runners_up: Vec::new() };
    assert_eq!(decide(&mut allocations), ("uid-a".to_owned(), again));
}
