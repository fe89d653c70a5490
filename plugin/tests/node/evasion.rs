//! What a container does against its limits, as the host sees it.

use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::Path;

use kerf_limiter_contract::{path, state};
use kerf_testkit::kubelet::Container;
use serde_json::{Value, json};

use crate::isolation::{event, host, with_limiter};
use crate::stage::{SOON, Stage};
use crate::tenant::{OnGpu, Tenant, breach, on_gpus};

/// Two equal shares of one GPU: of `honest` and of `hostile`.
async fn neighbours() -> (Stage, Container, Container) {
    let stage = with_limiter().await;
    for (pod, time) in [("honest", 1), ("hostile", 2)] {
        stage.place(pod, time, &[("main", 30, 10, "GPU-a")]);
        stage.confirmed(pod).await;
    }
    let [honest, hostile] = [stage.started("honest", "main").await, stage.started("hostile", "main").await];
    (stage, honest, hostile)
}

fn small(pid: u32, pod: &str) -> OnGpu<'_> {
    OnGpu { pid, gpu: "GPU-a", memory_mib: 1, utilization: 1, pod }
}

/// A process that has what the container was given, and has loaded the library.
fn honest(container: &Container) -> Option<Tenant> {
    let tenant = Tenant::inside(container, &["map", path::LIBRARY])?;
    tenant.register(container);
    Some(tenant)
}

async fn shown(stage: &Stage, breach: String) -> String {
    stage.until("/metrics", move |_, text| text.contains(&breach)).await
}

/// Waits until an event with this reason has a message with these words.
async fn told(stage: &Stage, reason: &str, words: &str) {
    let found = |events: &[std::sync::Arc<Value>]| {
        let own = |event: &&std::sync::Arc<Value>| {
            event["reason"] == reason && event["message"].as_str().is_some_and(|text| text.contains(words))
        };
        events.iter().find(own).map(drop)
    };
    let waited = stage.server.wait_for("events", SOON, found).await;
    waited.unwrap_or_else(|error| panic!("{reason}: {words}: {error}"));
}

/// What the hostile process does, the kind of the breach, and what its owner is told.
async fn seen_by_mounts(steps: &[&str], words: &str) {
    let (stage, first, second) = neighbours().await;
    let Some(good) = honest(&first) else { return };
    let steps = [&["map", path::LIBRARY], steps].concat();
    let Some(bad) = Tenant::inside(&second, &steps) else { return };
    // it enters itself into the file that it can write
    bad.register(&second);
    on_gpus(&stage, &[small(good.pid(), "honest"), small(bad.pid(), "hostile")]);
    let text = shown(&stage, breach("mounts", "hostile", "GPU-a")).await;
    for kind in ["mounts", "unlimited", "foreign", "file"] {
        assert!(!text.contains(&breach(kind, "honest", "GPU-a")), "{text}");
    }
    told(&stage, "GPULimiterFilesHidden", words).await;
}

#[tokio::test]
async fn a_volume_over_any_of_the_limiters_files_is_seen() {
    for place in [path::HOST_DIRECTORY, path::STATE, path::LIBRARY, path::PRELOAD] {
        seen_by_mounts(&["cover", place], place).await;
    }
}

/// A mount above, which leaves the limiter's own in the table.
#[tokio::test]
async fn a_volume_above_the_limiters_files_is_seen() {
    seen_by_mounts(&["cover", "/etc"], path::PRELOAD).await;
}

#[tokio::test]
async fn a_bind_mount_in_a_user_namespace_is_seen() {
    seen_by_mounts(&["userns", "cover", path::PRELOAD], path::PRELOAD).await;
}

#[tokio::test]
async fn another_root_is_seen() {
    seen_by_mounts(&["chroot", "/copy"], path::PRELOAD).await;
}

/// A mounted file cannot be renamed, but the directory that a runtime made above it can.
#[tokio::test]
async fn a_renamed_directory_above_the_library_is_seen() {
    seen_by_mounts(&["rename", "/usr/lib/kerf", "/usr/lib/gone"], path::LIBRARY).await;
}

/// `LD_AUDIT`, or a loader that was changed: the mounts are right, and the library is not loaded.
#[tokio::test]
async fn a_process_that_registered_itself_without_the_library_is_seen() {
    let (stage, first, second) = neighbours().await;
    let Some(good) = honest(&first) else { return };
    let Some(bad) = Tenant::inside(&second, &[]) else { return };
    bad.register(&second);
    if std::fs::read(Path::new("/proc").join(bad.pid().to_string()).join("maps")).is_err() {
        eprintln!("maps of other processes cannot be read here: not tested");
        return;
    }
    on_gpus(&stage, &[small(good.pid(), "honest"), small(bad.pid(), "hostile")]);
    let text = shown(&stage, breach("unlimited", "hostile", "GPU-a")).await;
    assert!(!text.contains(&breach("unlimited", "honest", "GPU-a")), "{text}");
}

/// A lease makes the next open wait for 45 s, longer than this test.
#[tokio::test]
async fn a_lease_delays_nobody_and_is_told() {
    for file in [path::STATE, path::ALLOWANCE] {
        let (stage, _, second) = neighbours().await;
        let file = host(&second, file).0;
        let holder = Tenant::start(&["lease", &file.display().to_string()]);
        let over = OnGpu { memory_mib: 9000, ..small(std::process::id(), "honest") };
        on_gpus(&stage, &[over, small(holder.pid(), "hostile")]);
        event(&stage, "GPUMemoryAboveShare").await;
        told(&stage, "GPULimiterFileUnusable", "lease").await;
        shown(&stage, breach("file", "hostile", "GPU-a")).await;
        // bursts go on for the neighbour
        let allowance = host(&stage.started("honest", "main").await, path::ALLOWANCE).0;
        let before = std::fs::read(&allowance).unwrap();
        let decided = async {
            while std::fs::read(&allowance).unwrap() == before {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, decided).await.unwrap();
    }
}

#[tokio::test]
async fn a_state_file_that_grows_is_cut_and_told() {
    let (stage, _, second) = neighbours().await;
    let file = host(&second, path::STATE).0;
    std::fs::OpenOptions::new().append(true).open(&file).unwrap().set_len(64 << 20).unwrap();
    told(&stage, "GPULimiterFileUnusable", "longer than").await;
    let cut = || std::fs::metadata(&file).unwrap().len() == state::BYTES as u64;
    stage.until("/metrics", |_, _| cut()).await;
    stage.until("/metrics", |_, text| !text.contains(r#"kind="file",namespace"#)).await;
    // memory behind the end, which the length does not show
    drop(Tenant::start(&["reserve", &file.display().to_string(), "67108864"]));
    use std::os::unix::fs::MetadataExt;
    stage.until("/metrics", |_, _| std::fs::metadata(&file).unwrap().blocks() * 512 < 8 << 20).await;
}

/// Each container has files of its own, so that a lease on one concerns no other. The library is open in every process
/// that has loaded it, and a file that is open elsewhere cannot be leased.
#[tokio::test]
async fn no_two_containers_share_a_file_but_the_library() {
    let (_, first, second) = neighbours().await;
    for file in [path::LIMITS, path::ALLOWANCE, path::STATE, path::PRELOAD] {
        assert_ne!(host(&first, file).0, host(&second, file).0, "{file}");
    }
    assert_eq!(host(&first, path::LIBRARY).0, host(&second, path::LIBRARY).0);
}

#[tokio::test]
async fn a_gpu_that_was_not_given_is_seen() {
    let (stage, ..) = neighbours().await;
    let pod = json!({
        "metadata": { "name": "none", "namespace": "ns" },
        "spec": { "containers": [{ "name": "main", "image": "i" }] }, "status": { "phase": "Pending" },
    });
    stage.server.create("pods", pod).unwrap();
    stage.server.bind("ns", "none", "n").unwrap();
    let pid = std::process::id();
    let other = OnGpu { gpu: "GPU-b", ..small(pid, "hostile") };
    on_gpus(&stage, &[small(pid, "honest"), other, small(pid, "none")]);
    let text = shown(&stage, breach("foreign", "none", "GPU-a")).await;
    assert!(!text.contains(&breach("foreign", "honest", "GPU-a")), "{text}");
    shown(&stage, breach("foreign", "hostile", "GPU-b")).await;
    told(&stage, "GPUNotGiven", "container \"main\" uses GPU GPU-a, which it was not given").await;
    told(&stage, "GPUNotGiven", "container \"main\" uses GPU GPU-b, which it was not given").await;
}

#[tokio::test]
async fn compute_above_the_ceiling_for_a_while_is_seen() {
    let (stage, ..) = neighbours().await;
    let pid = std::process::id();
    let busy = |pod, utilization| OnGpu { utilization, ..small(pid, pod) };
    on_gpus(&stage, &[busy("honest", 39), busy("hostile", 45)]);
    let text = shown(&stage, breach("compute", "hostile", "GPU-a")).await;
    assert!(!text.contains(&breach("compute", "honest", "GPU-a")), "{text}");
    told(&stage, "GPUComputeAboveShare", "its share is 30 %").await;
}

/// The series of a flag of the pod's container `main`, without its value.
fn flag_of(name: &str, pod: &str) -> String {
    format!(
        "kerf_plugin_container_limiter_flag{{container=\"main\",flag=\"{name}\",namespace=\"ns\",node=\"n\",pod=\"{pod}\"}}"
    )
}

/// What `/debug/state` says of the flags of the pod's container.
fn flags_in(answer: &str, pod: &str) -> Value {
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let state: Value = serde_json::from_str(body).unwrap();
    let found = state["pods"].as_array().unwrap().iter().find(|one| one["name"] == pod);
    found.map_or(Value::Null, |pod| pod["containers"][0]["limiter_flags"].clone())
}

/// Programs that set a flag may have ended, so no process is on the GPU here.
#[tokio::test]
async fn what_a_limiter_flags_is_told_while_its_container_exists() {
    let (stage, _, second) = neighbours().await;
    let file = std::fs::OpenOptions::new().write(true).open(host(&second, path::STATE).0).unwrap();
    let set = |bits: u32| {
        let at = offset_of!(state::State, header) + offset_of!(state::Header, flags);
        file.write_all_at(&bits.to_ne_bytes(), at as u64).unwrap();
    };
    // the container can write this, too: bits that mean nothing
    set(state::Flags::OVER.0 | state::Flags::UNMEASURED.0 | 1 << 31);
    let text = shown(&stage, format!("{} 1\n", flag_of("over", "hostile"))).await;
    assert!(text.contains(&format!("{} 1\n", flag_of("unmeasured", "hostile"))), "{text}");
    assert_eq!(text.matches("\nkerf_plugin_container_limiter_flag{").count(), 2, "{text}");
    let told = stage.get("/debug/state").await.1;
    assert_eq!(flags_in(&told, "hostile"), json!(["over", "unmeasured"]));
    assert_eq!(flags_in(&told, "honest"), json!([]));
    // every name, and a container cannot make more series than there are names
    set(u32::MAX);
    let names = state::Flags(u32::MAX).names();
    let all: Vec<String> = names.map(|name| format!("{} 1\n", flag_of(name, "hostile"))).collect();
    let text = stage.until("/metrics", |_, text| all.iter().all(|series| text.contains(series))).await;
    assert_eq!(text.matches("\nkerf_plugin_container_limiter_flag{").count(), all.len(), "{text}");
    // also while the driver has processes there
    on_gpus(&stage, &[small(std::process::id(), "hostile")]);
    set(state::Flags::FAULT.0);
    let only = format!("{} 1\n", flag_of("fault", "hostile"));
    let alone = |text: &str| text.contains(&only) && text.matches("container_limiter_flag{").count() == 1;
    stage.until("/metrics", |_, text| alone(text)).await;
    stage.kubelet.complete_pod("ns", "hostile", "Succeeded").await.unwrap();
    stage.phase("hostile", "Succeeded").await;
    stage.server.force_delete("pods", "ns", "hostile").unwrap();
    stage.until("/metrics", |_, text| !text.contains("container_limiter_flag{")).await;
    stage.until("/debug/state", |_, text| flags_in(text, "hostile").is_null()).await;
}
