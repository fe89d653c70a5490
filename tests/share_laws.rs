//! Laws of counted shares, for every node that offers them, every pod and every policy.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "laws/arrangement.rs"]
mod arrangement;
#[path = "laws/world.rs"]
mod world;

use std::collections::BTreeMap;

use kerf::device::{Device, Health};
use kerf::ids::DeviceId;
use kerf::ledger::{Held, NodeLedger};
use kerf::placement::Planner;
use kerf::plan::{CountedDevice, Grant, Plan, Taken};
use kerf::policy::Policy;
use kerf::request::{Ask, ContainerKind, GpuRequest, PodRequest};
use kerf::shares::{Arrangement, Counted, PerCard};
use kerf::unfit::Unfit;
use kerf::units::Milli;
use proptest::collection::vec;
use proptest::prelude::*;
use world::{assume, config, filled, policy};

const NAMES: [&str; 2] = ["a.example/gpu", "b.example/gpu"];

/// Cards, most offered as shares of one resource, some of both, some of none.
fn devices(most: usize) -> impl Strategy<Value = Vec<Device>> {
    let shares = prop::sample::select(vec![1u32, 2, 3, 7, 10, 100]);
    let offers = (prop::bool::weighted(0.8), prop::bool::weighted(0.3), shares.clone(), shares);
    (world::devices(most), vec(offers, most)).prop_map(|(mut devices, offers)| {
        for (device, (one, other, first, second)) in devices.iter_mut().zip(offers) {
            let named = [(one, NAMES[0], first), (other, NAMES[1], second)];
            let offered = named.into_iter().filter(|(offered, ..)| *offered);
            device.offers = offered.map(|(_, name, n)| (name.into(), PerCard::new(n).unwrap())).collect();
        }
        devices
    })
}

fn counted() -> impl Strategy<Value = Ask> {
    (prop::sample::select(vec![NAMES[0], NAMES[0], NAMES[1]]), 1..=12u32)
        .prop_map(|(resource, count)| Ask::Counted(Counted { resource: resource.into(), count }))
}

fn arrangement() -> impl Strategy<Value = Arrangement> {
    prop::sample::select(vec![Arrangement::Any, Arrangement::SameCard, Arrangement::DifferentCards])
}

/// Pods with counted shares among pods of all sorts.
fn any_request() -> impl Strategy<Value = GpuRequest> {
    let mixed = vec((world::kind(), prop_oneof![2 => counted(), 1 => world::ask()]), 1..=4);
    prop_oneof![2 => one_resource(), 1 => world::any_request(), 1 => mixed.prop_map(world::request)]
}

/// Pods with shares of one resource in each container.
fn one_resource() -> impl Strategy<Value = GpuRequest> {
    let containers = vec((world::kind(), 1..=6u32), 1..=3);
    (prop::sample::select(NAMES.to_vec()), containers, arrangement()).prop_map(|(name, containers, arrangement)| {
        let ask = |count| Ask::Counted(Counted { resource: name.into(), count });
        let containers = containers.into_iter().map(|(kind, count)| (kind, ask(count))).collect();
        GpuRequest { arrangement, ..world::request(containers) }
    })
}

/// A few containers, at least one of them with counted shares, in any valid arrangement.
fn mixed_request() -> impl Strategy<Value = GpuRequest> {
    let few = (prop::sample::select(NAMES.to_vec()), 1..=4u32)
        .prop_map(|(name, count)| Ask::Counted(Counted { resource: name.into(), count }));
    let few = few.boxed();
    let others = vec((world::kind(), prop_oneof![1 => few.clone(), 1 => world::ask()]), 1..=3);
    (world::kind(), few, others, arrangement()).prop_map(|(kind, ask, others, arrangement)| {
        let request = world::request([vec![(kind, ask)], others].concat());
        let names = |request: &GpuRequest| {
            request
                .counted()
                .map(|(_, counted)| counted.resource.clone())
                .collect::<std::collections::BTreeSet<_>>()
        };
        // a pod with shares of two resources cannot have them on the same card
        let one = arrangement != Arrangement::SameCard || names(&request).len() == 1;
        GpuRequest { arrangement: if one { arrangement } else { Arrangement::Any }, ..request }
    })
}

fn any_node(most: usize) -> impl Strategy<Value = (Vec<Device>, Vec<(GpuRequest, Policy)>)> {
    (devices(most), vec((any_request(), policy()), 0..10))
}

fn plan(node: &NodeLedger, request: &GpuRequest, policy: Policy) -> Result<Plan, Unfit> {
    Planner::default().plan(node, request, policy)
}

/// By the rule of Kubernetes: the most shares that the pod holds at any time.
fn most(request: &GpuRequest) -> u32 {
    let (mut sidecars, mut lasting, mut peak) = (0, 0, 0);
    for (container, counted) in request.counted() {
        match container.kind {
            ContainerKind::Init => peak = peak.max(sidecars + counted.count),
            ContainerKind::Sidecar => (sidecars, lasting) = (sidecars + counted.count, lasting + counted.count),
            ContainerKind::App => lasting += counted.count,
        }
    }
    peak.max(lasting)
}

/// The counted shares of a container.
fn by_count(grant: &Grant) -> &[CountedDevice] {
    match grant {
        Grant::Counted { devices, .. } => devices,
        Grant::Share { .. } | Grant::Whole(_) => &[],
    }
}

/// The most shares of each card that the plan's containers hold at the same time.
fn beside(plan: &Plan) -> BTreeMap<&DeviceId, u32> {
    let mut most = BTreeMap::new();
    for grant in &plan.grants {
        for one in by_count(&grant.gpus) {
            let others = plan.grants.iter().filter(|other| match (grant.kind, other.kind) {
                (ContainerKind::Init, ContainerKind::Sidecar) => other.position < grant.position,
                (ContainerKind::Init, _) | (_, ContainerKind::Init) => other.container == grant.container,
                _ => true,
            });
            let own =
                others.flat_map(|other| by_count(&other.gpus)).filter(|other| other.device.id == one.device.id);
            let count: u32 = own.map(|other| other.count).sum();
            let entry = most.entry(&one.device.id).or_default();
            *entry = count.max(*entry);
        }
    }
    most
}

proptest! {
    #![proptest_config(config(2))]

    #[test]
    fn a_card_has_shares_by_count_or_anything_else_and_never_more_than_there_are((devices, before) in any_node(5)) {
        let node = filled(devices, &before);
        for card in node.cards() {
            prop_assert!(!card.overcommitted(), "{:?}", card);
            let holds = node.commitments().values().flat_map(|known| match &known.held {
                Held::Plan(plan) => plan.holds(),
                Held::Unreadable => vec![],
            });
            let here: Vec<_> = holds.filter(|hold| hold.device.id == card.device().id).collect();
            let counts = here.iter().filter_map(|hold| match &hold.taken {
                Taken::Counted(counted, _) => Some(counted),
                Taken::Part(_) | Taken::Whole(_) => None,
            });
            let counts: Vec<&Counted> = counts.collect();
            prop_assert!(counts.is_empty() || counts.len() == here.len(), "both forms: {:?}", here);
            for (name, shares) in &card.device().offers {
                let of_it: u32 = counts.iter().filter(|c| c.resource == *name).map(|c| c.count).sum();
                prop_assert!(of_it <= shares.get(), "{} of {}", of_it, shares.get());
                // once one is taken, no memory is left for others
                prop_assert!(counts.is_empty() || card.free().memory.0 == 0);
                // the only resource on a card: exactly the rest is free
                let alone = counts.iter().all(|c| c.resource == *name);
                let open = card.device().usable() && counts.len() == here.len();
                prop_assert!(!alone || !open || card.free_shares(name.as_str()) == shares.get() - of_it);
            }
            let compute: u32 = counts.iter().map(|c| card.device().offers[&c.resource].compute().0 * c.count).sum();
            prop_assert!(counts.is_empty() || card.used().compute == Milli(compute));
        }
    }

    #[test]
    fn a_plan_serves_its_request_can_be_reserved_and_says_what_fit_says(
        (devices, before) in any_node(5), request in any_request(), policy in policy(),
    ) {
        let mut node = filled(devices, &before);
        let planned = plan(&node, &request, policy);
        prop_assert_eq!(Planner::default().fit(&node, &request, policy).err(), planned.as_ref().err().copied());
        prop_assert_eq!(planned.clone().ok(), assume(&mut node, "new", &request, policy));
        if let Ok(plan) = planned {
            prop_assert!(plan.serves(&request), "{:?}", plan);
            for grant in &plan.grants {
                let Grant::Counted { resource, devices } = &grant.gpus else { continue };
                for one in devices {
                    let card = node.cards().iter().find(|card| card.device().id == one.device.id).unwrap();
                    prop_assert_eq!(one.compute, card.device().offers[resource].compute_of(one.count));
                }
            }
        }
    }

    #[test]
    fn shares_lie_where_the_pod_wants_them(
        (devices, before) in any_node(6), request in one_resource(), policy in policy(),
    ) {
        let Ok(plan) = plan(&filled(devices, &before), &request, policy) else { return Ok(()) };
        let cards = beside(&plan);
        match request.arrangement {
            Arrangement::SameCard => prop_assert_eq!(cards.len(), 1),
            Arrangement::DifferentCards => prop_assert!(cards.values().all(|count| *count == 1), "{:?}", cards),
            Arrangement::Any => {}
        }
    }

    /// A pod of one container fits where enough shares are free in its arrangement.
    #[test]
    fn a_container_fits_where_there_are_as_many_shares_as_it_wants(
        (devices, before) in any_node(6), count in 1..=14u32, arrangement in arrangement(), policy in policy(),
    ) {
        let node = filled(devices, &before);
        let ask = Ask::Counted(Counted { resource: NAMES[0].into(), count });
        let request = GpuRequest { arrangement, ..world::single(ask) };
        let free: Vec<u32> = node.cards().iter().map(|card| card.free_shares(NAMES[0])).collect();
        let all: Vec<u32> =
            node.cards().iter().filter_map(|card| Some(card.device().offers.get(NAMES[0])?.get())).collect();
        let most = |shares: &[u32]| match arrangement {
            Arrangement::Any => shares.iter().sum(),
            Arrangement::SameCard => shares.iter().copied().max().unwrap_or_default(),
            Arrangement::DifferentCards => u32::try_from(shares.iter().filter(|n| **n > 0).count()).unwrap(),
        };
        let found = plan(&node, &request, policy);
        prop_assert_eq!(found.is_ok(), most(&free) >= count, "{:?} of {:?}: {:?}", count, free, found);
        if let Err(why) = found {
            let healthy = node.cards().iter().any(|card| {
                card.device().offers.contains_key(NAMES[0]) && card.device().health == Health::Healthy
            });
            let expected = if all.is_empty() {
                Unfit::NotOffered
            } else if most(&all) < count {
                Unfit::TooFewShares
            } else if !healthy {
                Unfit::NoHealthyCard
            } else if free.iter().sum::<u32>() >= count {
                Unfit::Arrangement
            } else {
                Unfit::Shares
            };
            prop_assert_eq!(why, expected);
        }
        // all on one card where one has room
        if let Ok(plan) = plan(&node, &request, policy)
            && arrangement == Arrangement::Any && free.iter().any(|free| *free >= count)
        {
            prop_assert_eq!(plan.grants[0].gpus.devices().count(), 1);
        }
    }

    /// Counted shares beside parts of cards and whole cards, in any arrangement.
    #[test]
    fn mixed_containers_fit_where_any_arrangement_of_them_does(
        (devices, before) in (devices(4), vec((any_request(), policy()), 0..5)),
        request in mixed_request(), policy in policy(),
    ) {
        let node = filled(devices, &before);
        let found = plan(&node, &request, policy);
        prop_assert_eq!(found.is_ok(), arrangement::exists(&node, &request), "{:?}", found);
        prop_assert_eq!(Planner::default().fit(&node, &request, policy).err(), found.as_ref().err().copied());
        if let Ok(plan) = found {
            prop_assert!(arrangement::is_one(&node, &request, &plan), "{:?}", plan);
        }
    }

    /// On a node that offers one resource, without an arrangement, several containers fit where Kubernetes' sum does.
    #[test]
    fn several_containers_fit_where_their_sum_does(
        devices in devices(4), before in vec((one_resource(), policy()), 0..6),
        request in one_resource(), policy in policy(),
    ) {
        let only = |mut device: Device| {
            device.offers.remove(NAMES[1]);
            device
        };
        let node = filled(devices.into_iter().map(only).collect(), &before);
        let mut request = GpuRequest { arrangement: Arrangement::Any, ..request };
        for container in &mut request.containers {
            if let Ask::Counted(counted) = &mut container.ask {
                counted.resource = NAMES[0].into();
            }
        }
        let free: u32 = node.cards().iter().map(|card| card.free_shares(NAMES[0])).sum();
        prop_assert_eq!(plan(&node, &request, policy).is_ok(), free >= most(&request));
    }

    #[test]
    fn a_pod_without_a_record_takes_its_shares_of_every_card_that_offers_them_and_of_no_other(
        devices in devices(5), count in 1..=12u32,
    ) {
        let mut node = filled(devices, &[]);
        let request = world::single(Ask::Counted(Counted { resource: NAMES[0].into(), count }));
        let pod = kerf::ids::PodRef::new("ns", "p");
        node.observe(&PodRequest::new(&"p".into(), &pod, &request.into()), Held::Unreadable, true, 1);
        for card in node.cards() {
            let taken = card.device().offers.get(NAMES[0]).map_or(Milli(0), |shares| shares.compute_of(count));
            prop_assert_eq!(card.used().compute, taken);
            prop_assert!(!card.overcommitted());
        }
        let known = &node.commitments()[&kerf::ids::PodUid::from("p")];
        let offered = node.cards().iter().any(|card| card.device().offers.contains_key(NAMES[0]));
        prop_assert_eq!(node.concerns(known), offered);
    }
}

/// Deepomatic's case: two cards of 100 shares, four pods of two shares each.
#[test]
fn four_pods_of_two_shares_are_packed_or_spread_by_the_policy() {
    let resource = "deepomatic.com/shared-gpu";
    let cards = || {
        let card = |index: u32| {
            let mut device = Device::new(format!("gpu-{index}"), index, kerf::units::Mib(16_384));
            device.offers.insert(resource.into(), PerCard::new(100).unwrap());
            device
        };
        vec![card(0), card(1)]
    };
    let pod = world::single(Ask::Counted(Counted { resource: resource.into(), count: 2 }));
    for policy in Policy::ALL {
        let mut node = filled(cards(), &[]);
        let on: Vec<u32> = (0..4)
            .map(|number| {
                let plan = assume(&mut node, &format!("p{number}"), &pod, policy).unwrap();
                let [both] = by_count(&plan.grants[0].gpus) else { panic!("both on one card: {plan}") };
                assert_eq!(both.count, 2);
                both.device.index
            })
            .collect();
        let expected = if policy == Policy::Spread { [0, 1, 0, 1] } else { [0; 4] };
        assert_eq!(on, expected, "{policy}");
    }
}

/// The node's offer decides the size of a share, not a record.
#[test]
fn a_record_cannot_make_shares_smaller_than_they_are() {
    let mut device = Device::new("gpu-0", 0, kerf::units::Mib(16_384));
    device.offers.insert(NAMES[0].into(), PerCard::new(10).unwrap());
    let mut node = filled(vec![device], &[]);
    let request = world::single(Ask::Counted(Counted { resource: NAMES[0].into(), count: 5 }));
    let mut claimed = plan(&node, &request, Policy::Binpack).unwrap();
    let Grant::Counted { devices, .. } = &mut claimed.grants[0].gpus else { panic!("{claimed}") };
    devices[0].compute = Milli(5);
    assert!(claimed.serves(&request), "it cannot be seen from the request alone");
    let pod = kerf::ids::PodRef::new("ns", "p");
    node.observe(&PodRequest::new(&"p".into(), &pod, &request.into()), Held::Plan(claimed), true, 1);
    assert_eq!(node.cards()[0].used().compute, Milli(500));
}
