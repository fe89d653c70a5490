//! Concurrent reserving and releasing: 1, 2, 4 and 8 threads on 1,000 nodes, and all on one node.
//!
//! `cargo bench -p kerf-extender --bench cluster`; `KERF_BENCH_RAW` names a folder for every single measurement.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use kerf::device::Inventory;
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s::NodeView;
use kerf::placement::Planner;
use kerf::placement::shape::HostAmount;
use kerf::policy::Policy;
use kerf::request::{ContainerKind, GpuRequest, PodRequest, RawAnnotations, RawContainer};
use kerf::units::Timestamp;
use kerf_bench_support::figures::{self, Figures};
use kerf_extender::cluster::Cluster;

fn main() -> anyhow::Result<()> {
    let test = figures::only_a_test();
    let rounds = if test { 10 } else { 500 };
    let mut figures = Figures::new("cluster");
    for (case, nodes) in [("1,000 nodes", 1_000), ("one node", 1)] {
        for threads in [1, 2, 4, 8] {
            figures
                .series(&format!("assume and forget, {case}, {threads} threads"), contend(nodes, threads, rounds));
        }
    }
    survey(&mut figures, if test { 3 } else { 300 });
    figures.finish(test)
}

/// The work of filter and prioritize on 5,000 nodes with 8 GPUs, without HTTP and JSON.
fn survey(figures: &mut Figures, rounds: usize) {
    let cluster = Cluster::default();
    let name = |number: usize| format!("gpu-node-{number:05}.cluster.example");
    let names: Vec<String> = (0..5_000).map(name).collect();
    let share = |core| RawContainer {
        name: "main",
        kind: ContainerKind::App,
        core: Some(core),
        memory: Some("10"),
        counted: &[],
    };
    let request = |core| GpuRequest::parse([share(core)], RawAnnotations::default()).ok().flatten().map(Arc::new);
    let (Some(small), Some(asked)) = (request("30"), request("50")) else { return };
    for name in &names {
        let node = NodeName::from(name.as_str());
        cluster.apply_node(&NodeView {
            name: node.clone(),
            inventory: Ok(Inventory::from_capacity(800, 480)),
            inferred: true,
        });
        for number in 0..4 {
            let (uid, pod) = (PodUid::from(format!("{name}-{number}")), PodRef::new("default", "pod"));
            let _ = cluster.assume(&node, &PodRequest::new(&uid, &pod, &small), Policy::Spread, Timestamp(1));
            cluster.bound(&node, &uid);
        }
    }
    let mut planner = Planner::default();
    let mut time = |case: &str, work: &mut dyn FnMut() -> usize| {
        let round = |_| {
            let begun = Instant::now();
            std::hint::black_box(work());
            begun.elapsed()
        };
        figures.series(case, (0..rounds).map(round).collect());
    };
    let asked = PodRequest { uid: "asking".into(), name: PodRef::new("default", "asking"), request: asked };
    time("fit a share, 5,000 nodes", &mut || {
        let asking = cluster.asking(&asked, Policy::Binpack);
        names.iter().filter(|name| asking.fit(&mut planner, name).is_ok()).count()
    });
    let none = std::collections::BTreeMap::new();
    for policy in [Policy::Binpack, Policy::Fragmentation] {
        time(&format!("rank a share by {policy}, 5,000 nodes"), &mut || {
            let asking = cluster.asking(&asked, policy);
            asking.ranks(names.iter().map(String::as_str), HostAmount::default(), &none).len()
        });
    }
}

/// Each thread reserves a share and releases it, `rounds` times, each time on the next node.
fn contend(nodes: usize, threads: usize, rounds: usize) -> Vec<Duration> {
    let cluster = Arc::new(Cluster::default());
    let names: Arc<Vec<NodeName>> = Arc::new((0..nodes).map(|n| NodeName::from(format!("node-{n:04}"))).collect());
    for name in names.iter() {
        cluster.apply_node(&NodeView {
            name: name.clone(),
            inventory: Ok(Inventory::from_capacity(800, 480)),
            inferred: true,
        });
    }
    let raw =
        RawContainer { name: "main", kind: ContainerKind::App, core: Some("10"), memory: Some("2"), counted: &[] };
    let request = Arc::new(
        GpuRequest::parse([raw], RawAnnotations::default()).ok().flatten().unwrap_or_else(|| std::process::abort()),
    );
    let start = Arc::new(Barrier::new(threads));
    let workers = (0..threads).map(|worker| {
        let (cluster, names, request, start) = (cluster.clone(), names.clone(), request.clone(), start.clone());
        std::thread::spawn(move || {
            let uid = PodUid::from(format!("{worker}"));
            let pod = PodRequest::new(&uid, &PodRef::new("default", format!("{worker}")), &request);
            start.wait();
            (0..rounds)
                .filter_map(|round| {
                    let node = names.get((round * 7 + worker * 131) % names.len())?;
                    let begun = Instant::now();
                    cluster.assume(node, &pod, Policy::Binpack, Timestamp(1)).ok()?;
                    cluster.forget(node, &uid);
                    Some(begun.elapsed())
                })
                .collect::<Vec<_>>()
        })
    });
    let workers: Vec<_> = workers.collect();
    workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
}
