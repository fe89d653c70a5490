//! A container's isolation: what the container is given, what its record says, and how a breach is noticed.

use std::path::{Path, PathBuf};

use kerf_limiter_contract::limits::Limits;
use kerf_limiter_contract::{allowance, path, state};
use kerf_testkit::kubelet::Container;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, placement, two_cards};

/// A node that has the limiter.
pub async fn with_limiter() -> Stage {
    let mut stage = Stage::new().await;
    std::fs::write(&stage.library, "a library").unwrap();
    stage.start_plugin().await;
    stage.registered().await;
    stage
}

/// The host's path of what the container sees at `path`.
pub fn host(container: &Container, inside: &str) -> (PathBuf, bool) {
    let parent = Path::new(inside).parent().unwrap();
    container
        .mounts
        .iter()
        .find_map(|mount| {
            let at = Path::new(&mount.container_path);
            let found = if at == Path::new(inside) {
                PathBuf::from(&mount.host_path)
            } else if at == parent {
                Path::new(&mount.host_path).join(Path::new(inside).file_name()?)
            } else {
                return None;
            };
            Some((found, mount.read_only))
        })
        .unwrap_or_else(|| panic!("nothing at {inside}: {:?}", container.mounts))
}

pub fn limits(container: &Container) -> Limits {
    Limits::parse(&std::fs::read(host(container, path::LIMITS).0).unwrap()).unwrap()
}

/// What the limiter holds a container to: memory in MiB, and compute in percent with the ceiling for bursts.
pub fn divided(container: &Container) -> (u64, u8, u8) {
    let limits = limits(container);
    let [device] = limits.devices() else { panic!("{limits:?}") };
    (device.memory >> 20, device.core, device.ceiling)
}

pub fn isolation(annotations: &Value) -> &str {
    annotations["inspur.com/gpu-isolation"].as_str().unwrap_or_default()
}

pub async fn event(stage: &Stage, reason: &str) -> Value {
    let found = |events: &[std::sync::Arc<Value>]| {
        events.iter().find(|event| event["reason"] == reason).map(|event| (**event).clone())
    };
    stage.server.wait_for("events", SOON, found).await.unwrap()
}

#[tokio::test]
async fn a_share_is_held_by_files_that_only_the_host_can_write() {
    let stage = with_limiter().await;
    stage.place("p", 1, &[("main", 50, 30, "GPU-b")]);
    let annotations = stage.confirmed("p").await;
    assert_eq!(isolation(&annotations), r#"{"main":"limiter"}"#);
    let container = stage.started("p", "main").await;
    let limits = limits(&container);
    let [device] = limits.devices() else { panic!("{limits:?}") };
    assert_eq!((&*device.uuid, device.memory, device.core, device.ceiling), ("GPU-b", 8_053_063_680, 50, 50));
    for (inside, read_only) in [
        (path::LIMITS, true),
        (path::ALLOWANCE, true),
        (path::LIBRARY, true),
        (path::PRELOAD, true),
        (path::STATE, false),
    ] {
        let (file, mounted) = host(&container, inside);
        assert_eq!(mounted, read_only, "{inside}");
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if read_only { 0o644 } else { 0o666 }, "{inside}");
    }
    assert_eq!(std::fs::read_to_string(host(&container, path::PRELOAD).0).unwrap(), path::preload());
    let snapshot = state::Snapshot::read(std::fs::File::open(host(&container, path::STATE).0).unwrap()).unwrap();
    assert!(snapshot.processes.is_empty());
    // no limit is where the container could change it
    assert_eq!(container.env.keys().map(String::as_str).collect::<Vec<_>>(), ["NVIDIA_VISIBLE_DEVICES"]);
    let shown = |_: u16, text: &str| {
        text.contains(
            r#"kerf_plugin_container_isolation{container="main",gpu="GPU-b",index="1",isolation="limiter",namespace="ns",node="n",pod="p"} 1"#,
        )
    };
    stage.until("/metrics", shown).await;
    // the allowance is decided while the container runs
    let read = || std::fs::read(host(&container, path::ALLOWANCE).0).unwrap();
    let decided = async {
        while read()[allowance::offset(0)..].iter().all(|byte| *byte == 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, decided).await.unwrap();
}

#[tokio::test]
async fn a_ceiling_for_bursts_is_in_the_limits() {
    let stage = with_limiter().await;
    let mut placed = placement(1, &[("main", 30, 10, "GPU-a")]);
    placed.limit = Some(kerf::units::Milli(800));
    let mut annotations = kerf::annotation::write(&placed, &kerf::annotation::Keys::default());
    annotations.insert("inspur.com/vcuda-core-limit".to_owned(), "80".to_owned());
    stage.run("p", &[("main", 30, 10)], json!(annotations));
    stage.confirmed("p").await;
    let limits = limits(&stage.started("p", "main").await);
    assert_eq!((limits.devices()[0].core, limits.devices()[0].ceiling), (30, 80));
}

#[tokio::test]
async fn the_driver_limits_memory_and_the_limiter_compute_as_well() {
    let mut stage = Stage::new().await;
    std::fs::write(&stage.library, "a library").unwrap();
    let driver = stage.library.with_file_name("libnvidia-ml.so.1");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvml/standin.c");
    let built = std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&driver).arg(source).status();
    assert!(built.unwrap().success());
    stage.flags = vec![format!("--nvml-library={}", driver.display())];
    // the GPU that the library knows
    std::fs::write(&stage.gpus, two_cards(true).replace("GPU-a", "GPU-0")).unwrap();
    stage.start_plugin().await;
    stage.registered().await;
    stage.place("p", 1, &[("main", 30, 10, "GPU-0")]);
    assert_eq!(isolation(&stage.confirmed("p").await), r#"{"main":"driver"}"#);
    assert_eq!(divided(&stage.started("p", "main").await), (2560, 30, 30));
}

#[tokio::test]
async fn whole_cards_need_nothing_and_partitions_are_what_they_are() {
    let mut stage = Stage::new().await;
    std::fs::write(&stage.library, "a library").unwrap();
    let cards = two_cards(true).replacen("device_nodes", "partition = true\ndevice_nodes", 1);
    std::fs::write(&stage.gpus, cards).unwrap();
    stage.start_plugin().await;
    stage.registered().await;
    stage.place("instance", 1, &[("main", 100, 0, "GPU-a")]);
    stage.place("card", 2, &[("main", 100, 0, "GPU-b")]);
    assert_eq!(isolation(&stage.confirmed("instance").await), r#"{"main":"mig"}"#);
    assert_eq!(stage.confirmed("card").await.get("inspur.com/gpu-isolation"), None);
    for pod in ["instance", "card"] {
        assert!(stage.started(pod, "main").await.mounts.is_empty(), "{pod}");
    }
}

#[tokio::test]
async fn without_the_limiter_the_record_says_none_and_a_demand_is_refused() {
    let stage = Stage::ready().await;
    stage.place("plain", 1, &[("main", 30, 10, "GPU-a")]);
    assert_eq!(isolation(&stage.confirmed("plain").await), r#"{"main":"none"}"#);
    assert!(stage.started("plain", "main").await.mounts.is_empty());
    let placed = placement(2, &[("main", 30, 10, "GPU-a")]);
    let mut annotations = kerf::annotation::write(&placed, &kerf::annotation::Keys::default());
    annotations.insert("inspur.com/isolation".to_owned(), "limiter".to_owned());
    stage.run("strict", &[("main", 30, 10)], json!(annotations));
    let pod = stage.phase("strict", "Failed").await;
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(message.contains("requires isolation limiter, but shares of GPU GPU-a have none"), "{message}");
}

#[tokio::test]
async fn rungs_can_be_switched_off() {
    let mut stage = Stage::new().await;
    std::fs::write(&stage.library, "a library").unwrap();
    stage.flags = vec!["--isolation=mig,driver".to_owned()];
    stage.start_plugin().await;
    stage.registered().await;
    stage.place("p", 1, &[("main", 30, 10, "GPU-a")]);
    assert_eq!(isolation(&stage.confirmed("p").await), r#"{"main":"none"}"#);
}

#[tokio::test]
async fn a_later_life_knows_what_its_predecessor_gave_and_makes_what_is_gone() {
    let mut stage = with_limiter().await;
    stage.place("p", 1, &[("main", 30, 10, "GPU-a")]);
    stage.confirmed("p").await;
    let container = stage.started("p", "main").await;
    stage.stop_plugin().await;
    // as after a restart of the machine; and the library is another one by now
    std::fs::remove_file(host(&container, path::STATE).0).unwrap();
    std::fs::write(&stage.library, "a later library").unwrap();
    stage.start_plugin().await;
    stage.registered().await;
    let found = |_: u16, text: &str| text.contains(r#"isolation="limiter",namespace="ns",node="n",pod="p"} 1"#);
    stage.until("/metrics", found).await;
    stage.kubelet.restart_container("ns", "p", "main").await.unwrap();
    let again = stage.started("p", "main").await;
    assert!(again.start_errors.is_empty(), "{:?}", again.start_errors);
    assert_eq!(again.mounts, container.mounts);
    assert!(host(&again, path::STATE).0.is_file());
    assert_eq!(std::fs::read_to_string(host(&again, path::LIBRARY).0).unwrap(), "a library");
}

#[tokio::test]
async fn limits_that_cannot_be_written_fail_the_pod_and_are_not_left_out() {
    let stage = with_limiter().await;
    stage.place("first", 1, &[("main", 10, 4, "GPU-a")]);
    let limits = host(&stage.started("first", "main").await, path::LIMITS).0;
    let containers = limits.ancestors().nth(3).unwrap();
    std::fs::rename(containers, containers.with_extension("old")).unwrap();
    std::fs::write(containers, "in the way").unwrap();
    stage.place("second", 2, &[("main", 10, 4, "GPU-a")]);
    let pod = stage.phase("second", "Failed").await;
    assert!(pod["status"]["message"].as_str().unwrap().contains("limits of the container"), "{pod}");
}

#[tokio::test]
async fn a_breach_is_counted_shown_and_told_to_the_pods_owner() {
    let stage = with_limiter().await;
    stage.place("p", 1, &[("main", 30, 10, "GPU-a")]);
    stage.confirmed("p").await;
    let process = |memory: u64| {
        // this process is real, and no limiter knows it
        let pid = std::process::id();
        format!(
            "{}[[process]]\npid = {pid}\ngpu = \"GPU-a\"\nmemory_mib = {memory}\npod = \"ns/p\"\ncontainer = \"main\"\n",
            two_cards(true)
        )
    };
    std::fs::write(&stage.gpus, process(2560 + 641)).unwrap();
    let over = event(&stage, "GPUMemoryAboveShare").await;
    assert_eq!(over["message"], r#"container "main" uses 3201 MiB of GPU GPU-a; its share is 2560 MiB"#);
    assert_eq!((&over["type"], &over["involvedObject"]["name"]), (&json!("Warning"), &json!("p")));
    let pod = stage.server.get("pods", "ns", "p").unwrap();
    assert_eq!(over["involvedObject"]["uid"], pod["metadata"]["uid"]);
    event(&stage, "GPULimiterNotLoaded").await;
    let shown = |kind: &'static str| {
        move |_: u16, text: &str| {
            text.contains(&format!(
                r#"kerf_plugin_container_breach{{container="main",gpu="GPU-a",index="0",kind="{kind}",namespace="ns",node="n",pod="p"}} 1"#
            )) && text.contains(&format!(r#"kerf_plugin_breaches_total{{kind="{kind}"}} 1"#))
        }
    };
    stage.until("/metrics", shown("memory")).await;
    stage.until("/metrics", shown("unlimited")).await;
    // within its share and what the driver takes for the process
    std::fs::write(&stage.gpus, process(2560 + 640)).unwrap();
    stage.until("/metrics", |_, text| !text.contains(r#"kind="memory",namespace"#)).await;
}
