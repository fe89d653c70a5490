//! The cost of a decision among 1,213 machines under `fragmentation`, single-threaded, and of a whole replay; and the
//! cost of checking whether a pod of several containers fits on one node where the first choice of GPUs fails.
//!
//! `cargo bench -p kerf --bench placement`; `KERF_BENCH_RAW` names a folder for every single measurement. There are as
//! many machines and GPUs as in Alibaba's GPU trace; pods are drawn from about its shapes. `KERF_TRACE` names a
//! folder with a workload in CSV (`nodes.csv`, `pods.csv`) to replay instead.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use kerf::device::{Device, Inventory};
use kerf::ids::PodRef;
use kerf::ledger::{Held, NodeLedger};
use kerf::placement::Planner;
use kerf::placement::eviction::Scene;
use kerf::placement::market::Market;
use kerf::placement::shape::{Cards, Shape};
use kerf::policy::Policy;
use kerf::replay::{CardKind, Machine, Pod, Random, Run, Workload, shuffle_and_fill};
use kerf::request::{Ask, ContainerKind, ContainerRequest, GpuRequest, PodRequest};
use kerf::shares::Arrangement;
use kerf::units::{Mib, Share, Timestamp};
use kerf_bench_support::figures::{self, Figures};

/// Machines of one kind: how many, GPUs of each, cores, model.
const MACHINES: [(usize, usize, u64, &str); 6] = [
    (549, 8, 96, "a"),
    (421, 2, 96, "b"),
    (39, 8, 128, "c"),
    (135, 2, 64, "d"),
    (50, 8, 96, "e"),
    (19, 2, 104, "f"),
];

/// Pods of one kind: weight, cores in thousandths, GPUs, thousandths of a GPU.
const PODS: [(usize, u64, u32, u32); 14] = [
    (20, 4000, 0, 0),
    (13, 3152, 1, 810),
    (11, 11_300, 1, 1000),
    (8, 8000, 1, 1000),
    (7, 6000, 1, 470),
    (6, 6000, 1, 320),
    (5, 4000, 1, 230),
    (4, 8000, 1, 650),
    (4, 2000, 1, 110),
    (3, 4000, 1, 550),
    (3, 11_900, 2, 1000),
    (2, 40_000, 4, 1000),
    (1, 88_000, 8, 1000),
    (1, 1000, 1, 50),
];

fn main() -> anyhow::Result<()> {
    let test = figures::only_a_test();
    let mut figures = Figures::new("placement");
    let workload = match std::env::var_os("KERF_TRACE") {
        Some(folder) => read(Path::new(&folder))?,
        None => own(),
    };
    let (mut market, kinds) = (Market::default(), 16);
    add(&mut market, &workload);
    // half of the demand, so that machines differ
    let pods = &workload.arrivals.pods;
    let (mut chosen, mut took) = (Duration::ZERO, Vec::new());
    let some = if test { 50 } else { pods.len() };
    for pod in pods.iter().take(some) {
        let class = market.class(&pod.shape);
        let begun = Instant::now();
        market.arrived(class);
        let choice = market.choose(Policy::Fragmentation, class);
        took.push(begun.elapsed());
        chosen += begun.elapsed();
        if let Some(choice) = choice {
            market.take(class, &choice);
        }
    }
    std::hint::black_box(chosen);
    figures.series("each decision of a replay, learning included", took);
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    let mut market = Market::default();
    add(&mut market, &workload);
    for (number, pod) in pods.iter().take(some * 7 / 10).enumerate() {
        let class = market.class(&pod.shape);
        market.arrived(class);
        if let Some(choice) = market.choose(Policy::Fragmentation, class) {
            market.take(class, &choice);
        }
        if number % kinds == 0 {
            let begun = Instant::now();
            std::hint::black_box(market.choose(Policy::Fragmentation, class));
            warm.push(begun.elapsed());
            // a shape that was never requested: what each machine offers it is not known yet
            let fresh = Shape { memory: Mib(pod.shape.memory.0 + 1 + number as u64), ..pod.shape.clone() };
            let class = market.class(&fresh);
            let begun = Instant::now();
            std::hint::black_box(market.choose(Policy::Fragmentation, class));
            cold.push(begun.elapsed());
        }
    }
    figures.series("a decision for a shape that just came", warm);
    figures.series("a decision for a shape never seen", cold);
    let runs = if test { 1 } else { 20 };
    let replay = |_| {
        let begun = Instant::now();
        std::hint::black_box(Run::new(&workload, Policy::Fragmentation, None, 0.0).finish());
        begun.elapsed()
    };
    preemption(&mut figures, if test { 1 } else { 20 });
    several_containers(&mut figures, if test { 20 } else { 2000 });
    figures.value("pods of the workload", "pods", pods.len() as f64);
    figures.series("a whole replay", (0..runs).map(replay).collect());
    figures.finish(test)
}

/// What one call of preempt plans: many nodes of eight full GPUs, on each of which a whole GPU must become free.
fn preemption(figures: &mut Figures, runs: usize) {
    for (nodes, shares) in [(100, 7), (100, 13), (100, 20), (500, 7), (500, 13), (500, 20)] {
        let mut node = NodeLedger::new(&Inventory::new(
            (0..8).map(|index| Device::new(format!("GPU-{index}"), index, Mib(81_920))).collect(),
        ));
        let mut planner = Planner::default();
        for number in 0..8 * shares {
            let taken = Share::new(1000 / shares / 10 * 10, 81_920 / u64::from(shares) / 256 * 256);
            let (uid, name) = (format!("p{number:03}").as_str().into(), PodRef::new("ns", format!("p{number:03}")));
            let pod: std::sync::Arc<GpuRequest> = apps(vec![Ask::Share(taken)]).into();
            if let Ok(plan) =
                planner.assume(&mut node, &PodRequest::new(&uid, &name, &pod), Policy::Binpack, Timestamp(1), 1)
            {
                node.observe(&PodRequest::new(&uid, &name, &pod), Held::Plan(plan), true, 1);
            }
        }
        let asked = GpuRequest { priority: 1, ..apps(vec![Ask::Whole { count: 1, memory: None }]) };
        let chosen = node.commitments().keys().take(1).cloned().collect();
        let run = |_| {
            let begun = Instant::now();
            for _ in 0..nodes {
                let ledger = node.clone();
                let scene = Scene {
                    ledger: &ledger,
                    request: &asked,
                    policy: Policy::Binpack,
                    chosen: &chosen,
                    budgets: Some(&[]),
                    now: Timestamp(0),
                    late: &|| false,
                };
                std::hint::black_box(scene.for_cards());
                std::hint::black_box(scene.victims(&mut planner, &BTreeSet::new()));
            }
            begun.elapsed()
        };
        figures.series(
            &format!("preemption, {nodes} candidates of {} pods", 8 * shares),
            (0..runs).map(run).collect(),
        );
    }
}

/// Nearly full nodes of sixteen GPUs, no two alike, and pods of several containers that do not fit one after the other.
fn several_containers(figures: &mut Figures, nodes: usize) {
    let mut random = Random::new(11);
    for (containers, cards) in [(2, 8), (4, 8), (8, 16)] {
        let (mut fitting, mut not) = (Vec::new(), Vec::new());
        for _ in 0..nodes {
            let mut node = NodeLedger::new(&Inventory::new(
                (0..cards).map(|index| Device::new(format!("gpu-{index}"), index, Mib(81_920))).collect(),
            ));
            let mut planner = Planner::default();
            for number in 0..cards * 2 {
                let taken = Share::new(200 + 10 * random.below(40) as u32, 256 * (64 + random.below(120)) as u64);
                let pod = apps(vec![Ask::Share(taken)]);
                let uid = format!("p{number}").as_str().into();
                let name = PodRef::new("ns", "p");
                let _ = planner.assume(
                    &mut node,
                    &PodRequest::new(&uid, &name, &pod.into()),
                    Policy::Spread,
                    Timestamp(1),
                    1,
                );
            }
            // parts of the free room, and now and then a little more than that
            let free: Vec<Share> = node.rooms().iter().map(|room| room.free).collect();
            let asks = (0..containers).filter_map(|_| {
                let free = free.get(random.below(free.len()))?;
                let part = 300 + random.below(720) as u32;
                let memory = free.memory.0 * u64::from(part) / 1000;
                Some(Ask::Share(Share::new((free.compute.0 * part / 1000).max(10), memory.max(256))))
            });
            let pod = apps(asks.collect());
            let begun = Instant::now();
            let fits = std::hint::black_box(planner.fit(&node, &pod, Policy::Binpack)).is_ok();
            let took = begun.elapsed();
            if fits { fitting.push(took) } else { not.push(took) }
        }
        for (fits, times) in [("fit", fitting), ("do not fit", not)] {
            if !times.is_empty() {
                figures.series(&format!("{containers} containers {fits} on {cards} nearly full cards"), times);
            }
        }
    }
}

fn apps(asks: Vec<Ask>) -> GpuRequest {
    let container = |(position, ask): (u32, Ask)| ContainerRequest {
        name: format!("c{position}").as_str().into(),
        kind: ContainerKind::App,
        position,
        ask,
    };
    GpuRequest {
        containers: (0..).zip(asks).map(container).collect(),
        limit: None,
        policy: None,
        isolation: None,
        arrangement: Arrangement::Any,
        priority: 0,
    }
}

fn add(market: &mut Market, workload: &Workload) {
    for machine in &workload.machines {
        machine.join(market, 1001);
    }
}

fn machine(name: String, cards: usize, cpu: u64, memory: u64, model: &str) -> Machine {
    let card = CardKind { model: model.into(), memory: Mib(0) };
    Machine { name: name.into(), cpu, memory: Mib(memory), cards: vec![card; cards] }
}

fn pod(name: String, cpu: u64, memory: u64, count: u32, milli: u32) -> Pod {
    let cards = match (count, milli) {
        (0, _) => Cards::None,
        (1, milli @ 1..1000) => Cards::Share(Share::new(milli, 0)),
        (count, _) => Cards::Whole(count),
    };
    Pod { name: name.into(), shape: Shape { cpu, memory: Mib(memory), cards, models: Vec::new() }, stay: None }
}

fn own() -> Workload {
    let machines: Vec<Machine> = MACHINES
        .iter()
        .flat_map(|(count, cards, cores, model)| {
            (0..*count).map(move |n| machine(format!("{model}-{n:04}"), *cards, cores * 1000, 786_432, model))
        })
        .collect();
    let mut random = Random::new(7);
    let weights: Vec<usize> =
        (0..PODS.len()).flat_map(|at| vec![at; PODS.get(at).map_or(0, |kind| kind.0)]).collect();
    let trace: Vec<Pod> = (0..8000)
        .filter_map(|number| {
            let (_, cpu, count, milli) = *PODS.get(*weights.get(random.below(weights.len()))?)?;
            // ten host sizes for each, so that there are as many shapes as in a real cluster
            let cpu = cpu + 100 * random.below(10) as u64;
            Some(pod(format!("pod-{number:04}"), cpu, 8192, count, milli))
        })
        .collect();
    shuffle_and_fill(&machines, &trace, 130, 1)
}

fn read(folder: &Path) -> anyhow::Result<Workload> {
    let rows = |name: &str| -> anyhow::Result<Vec<std::collections::BTreeMap<String, String>>> {
        Ok(csv::Reader::from_path(folder.join(name))?.into_deserialize().collect::<Result<_, _>>()?)
    };
    let number = |row: &std::collections::BTreeMap<String, String>, key: &str| -> anyhow::Result<u64> {
        Ok(row.get(key).map_or("", String::as_str).parse()?)
    };
    let mut machines = Vec::new();
    for row in rows("nodes.csv")? {
        let cards = usize::try_from(number(&row, "gpu")?)?;
        let (name, model) =
            (row.get("node").cloned().unwrap_or_default(), row.get("model").cloned().unwrap_or_default());
        machines.push(machine(name, cards, number(&row, "cpu_milli")?, number(&row, "mem_mib")?, &model));
    }
    let mut pods = Vec::new();
    for row in rows("pods.csv")? {
        let (count, milli) = (u32::try_from(number(&row, "num_gpu")?)?, u32::try_from(number(&row, "gpu_milli")?)?);
        let name = row.get("pod").cloned().unwrap_or_default();
        pods.push(pod(name, number(&row, "cpu_milli")?, number(&row, "mem_mib")?, count, milli));
    }
    Ok(Workload { machines, arrivals: kerf::replay::Arrivals::in_order(pods) })
}
