//! The cost of one decision: planning on one node, and reserving and releasing.
//!
//! `cargo bench -p kerf --bench ledger`

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use kerf::device::{Device, Inventory, Link};
use kerf::ids::{PodRef, PodUid};
use kerf::ledger::NodeLedger;
use kerf::placement::Planner;
use kerf::policy::Policy;
use kerf::request::{ContainerKind, GpuRequest, PodRequest, RawAnnotations, RawContainer};
use kerf::units::{Mib, Timestamp};

fn node(cards: u32) -> NodeLedger {
    let device = |index: u32| {
        let mut device = Device::new(format!("GPU-{index:032}"), index, Mib(15_360));
        let link = |peer: u32| if peer / 4 == index / 4 { Link::NvLink(4) } else { Link::System };
        device.links = (0..cards).filter(|peer| *peer != index).map(|peer| (peer, link(peer))).collect();
        device
    };
    NodeLedger::new(&Inventory::new((0..cards).map(device).collect()))
}

fn request(containers: &[(ContainerKind, &str, &str)]) -> Arc<GpuRequest> {
    let raw = containers.iter().map(|(kind, core, memory)| RawContainer {
        name: "main",
        kind: *kind,
        core: Some(core),
        memory: Some(memory),
        counted: &[],
    });
    Arc::new(
        GpuRequest::parse(raw, RawAnnotations::default()).ok().flatten().unwrap_or_else(|| std::process::abort()),
    )
}

fn decisions(bench: &mut Criterion) {
    use ContainerKind::{App, Init};
    let share = request(&[(App, "50", "20")]);
    let cards = request(&[(App, "400", "0")]);
    let several = request(&[(Init, "20", "10"), (App, "30", "10"), (App, "20", "5")]);
    let mut planner = Planner::default();
    for count in [8, 16] {
        let mut ledger = node(count);
        for number in 0..count / 2 {
            let (uid, pod) = (PodUid::from(format!("{number}")), PodRef::new("default", "pod"));
            let small = request(&[(App, "30", "5")]);
            let _ =
                planner.assume(&mut ledger, &PodRequest::new(&uid, &pod, &small), Policy::Spread, Timestamp(1), 1);
        }
        let mut group = bench.benchmark_group(format!("{count} cards"));
        for (name, request) in [("share", &share), ("4 whole cards", &cards), ("init and 2 apps", &several)] {
            group.bench_function(format!("fit {name}"), |b| {
                b.iter(|| black_box(planner.fit(&ledger, request, Policy::Binpack).is_ok()));
            });
            group.bench_function(format!("plan {name}"), |b| {
                b.iter(|| black_box(planner.plan(&ledger, request, Policy::Binpack).is_ok()));
            });
        }
        let (uid, pod) = (PodUid::from("new"), PodRef::new("default", "new"));
        group.bench_function("assume and forget a share", |b| {
            b.iter(|| {
                let planned = planner.assume(
                    &mut ledger,
                    &PodRequest::new(&uid, &pod, &share),
                    Policy::Binpack,
                    Timestamp(1),
                    1,
                );
                black_box(planned.is_ok());
                black_box(ledger.forget(&uid))
            });
        });
        group.finish();
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
