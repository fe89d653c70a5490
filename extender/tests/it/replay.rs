//! A workload through the extender's decisions and through the replay: one placement.

use std::collections::BTreeMap;
use std::sync::Arc;

use kerf::annotation::Record;
use kerf::device::{Device, Inventory};
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s::{Holding, NodeView, PodView};
use kerf::placement::shape::{HostAmount, Shape};
use kerf::placement::survey::Sighting;
use kerf::plan::Placement;
use kerf::policy::Policy;
use kerf::replay::{Arrivals, CardKind, Machine, Pod, Random, Run, Workload};
use kerf::request::{ContainerKind, GpuRequest, PodRequest, RawAnnotations, RawContainer};
use kerf::units::{Mib, Timestamp};
use kerf_extender::cluster::Cluster;

const CARD: Mib = Mib(25_600);

fn machines() -> Vec<Machine> {
    let machine = |n: usize| {
        let (cards, cores) = [(8, 96), (2, 64), (4, 48)][n % 3];
        let card = CardKind { model: "test".into(), memory: CARD };
        let memory = Mib(cores * 8192);
        Machine { name: format!("node-{n:03}").into(), cpu: cores * 1000, memory, cards: vec![card; cards] }
    };
    (0..40).map(machine).collect()
}

/// Shares whose memory is in proportion (100 units on a card) or not, and whole cards.
fn requests() -> Vec<(Arc<GpuRequest>, HostAmount)> {
    let mut random = Random::new(3);
    let request = |random: &mut Random| {
        let core = [5, 11, 23, 32, 47, 55, 65, 81, 81, 100, 100, 200, 400, 800][random.below(14)];
        let memory = if core >= 100 { 0 } else { [core, core, 10, 40][random.below(4)] };
        let (core, memory) = (core.to_string(), memory.to_string());
        let raw = RawContainer {
            name: "main",
            kind: ContainerKind::App,
            core: Some(&core),
            memory: Some(&memory),
            counted: &[],
        };
        let cpu = 1000 * (1 + random.below(12) as u64);
        (
            Arc::new(GpuRequest::parse([raw], RawAnnotations::default()).unwrap().unwrap()),
            HostAmount { cpu, memory: Mib(4096), pods: 1 },
        )
    };
    (0..400).map(|_| request(&mut random)).collect()
}

/// Where the replay puts each pod: node and card indices.
fn replayed(policy: Policy) -> Vec<Option<(String, Vec<u32>)>> {
    let pod = |(number, (request, amount)): (usize, &(Arc<GpuRequest>, HostAmount))| Pod {
        name: format!("p{number}").into(),
        shape: Shape::of(Some(request), amount.cpu, amount.memory),
        stay: None,
    };
    let pods = requests().iter().enumerate().map(pod).collect();
    let workload = Workload { machines: machines(), arrivals: Arrivals::in_order(pods) };
    let placed = Run::new(&workload, policy, None, 0.0).finish().placed;
    let place = |choice: kerf::placement::market::Choice| {
        let slots = choice.slots.iter().map(|at| u32::try_from(*at).unwrap()).collect();
        (workload.machines[choice.host].name.to_string(), slots)
    };
    placed.into_iter().map(|placed| placed.choice.map(place)).collect()
}

/// Where the extender puts each pod, one after the other: watch, ranks, bind, watch.
fn lived(policy: Policy) -> Vec<Option<(String, Vec<u32>)>> {
    let (cluster, clock) = (Cluster::default(), kerf_extender::clock::Clock::default());
    for machine in machines() {
        let name = NodeName::from(&*machine.name);
        let device = |index| Device { model: "test".into(), ..Device::new(format!("{name}-{index}"), index, CARD) };
        let devices = (0..u32::try_from(machine.cards.len()).unwrap()).map(device).collect();
        cluster.apply_node(&NodeView {
            name: name.clone(),
            inventory: Ok(Inventory::new(devices)),
            inferred: false,
        });
        cluster.apply_allocatable(&name, Some(HostAmount { cpu: machine.cpu, memory: machine.memory, pods: 1001 }));
    }
    let names: Vec<String> = machines().iter().map(|machine| machine.name.to_string()).collect();
    let mut free: BTreeMap<String, HostAmount> = machines()
        .iter()
        .map(|m| (m.name.to_string(), HostAmount { cpu: m.cpu, memory: m.memory, pods: 1001 }))
        .collect();
    let place = |(number, (request, amount)): (usize, &(Arc<GpuRequest>, HostAmount))| {
        let (uid, pod) = (PodUid::from(format!("u{number}")), PodRef::new("ns", format!("p{number}")));
        let asking = PodRequest::new(&uid, &pod, request);
        let shape = Shape::of(Some(request), amount.cpu, amount.memory);
        cluster.apply_sighting(&uid, &Sighting { shape: &shape, node: None, resident: false });
        let names = names.iter().map(String::as_str);
        // kube-scheduler counts cores and memory: it never asks about nodes that lack them
        let room = |name: &&str| free[*name].cpu >= amount.cpu && free[*name].memory >= amount.memory;
        let ranked = cluster.asking(&asking, policy).ranks(names.filter(room), *amount, &BTreeMap::new());
        let (_, node) = ranked.into_iter().filter_map(|(node, rank)| Some((rank?, node))).min()?;
        let node = NodeName::from(node);
        free.entry(node.to_string()).and_modify(|free| *free = free.minus(*amount));
        let plan = cluster.assume(&node, &asking, policy, Timestamp(1)).unwrap();
        let slots = plan.grants[0].gpus.devices().map(|device| device.index).collect();
        cluster.bound(&node, &uid);
        cluster.apply_sighting(&uid, &Sighting { shape: &shape, node: Some(&node), resident: false });
        let record = Record::Placed(Placement::new(node.clone(), 0, plan));
        let holding = Some(Holding { node: node.clone(), request: request.clone(), record: record.clone() });
        let request = Ok(Some(request.clone()));
        let view = PodView {
            uid,
            pod,
            node: Some(node.clone()),
            ended: false,
            request,
            holding,
            record,
            confirmed: true,
            tolerations: Box::default(),
        };
        cluster.apply_pod(view, &clock);
        Some((node.to_string(), slots))
    };
    requests().iter().enumerate().map(place).collect()
}

#[test]
fn the_replay_and_the_extender_place_alike() {
    for policy in Policy::ALL {
        let (replayed, lived) = (replayed(policy), lived(policy));
        let first = replayed.iter().zip(&lived).position(|(a, b)| a != b);
        assert_eq!(first.map(|at| (at, &replayed[at], &lived[at])), None, "{policy}");
        assert!(replayed.iter().any(Option::is_none), "the cluster was full in the end");
    }
}
