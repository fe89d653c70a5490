//! Arbitrary nodes and requests for the laws of placement.
#![allow(dead_code, reason = "each file of laws uses its part")]

use std::sync::Arc;

use kerf::device::{Device, Health, Inventory, Link};
use kerf::ids::PodRef;
use kerf::ledger::{Held, NodeLedger};
use kerf::placement::Planner;
use kerf::plan::Plan;
use kerf::policy::Policy;
use kerf::request::{Ask, ContainerKind, ContainerRequest, GpuRequest, PodRequest};
use kerf::shares::Arrangement;
use kerf::units::{Mib, Share, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// `times` as many cases as `PROPTEST_CASES` says (256 unless set).
pub fn config(times: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases * times, failure_persistence: None, ..default }
}

pub fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(Policy::ALL.to_vec())
}

pub fn kind() -> impl Strategy<Value = ContainerKind> {
    use ContainerKind::*;
    prop::sample::select(vec![App, App, App, Init, Sidecar])
}

pub fn share() -> impl Strategy<Value = Share> {
    (1..=99u32, 1..=40u64).prop_map(|(core, units)| Share::new(core * 10, units * 256))
}

pub fn ask() -> impl Strategy<Value = Ask> {
    let whole = (1..=3u32, option::of(1..=100u64))
        .prop_map(|(count, units)| Ask::Whole { count, memory: units.map(|units| Mib(units * 256)) });
    prop_oneof![3 => share().prop_map(Ask::Share), 1 => whole]
}

/// A request with these containers, init containers and sidecars first.
pub fn request(mut containers: Vec<(ContainerKind, Ask)>) -> GpuRequest {
    containers.sort_by_key(|(kind, _)| *kind == ContainerKind::App);
    let first_app = containers.iter().filter(|(kind, _)| *kind != ContainerKind::App).count();
    let container = |(at, (kind, ask)): (usize, (ContainerKind, Ask))| ContainerRequest {
        name: format!("c{at}").into(),
        kind,
        position: u32::try_from(if kind == ContainerKind::App { at - first_app } else { at }).unwrap(),
        ask,
    };
    let containers = containers.into_iter().enumerate().map(container).collect();
    GpuRequest {
        containers,
        limit: None,
        policy: None,
        isolation: None,
        arrangement: Arrangement::Any,
        priority: 0,
    }
}

pub fn single(ask: Ask) -> GpuRequest {
    request(vec![(ContainerKind::App, ask)])
}

/// Up to four containers; most pods have one.
pub fn any_request() -> impl Strategy<Value = GpuRequest> {
    prop_oneof![2 => ask().prop_map(single), 3 => vec((kind(), ask()), 1..=4).prop_map(request)]
}

/// Cards of several sizes; one in eight is ill.
pub fn devices(most: usize) -> impl Strategy<Value = Vec<Device>> {
    let card = (prop::sample::select(vec![16u64, 24, 40]), prop::bool::weighted(0.12));
    vec(card, 1..=most).prop_map(|cards| {
        let device = |(index, (units, ill)): (u32, (u64, bool))| {
            let mut device = Device::new(format!("gpu-{index}"), index, Mib(units * 256));
            device.health = if ill { Health::Unhealthy } else { Health::Healthy };
            device
        };
        (0..).zip(cards).map(device).collect()
    })
}

/// Up to six cards with arbitrary links and sockets.
pub fn linked_devices() -> impl Strategy<Value = Vec<Device>> {
    let link = prop::sample::select(vec![
        None,
        Some(Link::System),
        Some(Link::Node),
        Some(Link::HostBridge),
        Some(Link::Switches),
        Some(Link::Switch),
        Some(Link::NvLink(4)),
        Some(Link::NvLink(12)),
    ]);
    (vec(option::of(0..2u32), 2..=6), vec(link, 36)).prop_map(|(sockets, links)| {
        let count = u32::try_from(sockets.len()).unwrap();
        let between = |a: u32, b: u32| links[(a.min(b) * 6 + a.max(b)) as usize];
        let device = |(index, numa): (u32, Option<u32>)| {
            let mut device = Device::new(format!("gpu-{index}"), index, Mib(4096));
            device.numa = numa;
            let peers = (0..count).filter(|peer| *peer != index);
            device.links = peers.filter_map(|peer| Some((peer, between(index, peer)?))).collect();
            device
        };
        (0..).zip(sockets).map(device).collect()
    })
}

/// A node after as many of these requests as fit were reserved, each with its policy.
pub fn filled(devices: Vec<Device>, requests: &[(GpuRequest, Policy)]) -> NodeLedger {
    let mut node = NodeLedger::new(&Inventory::new(devices));
    for (number, (request, policy)) in requests.iter().enumerate() {
        let _ = assume(&mut node, &format!("p{number}"), request, *policy);
    }
    node
}

pub fn assume(node: &mut NodeLedger, uid: &str, request: &GpuRequest, policy: Policy) -> Option<Plan> {
    let (pod, request) = (PodRef::new("ns", uid), Arc::new(request.clone()));
    Planner::default().assume(node, &PodRequest::new(&uid.into(), &pod, &request), policy, Timestamp(1), 1).ok()
}

/// The same pods on the same cards, as a ledger that only saw them bound, in this order.
pub fn observed(node: &NodeLedger, order: &[usize], devices: Vec<Device>) -> NodeLedger {
    let mut copy = NodeLedger::new(&Inventory::new(devices));
    let pods: Vec<_> = node.commitments().iter().collect();
    for (uid, known) in order.iter().filter_map(|at| pods.get(*at)) {
        let Held::Plan(plan) = &known.held else { continue };
        copy.observe(&PodRequest::new(uid, &known.pod, &known.request), Held::Plan(plan.clone()), true, 1);
    }
    copy
}

/// Cards a node may have, and pods that came before.
pub fn any_node(most: usize) -> impl Strategy<Value = (Vec<Device>, Vec<(GpuRequest, Policy)>)> {
    (devices(most), vec((any_request(), policy()), 0..8))
}
