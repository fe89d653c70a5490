//! Laws that hold for every node and every request, independent of the planner's choice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "laws/arrangement.rs"]
mod arrangement;
#[path = "laws/world.rs"]
mod world;

use std::sync::Arc;

use kerf::device::Device;
use kerf::device::Inventory;
use kerf::ids::{DeviceId, PodRef, PodUid};
use kerf::isolation::Isolation;
use kerf::ledger::{Card, Held, NodeLedger, Trial};
use kerf::placement::{Planner, rank, scores};
use kerf::plan::{Grant, Plan, Taken};
use kerf::policy::Policy;
use kerf::request::{Ask, ContainerKind, GpuRequest, PodRequest};
use kerf::unfit::Unfit;
use kerf::units::{Mib, Share};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use world::{
    any_node, any_request, ask, assume, config, filled, kind, linked_devices, observed, policy, share, single,
};

fn plan(node: &NodeLedger, request: &GpuRequest, policy: Policy) -> Result<Plan, Unfit> {
    Planner::default().plan(node, request, policy)
}

/// The pods in the order of their uids.
const IN_ORDER: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

fn with_new(devices: Vec<Device>, index: u32, memory: Mib) -> Vec<Device> {
    devices.into_iter().chain([Device::new("new", index, memory)]).collect()
}

fn the_card(plan: &Plan, container: usize) -> DeviceId {
    plan.grants[container].gpus.ids().next().unwrap().clone()
}

/// By the rule of Kubernetes, without cards: (compute in thousandths, memory of shares in MiB).
fn aggregate(request: &GpuRequest) -> (u64, u64) {
    let (mut sidecars, mut peak, mut lasting) = ((0, 0), (0, 0), (0, 0));
    let add = |a: (u64, u64), b: (u64, u64)| (a.0 + b.0, a.1 + b.1);
    let max = |a: (u64, u64), b: (u64, u64)| (a.0.max(b.0), a.1.max(b.1));
    for container in &request.containers {
        let amount = match container.ask {
            Ask::Share(share) => (u64::from(share.compute.0), share.memory.0),
            Ask::Whole { count, .. } => (u64::from(count) * 1000, 0),
            Ask::Counted(_) => unreachable!("see the laws of shares"),
        };
        match container.kind {
            ContainerKind::Init => peak = max(peak, add(sidecars, amount)),
            ContainerKind::Sidecar => {
                sidecars = add(sidecars, amount);
                lasting = add(lasting, amount);
            }
            ContainerKind::App => lasting = add(lasting, amount),
        }
    }
    max(peak, lasting)
}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn a_plan_can_be_reserved_as_planned_and_serves_its_request(
        (devices, before) in any_node(6), request in any_request(), policy in policy(),
    ) {
        let mut node = filled(devices, &before);
        let planned = plan(&node, &request, policy);
        prop_assert_eq!(Planner::default().fit(&node, &request, policy).err(), planned.as_ref().err().copied());
        let reserved = assume(&mut node, "new", &request, policy);
        prop_assert_eq!(planned.as_ref().ok(), reserved.as_ref());
        if let Some(plan) = reserved {
            prop_assert!(plan.serves(&request), "{:?}", plan);
        }
    }

    #[test]
    fn a_planner_carries_nothing_from_one_plan_to_the_next(
        (devices, before) in any_node(6), requests in vec((any_request(), policy()), 1..5),
    ) {
        let node = filled(devices, &before);
        let mut reused = Planner::default();
        for (request, policy) in requests {
            prop_assert_eq!(reused.plan(&node, &request, policy), plan(&node, &request, policy));
        }
    }

    #[test]
    fn no_sequence_of_reservations_overcommits_or_shares_a_whole_card((devices, before) in any_node(6)) {
        let node = filled(devices, &before);
        for card in node.cards() {
            prop_assert!(!card.overcommitted(), "{:?}", card);
            let holders: Vec<bool> = node
                .commitments()
                .values()
                .filter_map(|known| match &known.held {
                    Held::Plan(plan) => plan.holds().into_iter().find(|hold| hold.device.id == card.device().id),
                    Held::Unreadable => None,
                })
                .map(|hold| matches!(hold.taken, Taken::Whole(_)))
                .collect();
            prop_assert_eq!(u32::try_from(holders.len()).unwrap(), card.pods());
            prop_assert!(holders.len() == 1 || !holders.contains(&true), "{:?}", card);
            prop_assert!(holders.is_empty() || card.device().usable(), "an ill card took a pod: {:?}", card);
        }
    }

    #[test]
    fn a_whole_card_serves_one_container_at_a_time(
        (devices, before) in any_node(6), request in any_request(), policy in policy(),
    ) {
        let Ok(plan) = plan(&filled(devices, &before), &request, policy) else { return Ok(()) };
        let lasting = || plan.grants.iter().filter(|grant| grant.kind != ContainerKind::Init);
        for grant in lasting().filter(|grant| grant.gpus.is_whole()) {
            let others = || lasting().filter(|other| other.container != grant.container);
            let shared = grant.gpus.ids().find(|id| others().any(|other| other.gpus.ids().any(|x| x == *id)));
            prop_assert_eq!(shared, None);
        }
    }

    #[test]
    fn reserving_and_forgetting_changes_nothing(
        (devices, before) in any_node(6), request in any_request(), policy in policy(),
    ) {
        let mut node = filled(devices, &before);
        let (cards, commitments) = (node.cards().to_vec(), node.commitments().clone());
        let reserved = assume(&mut node, "new", &request, policy).is_some();
        prop_assert_eq!(node.forget(&"new".into()), reserved);
        prop_assert_eq!((node.cards(), node.commitments()), (cards.as_slice(), &commitments));
    }

    /// Pods that leave and come back in a trial change the cards as real ones do.
    #[test]
    fn a_trial_counts_as_the_ledger_does(
        (devices, before) in any_node(6), steps in vec((any::<Index>(), any::<bool>()), 0..12),
        stranger in prop::option::of(share()),
    ) {
        let mut node = filled(devices, &before);
        if let Some(share) = stranger {
            let (pod, request) = (PodRef::new("ns", "s"), Arc::new(single(Ask::Share(share))));
            node.observe(&PodRequest::new(&"s".into(), &pod, &request), Held::Unreadable, true, 1);
        }
        let uids: Vec<PodUid> = node.commitments().keys().cloned().collect();
        let mut trial = Trial::without(&node, &uids.iter().collect::<Vec<_>>());
        let mut here = vec![false; uids.len()];
        for (which, comes) in steps.iter().filter(|_| !uids.is_empty()) {
            let place = which.index(uids.len());
            trial.set(place, !comes);
            here[place] = *comes;
            let mut real = node.clone();
            uids.iter().zip(&here).filter(|(_, here)| !**here).for_each(|(uid, _)| {
                real.release(uid);
            });
            prop_assert_eq!(trial.node().rooms(), real.rooms());
            prop_assert_eq!(trial.node().cards(), real.cards());
            prop_assert_eq!((trial.node().free(), trial.node().roomiest()), (real.free(), real.roomiest()));
        }
    }

    #[test]
    fn a_plan_does_not_depend_on_the_order_of_pods_or_devices(
        (devices, before) in any_node(6),
        request in any_request(),
        policy in policy(),
        order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(),
        swaps in vec((any::<Index>(), any::<Index>()), 0..6),
    ) {
        let mut shuffled = devices.clone();
        swaps.iter().for_each(|(a, b)| shuffled.swap(a.index(devices.len()), b.index(devices.len())));
        let node = filled(devices, &before);
        let copy = observed(&node, &order, shuffled);
        prop_assert_eq!(copy.cards(), node.cards());
        prop_assert_eq!(plan(&copy, &request, policy), plan(&node, &request, policy));
        prop_assert_eq!(rank(&copy, policy), rank(&node, policy));
    }

    #[test]
    fn one_more_untouched_card_never_makes_a_pod_unfit(
        (devices, before) in any_node(6), request in any_request(), policy in policy(),
        (index, units) in (0..9u32, prop::sample::select(vec![1u64, 16, 40, 80])),
    ) {
        let node = filled(devices.clone(), &before);
        let more = observed(&node, &IN_ORDER, with_new(devices, index, Mib(units * 256)));
        prop_assert!(plan(&node, &request, policy).is_err() || plan(&more, &request, policy).is_ok());
    }

    #[test]
    fn a_pod_takes_what_kubernetes_counts_and_more_only_where_its_phases_are_on_several_cards(
        (devices, before) in any_node(6), request in any_request(), policy in policy(),
    ) {
        let Ok(plan) = plan(&filled(devices, &before), &request, policy) else { return Ok(()) };
        let holds = plan.holds();
        let total = holds.iter().fold((0, 0), |(compute, memory), hold| {
            (compute + u64::from(hold.taken.share().compute.0), memory + hold.taken.share().memory.0)
        });
        let counted = aggregate(&request);
        let phases = request.containers.iter().any(|c| c.kind == ContainerKind::Init) && holds.len() > 1;
        let shares = request.containers.iter().all(|c| matches!(c.ask, Ask::Share(_)));
        prop_assert!(total.0 >= counted.0 && total.1 >= counted.1);
        prop_assert!(phases || total.0 == counted.0);
        // a whole card has all its memory, also where less was asked for
        prop_assert!(phases || !shares || total.1 == counted.1);
    }

    #[test]
    fn an_init_container_shares_the_card_of_its_app_where_either_fits(
        (devices, before) in any_node(6), init in ask(), app in share(), policy in policy(),
    ) {
        let init = match init {
            Ask::Whole { memory, .. } => Ask::Whole { count: 1, memory },
            share => share,
        };
        let node = filled(devices, &before);
        let request =
            world::request(vec![(ContainerKind::Init, init.clone()), (ContainerKind::App, Ask::Share(app))]);
        let Ok(plan) = plan(&node, &request, policy) else { return Ok(()) };
        let (its, apps) = (the_card(&plan, 0), the_card(&plan, 1));
        if its != apps {
            let card = |id: &DeviceId| node.cards().iter().find(|card| card.device().id == *id).unwrap();
            let init_fits = match init {
                Ask::Share(share) => share.fits_in(card(&apps).free()),
                Ask::Whole { memory, .. } => {
                    card(&apps).untouched() && memory.is_none_or(|memory| memory <= card(&apps).device().memory)
                }
                Ask::Counted(_) => unreachable!("see the laws of shares"),
            };
            prop_assert!(!init_fits, "the init container fits where the app is");
            prop_assert!(!app.fits_in(card(&its).free()), "the app fits where the init container was");
        }
    }

    #[test]
    fn a_share_goes_to_the_fullest_card_by_binpack_and_to_the_emptiest_by_spread(
        (devices, before) in any_node(8), share in share(),
    ) {
        let node = filled(devices, &before);
        let fitting = || node.cards().iter().filter(|card| share.fits_in(card.free()));
        let key = |card: &&Card| (card.free().compute, card.free().memory);
        // ties go to the first: min_by_key takes the first, max_by_key the last
        let fullest = fitting().min_by_key(key);
        let emptiest = fitting().rev().max_by_key(key);
        let found = |policy| plan(&node, &single(Ask::Share(share)), policy).ok().map(|plan| the_card(&plan, 0));
        prop_assert_eq!(found(Policy::Binpack), fullest.map(|card| card.device().id.clone()));
        prop_assert_eq!(found(Policy::Spread), emptiest.map(|card| card.device().id.clone()));
    }

    #[test]
    fn a_container_fits_where_a_card_has_room(
        (devices, before) in any_node(8), ask in ask(), policy in policy(),
    ) {
        let node = filled(devices, &before);
        let expected = match ask {
            Ask::Share(share) => node.cards().iter().any(|card| share.fits_in(card.free())),
            Ask::Counted(_) => unreachable!("see the laws of shares"),
            Ask::Whole { count, memory } => {
                let untouched = node.cards().iter().filter(|card| card.untouched());
                let mut sizes: Vec<u64> = untouched.map(|card| card.device().memory.0).collect();
                sizes.sort_unstable_by(|a, b| b.cmp(a));
                let most: u64 = sizes.iter().take(count as usize).sum();
                sizes.len() >= count as usize && memory.is_none_or(|memory| memory.0 <= most)
            }
        };
        prop_assert_eq!(plan(&node, &single(ask), policy).is_ok(), expected);
    }

    #[test]
    fn whole_cards_have_the_memory_that_was_named(
        (devices, before) in any_node(8), count in 1..4u32, units in 1..120u64,
    ) {
        let ask = Ask::Whole { count, memory: Some(Mib(units * 256)) };
        let Ok(plan) = plan(&filled(devices, &before), &single(ask), Policy::Binpack) else { return Ok(()) };
        let Grant::Whole(devices) = &plan.grants[0].gpus else { panic!("whole cards: {plan}") };
        prop_assert!(devices.iter().map(|one| one.memory.0).sum::<u64>() >= units * 256);
        prop_assert!(devices.is_sorted_by_key(|one| one.device.index));
    }

    #[test]
    fn scores_name_one_best_node_and_never_invert_the_order(
        nodes in vec(any_node(3), 1..12), policy in policy(),
    ) {
        let ledgers: Vec<NodeLedger> = nodes.into_iter().map(|(cards, before)| filled(cards, &before)).collect();
        let ranked: Vec<_> = ledgers.iter().enumerate().map(|(name, node)| (rank(node, policy), name)).collect();
        let scores = scores(&mut ranked.clone());
        prop_assert_eq!(scores.len(), ranked.len());
        prop_assert_eq!(scores.iter().filter(|(_, score)| *score == 10).count(), 1);
        for (a, score_a) in &scores {
            for (b, score_b) in &scores {
                prop_assert!(score_a <= score_b || ranked[*a] < ranked[*b], "{a} {b}");
            }
        }
    }
}

/// Amounts that often fill a card exactly.
fn tight_ask() -> impl Strategy<Value = Ask> {
    let share =
        (prop::sample::select(vec![200u32, 300, 400, 500, 600, 700]), prop::sample::select(vec![4u64, 8, 12, 20]))
            .prop_map(|(compute, units)| Ask::Share(Share::new(compute, units * 256)));
    prop_oneof![2 => share, 1 => ask()]
}

fn tight_request(most: usize) -> impl Strategy<Value = GpuRequest> {
    vec((kind(), tight_ask()), 2..=most).prop_map(world::request)
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn several_containers_fit_where_any_arrangement_of_them_does(
        (mut devices, before) in any_node(4), request in tight_request(4), policy in policy(),
        levels in vec(prop::sample::select(vec![Isolation::None, Isolation::Limiter, Isolation::Limiter]), 4),
        demand in prop::option::of(Just(Isolation::Limiter)),
    ) {
        devices.iter_mut().zip(levels).for_each(|(device, level)| device.isolation = level);
        let node = filled(devices, &before);
        let request = GpuRequest { isolation: demand, ..request };
        let found = plan(&node, &request, policy);
        prop_assert_eq!(found.is_ok(), arrangement::exists(&node, &request), "{:?}", found);
        prop_assert_eq!(Planner::default().fit(&node, &request, policy).err(), found.as_ref().err().copied());
        if let Ok(plan) = found {
            prop_assert!(arrangement::is_one(&node, &request, &plan), "{:?}", plan);
        }
    }

    /// Eight containers are cut out of what is free, so they fit, in any order.
    #[test]
    fn whether_containers_fit_does_not_depend_on_their_order(
        cards in vec((prop::sample::select(vec![40u64, 80]), 1..=20u32, 1..=20u64), 2..=16),
        cuts in vec((any::<Index>(), 1..=19u32, 1..=19u64), 7),
        order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(),
        policy in policy(),
    ) {
        let devices = (0..).zip(&cards).map(|(index, (units, ..))| Device::new(format!("gpu-{index}"), index, Mib(units * 256)));
        let mut node = NodeLedger::new(&Inventory::new(devices.collect()));
        let mut free: Vec<(usize, Share)> = Vec::new();
        for (at, (units, compute, memory)) in cards.iter().enumerate() {
            let card = node.cards()[at].device().clone();
            let taken = Share::new(compute * 45, memory * units * 256 / 22);
            let request = single(Ask::Share(taken));
            let alone = plan(&filled(vec![card], &[]), &request, Policy::Binpack).unwrap();
            node.observe(&PodRequest::new(&format!("p{at}").into(), &PodRef::new("ns", "p"), &Arc::new(request)), Held::Plan(alone), true, 1);
            free.push((at, node.cards()[at].free()));
        }
        // the pieces of what is free, each of one card
        for (which, compute, memory) in cuts {
            if free.len() == 8 {
                break;
            }
            let (at, whole) = free.remove(which.index(free.len()));
            let part = Share::new(whole.compute.0 * compute / 20, whole.memory.0 * memory / 20);
            free.push((at, part));
            free.push((at, whole.saturating_sub(part)));
        }
        let pieces: Vec<Share> = free.iter().map(|(_, share)| *share).filter(|share| share.compute.0 > 0 && share.memory.0 > 0).take(8).collect();
        let in_order = |order: &[usize]| {
            let asks = order.iter().filter_map(|at| pieces.get(*at)).map(|share| (ContainerKind::App, Ask::Share(*share)));
            world::request(asks.collect())
        };
        for order in [&IN_ORDER[..], &order] {
            let request = in_order(order);
            let found = plan(&node, &request, policy);
            prop_assert!(found.is_ok(), "{:?} {:?}", request, found);
            prop_assert!(arrangement::is_one(&node, &request, &found.unwrap()));
        }
    }
}

/// Whether a pod fits does not depend on the order of its containers.
#[test]
fn a_small_container_does_not_take_the_room_of_a_large_one() {
    let cards = (0..2).map(|index| Device::new(format!("gpu-{index}"), index, Mib(100 * 256)));
    let mut node = NodeLedger::new(&Inventory::new(cards.collect()));
    let share = |core: u32, units: u64| Ask::Share(Share::new(core * 10, units * 256));
    for (uid, core, units) in [("a", 50, 50), ("b", 40, 80)] {
        assert!(assume(&mut node, uid, &single(share(core, units)), Policy::Spread).is_some());
    }
    for asks in [[share(10, 10), share(50, 50)], [share(50, 50), share(10, 10)]] {
        let request = world::request(asks.into_iter().map(|ask| (ContainerKind::App, ask)).collect());
        for policy in Policy::ALL {
            assert_eq!(plan(&node, &request, policy).map(|plan| plan.grants.len()), Ok(2), "{request:?} {policy}");
        }
    }
}

fn weight(a: &Device, b: &Device) -> u32 {
    let same_socket = a.numa.is_some() && a.numa == b.numa;
    a.links.get(&b.index).map_or(u32::from(same_socket), |link| link.weight())
}

/// (weakest link, all links together) of the cards in `set`.
fn quality(devices: &[&Device]) -> (Option<u32>, u32) {
    let pairs = || devices.iter().enumerate().flat_map(|(i, a)| devices[i + 1..].iter().map(|b| weight(a, b)));
    (pairs().min(), pairs().sum())
}

proptest! {
    #![proptest_config(config(4))]

    #[test]
    fn several_cards_are_as_well_linked_as_any_choice(
        devices in linked_devices(), taken in vec(any::<bool>(), 6), count in 1..=6u32,
    ) {
        let mut node = filled(devices.clone(), &[]);
        let (open, held): (Vec<&Device>, Vec<&Device>) =
            devices.iter().partition(|device| device.index % 2 == 0 || !taken[device.index as usize]);
        let whole = |count| single(Ask::Whole { count, memory: None });
        let (request, pod) = (Arc::new(whole(1)), PodRef::new("ns", "p"));
        for device in held {
            // planned as if the node had only this card
            let alone = plan(&filled(vec![device.clone()], &[]), &request, Policy::Binpack).unwrap();
            node.observe(&PodRequest::new(&device.id.as_str().into(), &pod, &request), Held::Plan(alone), true, 1);
        }
        let subset = |mask: usize| -> Vec<&Device> {
            open.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1).map(|(_, device)| *device).collect()
        };
        let sets = (0..1usize << open.len()).filter(|mask| mask.count_ones() == count).map(subset);
        let best = sets.map(|set| quality(&set)).max();
        let found = plan(&node, &whole(count), Policy::Binpack).ok().map(|plan| {
            let chosen = |device: &&&Device| plan.grants[0].gpus.ids().any(|id| *id == device.id);
            quality(&open.iter().filter(chosen).copied().collect::<Vec<_>>())
        });
        prop_assert_eq!(found, best);
    }

    /// Cards whose isolation is weaker than a share needs are not used for it.
    #[test]
    fn a_demand_for_isolation_is_met_or_refused(
        (mut devices, before) in any_node(6), share in share(), policy in policy(),
        levels in vec(prop::sample::select(Isolation::ALL.to_vec()), 6),
        demand in prop::sample::select(Isolation::ALL.to_vec()),
    ) {
        devices.iter_mut().zip(levels).for_each(|(device, level)| device.isolation = level);
        let mut node = filled(devices.clone(), &before);
        let request = GpuRequest { isolation: Some(demand), ..single(Ask::Share(share)) };
        let found = plan(&node, &request, policy);
        prop_assert_eq!(Planner::default().fit(&node, &request, policy).err(), found.clone().err());
        devices.retain(|device| device.isolation >= demand);
        let none = devices.is_empty();
        node.set_inventory(&Inventory::new(devices));
        let expected = if none { Err(Unfit::Isolation) } else { plan(&node, &single(Ask::Share(share)), policy) };
        prop_assert_eq!(found, expected);
    }
}
