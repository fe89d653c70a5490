//! Tests of the ledger's transitions, one rule each. Whole histories are in `tests/ledger_model.rs`.

use std::sync::Arc;

use super::*;
use crate::device::Inventory;
use crate::ids::{DeviceId, PodRef, PodUid};
use crate::placement::Planner;
use crate::plan::{DeviceRef, Grant, Plan};
use crate::policy::Policy;
use crate::request::{Ask, ContainerKind, GpuRequest, PodRequest, RawAnnotations, RawContainer};
use crate::unfit::Unfit;
use crate::units::{Mib, Share, Timestamp};

const NOW: Timestamp = Timestamp(1_000);

fn request(core: &str, memory: &str) -> Arc<GpuRequest> {
    let raw = RawContainer {
        name: "main",
        kind: ContainerKind::App,
        core: Some(core),
        memory: Some(memory),
        counted: &[],
    };
    Arc::new(GpuRequest::parse([raw], RawAnnotations::default()).unwrap().unwrap())
}

fn node(cards: u64) -> NodeLedger {
    NodeLedger::new(&Inventory::from_capacity(cards * 100, cards * 60))
}

fn assume(node: &mut NodeLedger, uid: &str, core: &str, memory: &str) -> Result<Plan, Unfit> {
    let pod = PodRef::new("ns", uid);
    let deadline = NOW.plus(100);
    Planner::default().assume(
        node,
        &PodRequest::new(&uid.into(), &pod, &request(core, memory)),
        Policy::Binpack,
        deadline,
        1,
    )
}

fn observe(node: &mut NodeLedger, uid: &str, core: &str, memory: &str, held: Held) -> Seen {
    node.observe(&PodRequest::new(&uid.into(), &PodRef::new("ns", uid), &request(core, memory)), held, false, 1)
}

fn used(node: &NodeLedger) -> Vec<(u32, u64)> {
    node.cards().iter().map(|card| (card.used().compute.0, card.used().memory.0)).collect()
}

#[test]
fn assume_then_forget_changes_nothing() {
    let mut node = node(2);
    assume(&mut node, "a", "50", "10").unwrap();
    assert_eq!(used(&node), [(500, 2560), (0, 0)]);
    assert!(node.forget(&"a".into()));
    assert_eq!(used(&node), [(0, 0), (0, 0)]);
    assert!(!node.forget(&"a".into()));
}

#[test]
fn a_repeated_assume_gets_the_same_cards() {
    let mut node = node(2);
    let first = assume(&mut node, "a", "50", "10").unwrap();
    assume(&mut node, "b", "10", "1").unwrap();
    assert_eq!(assume(&mut node, "a", "50", "10"), Ok(first));
    assert_eq!(used(&node), [(600, 2816), (0, 0)]);
}

#[test]
fn only_assumed_pods_are_forgotten_and_what_was_not_observed_expires() {
    let mut node = node(1);
    let uid = PodUid::from("a");
    assume(&mut node, "a", "50", "10").unwrap();
    assert_eq!(node.overdue(NOW), []);
    assert!(!node.expire(&uid, NOW), "not overdue");
    assert_eq!(node.overdue(NOW.plus(100)).len(), 1);
    node.bound(&uid, 1);
    assert!(!node.forget(&uid), "written");
    assert_eq!(node.overdue(NOW.plus(100)).len(), 1, "accepted, but never shown by the watch");
    let Held::Plan(plan) = node.commitments()["a"].held.clone() else { panic!("planned") };
    observe(&mut node, "a", "50", "10", Held::Plan(plan));
    assert_eq!(node.overdue(NOW.plus(1_000)), []);
    assert!(!node.expire(&uid, NOW.plus(1_000)));
    assert!(node.release(&uid));
}

#[test]
fn a_pod_bound_after_a_list_began_is_not_missing_from_it() {
    let mut node = node(1);
    assume(&mut node, "old", "10", "1").unwrap();
    node.bound(&"old".into(), 1);
    assume(&mut node, "flying", "10", "1").unwrap();
    assume(&mut node, "new", "10", "1").unwrap();
    node.bound(&"new".into(), 2);
    assert_eq!(node.release_missing(2), [PodUid::from("old")]);
    assert_eq!(node.commitments().len(), 2);
}

#[test]
fn reality_wins_and_overcommit_is_shown() {
    let mut node = node(2);
    let plan = assume(&mut node, "a", "80", "10").unwrap();
    assert_eq!(observe(&mut node, "a", "80", "10", Held::Plan(plan.clone())), Seen::AsPlanned);
    assert_eq!(observe(&mut node, "a", "80", "10", Held::Plan(plan.clone())), Seen::Same);
    assert_eq!(observe(&mut node, "b", "80", "10", Held::Plan(plan)), Seen::New);
    assert!(node.cards()[0].overcommitted());
    assert_eq!(node.cards()[0].free(), Share::ZERO);
    assert_eq!(observe(&mut node, "b", "80", "10", on(1, 80, 10)), Seen::Drift);
    assert_eq!(used(&node), [(1600, 5120), (800, 2560)], "somebody may be on the card that it left");
    assert!(!node.settle(NOW, 100));
    assert!(!node.settle(NOW.plus(99), 100));
    assert!(node.settle(NOW.plus(100), 100), "nobody came");
    assert_eq!(used(&node), [(800, 2560), (800, 2560)]);
}

/// `request(core, memory)` on the card with this index.
fn on(card: u32, core: u32, memory: u64) -> Held {
    named((DeviceId::of_index(card), card), core, memory)
}

#[test]
fn records_that_change_places_one_by_one_never_free_a_card_between() {
    for circle in [vec![("a", 1), ("b", 0)], vec![("c", 1), ("a", 2), ("b", 0)]] {
        let mut node = node(3);
        for (pod, card) in [("a", 0), ("b", 1), ("c", 2)] {
            observe(&mut node, pod, "80", "10", on(card, 80, 10));
        }
        let last = circle.len() - 1;
        for (step, (pod, card)) in circle.into_iter().enumerate() {
            assert_eq!(observe(&mut node, pod, "80", "10", on(card, 80, 10)), Seen::Drift);
            assert_eq!(assume(&mut node, "x", "50", "1"), Err(Unfit::Compute), "at {step}");
            let full = used(&node) == [(800, 2560); 3];
            assert_eq!(full, step == last, "every card is as full as before once all have moved");
        }
        assert!(!node.settle(NOW, 0), "nothing is left in transit");
    }
}

/// `request(core, memory)` on the card of this name and index.
fn named((id, index): (impl Into<DeviceId>, u32), core: u32, memory: u64) -> Held {
    let request = request(&core.to_string(), &memory.to_string());
    let device = DeviceRef { id: id.into(), index };
    let share = Share::new(core * 10, memory * 256);
    Held::Plan(Plan { grants: vec![request.containers[0].granted(Grant::Share { device, share })] })
}

/// Healthy cards of these names, in order of index.
fn listed<const N: usize>(names: [&str; N]) -> Inventory {
    let device = |(index, name)| crate::device::Device::new(name, index, Mib(15_360));
    Inventory::new((0..).zip(names).map(device).collect())
}

#[test]
fn a_record_that_moves_between_cards_of_one_index_is_half_an_exchange_as_well() {
    let mut node = NodeLedger::new(&listed(["g0", "g1"]));
    observe(&mut node, "a", "60", "10", named(("g0", 0), 60, 10));
    node.set_inventory(&listed(["g1", "g0"]));
    assert_eq!(used(&node), [(0, 0), (600, 2560)]);
    observe(&mut node, "a", "60", "10", named(("g1", 0), 60, 10));
    assert_eq!(used(&node), [(600, 2560), (600, 2560)], "somebody may be on the card that it left");
    observe(&mut node, "b", "60", "10", named(("g1", 1), 60, 10));
    observe(&mut node, "b", "60", "10", named(("g0", 1), 60, 10));
    assert!(!node.settle(NOW, 0), "both halves were seen");
    assert_eq!(used(&node), [(600, 2560), (600, 2560)]);
}

#[test]
fn a_record_that_names_its_card_otherwise_leaves_nothing_behind() {
    for (before, after) in [("index-1", "g1"), ("g1", "index-1")] {
        let mut node = NodeLedger::new(&listed(["g0", "g1"]));
        observe(&mut node, "a", "60", "10", named((before, 1), 60, 10));
        // the record is older than the order of the cards
        observe(&mut node, "a", "60", "10", named((after, if after == "g1" { 0 } else { 1 }), 60, 10));
        assert!(!node.settle(NOW, 0));
        assert_eq!(used(&node), [(0, 0), (600, 2560)], "{before}");
    }
}

#[test]
fn a_card_that_a_record_names_twice_may_be_any_other() {
    let whole = |id: &str| (DeviceRef { id: id.into(), index: 0 }, Mib(0));
    let gpus = Grant::of(&Ask::Whole { count: 2, memory: None }, ["g0", "index-0"].map(whole)).unwrap();
    let two = Held::Plan(Plan { grants: vec![request("200", "0").containers[0].granted(gpus)] });
    let mut node = NodeLedger::new(&listed(["g0", "g1"]));
    observe(&mut node, "a", "200", "0", two);
    assert_eq!(assume(&mut node, "b", "1", "1"), Err(Unfit::Compute));
    let (a, b) = ("a".into(), "b".into());
    assert_eq!(Trial::without(&node, &[&a]).node().free(), (2000, 2 * 15_360), "all of it leaves with the pod");
    let mut trial = Trial::without(&node, &[&b, &a]);
    trial.set(1, false);
    assert_eq!(trial.node().free(), (0, 0));
}

#[test]
fn an_unreadable_record_takes_its_amount_of_every_card() {
    let mut node = node(2);
    observe(&mut node, "a", "60", "10", Held::Unreadable);
    assert_eq!(used(&node), [(600, 2560), (600, 2560)]);
    assert_eq!(assume(&mut node, "b", "50", "10"), Err(Unfit::Compute));
    assert!(assume(&mut node, "c", "40", "10").is_ok());
    observe(&mut node, "d", "100", "0", Held::Unreadable);
    assert_eq!(assume(&mut node, "e", "1", "1"), Err(Unfit::Compute));
}

#[test]
fn a_pod_whose_amounts_cannot_be_read_takes_every_card() {
    let mut node = node(2);
    let raw =
        RawContainer { name: "main", kind: ContainerKind::App, core: Some("0.5"), memory: None, counted: &[] };
    let request = Arc::new(GpuRequest::of_bound([raw], RawAnnotations::default()).unwrap());
    node.observe(&PodRequest::new(&"a".into(), &PodRef::new("ns", "a"), &request), Held::Unreadable, true, 1);
    assert_eq!(used(&node), [(1000, 15_360), (1000, 15_360)]);
    assert!(!node.cards().iter().any(Card::overcommitted));
    assert_eq!(assume(&mut node, "b", "1", "1"), Err(Unfit::Compute));
}

#[test]
fn an_edited_annotation_is_no_other_record() {
    let mut node = node(2);
    observe(&mut node, "a", "60", "10", on(1, 60, 10));
    let mut edited = GpuRequest::clone(&request("60", "10"));
    edited.policy = Some(Policy::Spread);
    let pod = PodRef::new("ns", "a");
    let seen = node.observe(&PodRequest::new(&"a".into(), &pod, &Arc::new(edited)), on(1, 60, 10), true, 1);
    assert_eq!((seen, used(&node)), (Seen::Same, vec![(0, 0), (600, 2560)]));
}

#[test]
fn cards_that_vanish_keep_their_pods_and_return_with_them() {
    let mut node = node(2);
    assume(&mut node, "a", "200", "0").unwrap();
    node.set_inventory(&Inventory::from_capacity(100, 60));
    assert_eq!(node.cards().len(), 1);
    node.close(Unfit::UnreadableInventory);
    assert_eq!(assume(&mut node, "b", "1", "1"), Err(Unfit::UnreadableInventory));
    assert_eq!((used(&node), node.free()), (vec![(1000, 15_360)], (0, 0)), "what its pods hold is counted on");
    node.forget_node();
    assert_eq!(assume(&mut node, "b", "1", "1"), Err(Unfit::UnknownNode));
    node.set_inventory(&Inventory::from_capacity(300, 180));
    let plan = assume(&mut node, "b", "1", "1").unwrap();
    assert_eq!(card_of(&plan), 2);
}

/// Two cards, the given ones unhealthy, and a third that is never used.
fn with_ill(ill: &[u32]) -> Inventory {
    let device = |index| {
        let mut device = crate::device::Device::new(format!("g{index}"), index, Mib(15_360));
        if ill.contains(&index) {
            device.health = crate::device::Health::Unhealthy;
        }
        device
    };
    Inventory::new((0..2).map(device).collect())
}

fn card_of(plan: &Plan) -> u32 {
    plan.grants[0].gpus.devices().next().unwrap().index
}

#[test]
fn a_repeated_assume_leaves_a_card_that_takes_it_no_more() {
    let mut node = NodeLedger::new(&with_ill(&[]));
    let first = assume(&mut node, "a", "60", "10").unwrap();
    node.set_inventory(&with_ill(&[0]));
    let second = assume(&mut node, "a", "60", "10").unwrap();
    assert_eq!((card_of(&first), card_of(&second)), (0, 1));
    assert_eq!(used(&node), [(600, 2560), (600, 2560)], "either write may have been carried out");
    assert_eq!(assume(&mut node, "a", "60", "10"), Ok(second.clone()), "the new cards are in order");
    // the card recovers; what may be on it still counts
    node.set_inventory(&with_ill(&[]));
    assert_eq!(assume(&mut node, "b", "60", "10"), Err(Unfit::Compute));
    let mut earlier = node.clone();
    let mut accepted = node.clone();
    assert_eq!(observe(&mut node, "a", "60", "10", Held::Plan(second)), Seen::AsPlanned);
    assert_eq!(used(&node), [(0, 0), (600, 2560)]);
    assert_eq!(observe(&mut earlier, "a", "60", "10", Held::Plan(first)), Seen::Drift);
    assert_eq!(used(&earlier), [(600, 2560), (0, 0)], "no exchange: nothing is in transit");
    accepted.bound(&"a".into(), 1);
    assert_eq!(used(&accepted), [(0, 0), (600, 2560)]);
}

#[test]
fn a_repeated_assume_without_another_card_changes_nothing() {
    let mut node = NodeLedger::new(&with_ill(&[]));
    let plan = assume(&mut node, "a", "200", "0").unwrap();
    node.set_inventory(&with_ill(&[1]));
    assert_eq!(assume(&mut node, "a", "200", "0"), Err(Unfit::Cards));
    assert_eq!(node.commitments()["a"].held, Held::Plan(plan.clone()));
    node.set_inventory(&with_ill(&[]));
    assert_eq!(assume(&mut node, "a", "200", "0"), Ok(plan));
    node.close(Unfit::LostInventory);
    assert_eq!(assume(&mut node, "a", "200", "0"), Err(Unfit::LostInventory));
}

#[test]
fn an_overcommitted_card_is_left_as_well() {
    let mut node = node(2);
    let first = assume(&mut node, "a", "60", "10").unwrap();
    observe(&mut node, "b", "60", "10", on(card_of(&first), 60, 10));
    let second = assume(&mut node, "a", "60", "10").unwrap();
    assert_ne!(card_of(&first), card_of(&second));
}

#[test]
fn a_pod_that_is_bound_keeps_its_ill_card() {
    let mut node = NodeLedger::new(&with_ill(&[]));
    let plan = assume(&mut node, "a", "60", "10").unwrap();
    node.bound(&"a".into(), 1);
    node.set_inventory(&with_ill(&[0]));
    assert_eq!(assume(&mut node, "a", "60", "10"), Ok(plan));
}

#[test]
fn tries_do_not_extend_a_hold_for_ever() {
    let mut node = node(1);
    let pod = PodRef::new("ns", "a");
    let mut now = NOW;
    for _ in 0..100 {
        let (planner, request) = (&mut Planner::default(), request("60", "10"));
        let asked = planner.assume(
            &mut node,
            &PodRequest::new(&"a".into(), &pod, &request),
            Policy::Binpack,
            now.plus(15_000),
            1,
        );
        assert!(asked.is_ok());
        now = now.plus(1_000);
    }
    assert_eq!(node.overdue(NOW.plus(15_000 + LONGEST_RETRY_MS - 1)), []);
    assert_eq!(node.overdue(NOW.plus(15_000 + LONGEST_RETRY_MS)).len(), 1);
    assert!(node.expire(&"a".into(), now));
}
