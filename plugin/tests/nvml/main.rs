//! Features of newer drivers: MIG instances, and memory limits of control groups. The management library is a
//! stand-in that a C compiler makes during the test: it has NVIDIA's documented interface, and no more.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args as _, FromArgMatches as _};
use kerf::device::Health;
use kerf::ids::PodRef;
use kerf::isolation::Isolation;
use kerf::plan::{ContainerGrant, DeviceRef, Grant};
use kerf::request::{ContainerKind, GpuRequest, RawAnnotations, RawContainer};
use kerf::units::Share;
use kerf_nvml::{Nvml, NvmlError, UNLIMITED};
use kerf_plugin::testing::backend::{Backend, Vendor};
use kerf_plugin::testing::demand::Demand;
use kerf_plugin::testing::driver::{Kept, wanted};
use kerf_plugin::testing::enforcers::{Enforcers, Options};
use kerf_plugin::testing::hand_over::ContainerEdits;
use kerf_plugin::testing::ids::Ids;
use kerf_plugin::testing::label::Labeller;
use kerf_plugin::testing::labels::wanted::{Style, Wanted};
use kerf_plugin::testing::limiter::CONTEXT;
use kerf_plugin::testing::nvidia::flags::{MigStrategy, NvidiaArgs};
use kerf_plugin::testing::nvidia::labels::labels;
use kerf_plugin::testing::nvidia::nvml::{Nvidia, NvidiaOptions};
use kerf_plugin::testing::roots::Roots;
use kerf_plugin::testing::view::{ContainerView, PodView};
use kerf_plugin::testing::{ClaimState, Key, Pod, Stage};

mod contradictions;
mod health;
mod machine;
mod machines;

fn library(directory: &Path) -> PathBuf {
    machine::library(directory, &[])
}

fn backend(directory: &Path, mig: bool) -> Nvidia {
    let caps = directory.join("proc/driver/nvidia-caps");
    std::fs::create_dir_all(&caps).unwrap();
    std::fs::create_dir_all(directory.join("dev/nvidia-caps")).unwrap();
    let minors = "config 1\nmonitor 2\ngpu1/gi1/access 12\ngpu1/gi1/ci0/access 13\ngpu1/gi3/access 30\n";
    std::fs::write(caps.join("mig-minors"), minors).unwrap();
    for name in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"] {
        std::fs::write(directory.join("dev").join(name), "").unwrap();
    }
    Nvidia::new(NvidiaOptions {
        library: Some(library(directory)),
        roots: Roots { sys: directory.join("sys"), dev: directory.join("dev"), proc: directory.join("proc") },
        mig,
        quiet_period: Duration::from_secs(1),
        ..NvidiaOptions::default()
    })
}

#[test]
fn what_the_library_tells_is_labelled() {
    let directory = tempfile::tempdir().unwrap();
    let labels = |mig: bool, strategy| {
        let backend = backend(directory.path(), mig);
        let found = backend.discover().unwrap();
        let hosts: Vec<_> = found.iter().collect();
        let flags = NvidiaArgs::augment_args(clap::Command::new("plugin")).get_matches_from(["plugin"]);
        let offer = NvidiaArgs { mig_strategy: strategy, ..NvidiaArgs::from_arg_matches(&flags).unwrap() };
        let wanted = Wanted::of(
            &hosts,
            &Style {
                labellers: [(Vendor::Nvidia, Labeller::new(move |hosts| labels(hosts, Some(&offer))))].into(),
                vcuda: false,
            },
        );
        let own = wanted.vendors[&Vendor::Nvidia].iter();
        own.map(|(key, value)| format!("{}={value}", key.trim_start_matches("nvidia.com/"))).collect::<Vec<_>>()
    };
    let whole = [
        "cuda.driver-version.full=550.90.07",
        "cuda.driver-version.major=550",
        "cuda.driver-version.minor=90",
        "cuda.driver-version.revision=07",
        "cuda.driver.major=550",
        "cuda.driver.minor=90",
        "cuda.driver.rev=07",
        "cuda.runtime-version.full=12.4",
        "cuda.runtime-version.major=12",
        "cuda.runtime-version.minor=4",
        "cuda.runtime.major=12",
        "cuda.runtime.minor=4",
        "gpu.compute.major=8",
        "gpu.compute.minor=0",
        "gpu.count=2",
        "gpu.family=ampere",
        "gpu.memory=81920",
        "gpu.product=Stand-in",
        "gpu.replicas=1",
        "gpu.sharing-strategy=none",
        "mig.capable=true",
    ];
    assert_eq!(labels(false, MigStrategy::None), whole);
    let mixed = labels(true, MigStrategy::Mixed);
    // the whole GPU speaks for both; instances have labels of their own
    assert!(whole.iter().all(|label| mixed.contains(&(*label).to_owned())));
    let of_3g: Vec<_> = mixed.iter().filter_map(|label| label.strip_prefix("mig-3g.40gb.")).collect();
    let expected = [
        "count=1",
        "engines.copy=3",
        "engines.decoder=2",
        "engines.encoder=0",
        "engines.jpeg=0",
        "engines.ofa=0",
        "memory=40448",
        "multiprocessors=42",
        "product=Stand-in-MIG-3g.40gb",
        "replicas=1",
        "sharing-strategy=none",
        "slices.ci=3",
        "slices.gi=3",
    ];
    assert_eq!(of_3g, expected);
    assert!(mixed.contains(&"mig-1g.10gb.slices.gi=1".to_owned()));
    assert!(labels(true, MigStrategy::Single).contains(&"gpu.product=Stand-in-MIG-INVALID".to_owned()));
}

#[test]
fn a_card_that_is_cut_is_listed_as_its_instances() {
    let directory = tempfile::tempdir().unwrap();
    let backend = backend(directory.path(), true);
    let found = backend.discover().unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|host| {
            let device = &host.device;
            (device.id.as_str(), device.index, &*device.model, device.memory.0, host.partition())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("GPU-0", 0, "Stand-in", 81920, false),
            ("MIG-a", 200, "Stand-in MIG 3g.40gb", 40448, true),
            ("MIG-b", 202, "Stand-in MIG 1g.10gb", 9984, true),
        ]
    );
    let nodes: Vec<_> = found[1].nodes.iter().map(|node| node.display().to_string()).collect();
    assert_eq!(nodes, ["/dev/nvidia1", "/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13"]);
    // the host has no files of the other instance
    assert_eq!(found[2].nodes, [PathBuf::from("/dev/nvidia1")]);
    let health = backend.health().unwrap();
    assert_eq!(health.into_values().collect::<Vec<_>>(), [Health::Healthy; 3]);
    assert_eq!(backend.usage().unwrap().gpus.len(), 3);
}

#[test]
fn without_mig_a_card_is_a_card() {
    let directory = tempfile::tempdir().unwrap();
    let found = backend(directory.path(), false).discover().unwrap();
    let shown: Vec<_> = found.iter().map(|host| (host.device.id.as_str(), host.partition())).collect();
    assert_eq!(shown, [("GPU-0", false), ("GPU-1", false)]);
}

fn enforcers(directory: &Path, kinds: &[Isolation]) -> Enforcers {
    let limiter = directory.join("limiter.so");
    std::fs::write(&limiter, "a library").unwrap();
    Enforcers::new(Options {
        kinds: kinds.iter().copied().collect(),
        state_dir: directory.join("state"),
        run_dir: directory.join("run"),
        library: limiter,
        mps_control: None,
        nvml: Some(library(directory)),
        cgroup_root: directory.join("cgroup"),
        context: CONTEXT,
    })
}

#[test]
fn each_card_has_the_strongest_rung_that_works_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let found = backend(directory.path(), true).discover().unwrap();
    let of = |kinds: &[Isolation]| {
        let enforcers = enforcers(directory.path(), kinds);
        found.iter().map(|host| enforcers.of_shares(host)).collect::<Vec<_>>()
    };
    use Isolation::{Driver, Limiter, None};
    // the driver refuses instances: two shares of one have the limiter between them
    assert_eq!(of(&Isolation::ALL), [Driver, Limiter, Limiter]);
    assert_eq!(of(&[Limiter]), [Limiter, Limiter, Limiter]);
    assert_eq!(of(&[Driver]), [Driver, None, None]);
    assert_eq!(of(&[None]), [None, None, None]);
}

#[test]
fn limits_reach_the_driver_as_they_are_documented() {
    let directory = tempfile::tempdir().unwrap();
    let nvml = Nvml::load(Some(&library(directory.path()))).unwrap();
    assert_eq!(nvml.instance("MIG-b").unwrap(), (3, 0));
    assert!(matches!(nvml.instance("GPU-9"), Err(NvmlError::Refused { code: 6, .. })));
    let limits = nvml.memory_limits().unwrap();
    let group = Path::new("/sys/fs/cgroup/kubepods/podx/y");
    assert_eq!(limits.get("GPU-0", group).unwrap().hard, UNLIMITED);
    assert!(matches!(limits.get("MIG-a", group), Err(NvmlError::Refused { code: 3, .. })));
    limits.set("GPU-0", group, 8_053_063_680).unwrap();
    limits.set("GPU-0", group, UNLIMITED).unwrap();
    let expected = format!("GPU-0 {g} 8053063680\nGPU-0 {g} {UNLIMITED}\n", g = group.display());
    assert_eq!(told(directory.path()), expected);
}

fn told(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("libnvidia-ml.so.1.limits")).unwrap_or_default()
}

/// A container with a share that the driver is to enforce, as the rest of the plugin sees it.
fn container(enforcers: &Enforcers) -> (PodView, String) {
    let (uid, id) = ("5c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e5f", "8f3c0d1e2b4a5968".repeat(4));
    let device = DeviceRef { id: "GPU-0".into(), index: 0 };
    let gpus = Grant::Share { device, share: Share::new(500, 7680) };
    let (container, kind) = ("main".into(), ContainerKind::App);
    let grant = ContainerGrant { container, kind, position: 0, gpus };
    let core = Ids::new(["GPU-0::0".to_owned()]);
    let key = Key { pod: uid.into(), container: "main".into() };
    let demand = Demand { key: &key, core: &core, grant: &grant, limit: None };
    // nothing is mounted, since the limiter is off: the driver alone holds it
    assert_eq!(enforcers.provide(&demand, Isolation::Driver).unwrap(), ContainerEdits::default());
    let raw = RawContainer { name: "main", kind, core: Some("50"), memory: Some("30"), counted: &[] };
    let pod = Pod {
        uid: uid.into(),
        reference: PodRef::new("ns", "p"),
        node: "n".into(),
        created: 0,
        request: GpuRequest::parse([raw], RawAnnotations::default()).unwrap().unwrap(),
        record: None,
        confirmed: true,
        isolated: None,
        users: Default::default(),
        stage: Stage::Live,
        runtime_ids: [(id.clone(), "main".into())].into(),
    };
    let level = Some(Isolation::Driver);
    let (memory, counted) = (Ids::default(), Ids::default());
    let container = ContainerView {
        grant: grant.clone(),
        state: Some(ClaimState::Confirmed),
        call: 0,
        core,
        memory,
        counted,
        level,
    };
    let view = PodView { pod, limit: None, exchanged: false, answer_lost: false, containers: vec![container] };
    (view, format!("kubepods/pod{uid}/{id}"))
}

#[test]
fn the_drivers_limit_follows_the_container_and_is_lifted_before_its_group_is_anothers() {
    let directory = tempfile::tempdir().unwrap();
    let enforcers = enforcers(directory.path(), &[Isolation::Driver]);
    let driver = enforcers.driver.as_ref().unwrap();
    let (view, group) = container(&enforcers);
    let root = directory.path().join("cgroup");
    let wanted = |views: &[PodView]| wanted(views, &enforcers.folders, &root);
    // the container has not started: there is no group
    assert!(wanted(std::slice::from_ref(&view)).is_empty());
    let group = root.join(group);
    std::fs::create_dir_all(&group).unwrap();
    let mut kept = Kept::default();
    driver.keep(&mut kept, &wanted(std::slice::from_ref(&view)));
    driver.keep(&mut kept, &wanted(&[view]));
    let set = format!("GPU-0 {} 8053063680\n", group.display());
    assert_eq!(told(directory.path()), set, "set once");
    driver.keep(&mut kept, &wanted(&[]));
    let lifted = format!("{set}GPU-0 {} {UNLIMITED}\n", group.display());
    assert_eq!(told(directory.path()), lifted);
    driver.keep(&mut kept, &wanted(&[]));
    assert_eq!(told(directory.path()), lifted, "lifted once");
}

#[test]
fn a_driver_that_refuses_to_limit_is_asked_some_times_and_then_not_offered() {
    let directory = tempfile::tempdir().unwrap();
    let enforcers = enforcers(directory.path(), &[Isolation::Driver]);
    let driver = enforcers.driver.as_ref().unwrap();
    assert!(driver.limits(&"GPU-0".into()));
    let (view, group) = container(&enforcers);
    let root = directory.path().join("cgroup");
    std::fs::create_dir_all(root.join(group)).unwrap();
    let wants = wanted(&[view], &enforcers.folders, &root);
    let refuses = directory.path().join("libnvidia-ml.so.1.refuses");
    std::fs::write(&refuses, "").unwrap();
    let mut kept = Kept::default();
    let times: Vec<usize> = (0..6).map(|_| driver.keep(&mut kept, &wants).len()).collect();
    assert_eq!(times, [0, 0, 0, 1, 0, 0], "said once");
    assert!(!driver.limits(&"GPU-0".into()));
    // a temporary refusal does not count
    std::fs::remove_file(&refuses).unwrap();
    let mut kept = Kept::default();
    assert!(driver.keep(&mut kept, &wants).is_empty());
    assert!(told(directory.path()).ends_with(" 8053063680\n"));
}
