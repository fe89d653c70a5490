//! Limits belong to their container, whichever other container has, or had, its ids of core.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kerf::annotation::{self, Keys};
use kerf::plan::{ContainerGrant, DeviceRef, Grant, Placement, Plan};
use kerf::request::ContainerKind::{self, App, Init, Sidecar};
use kerf::units::Share;
use kerf_limiter_contract::{allowance, overhead, path, state};
use kerf_testkit::kubelet::Container;
use serde_json::json;

use crate::isolation::{host, isolation, limits, with_limiter};
use crate::stage::{CORE, MEMORY, SOON, Stage, two_cards};

/// Kind, name, core and memory in units, GPU.
type Part<'a> = (ContainerKind, &'a str, u64, u64, &'a str);

/// Runs a pod of shares, each on its GPU, as the extender would.
fn run(stage: &Stage, name: &str, parts: &[Part<'_>]) {
    let (mut apps, mut inits) = (Vec::new(), Vec::new());
    let mut grants = Vec::new();
    for (kind, container, core, memory, card) in parts {
        let limits = json!({ CORE: core.to_string(), MEMORY: memory.to_string() });
        let mut spec = json!({ "name": container, "image": "i", "resources": { "limits": limits } });
        if *kind == Sidecar {
            spec["restartPolicy"] = json!("Always");
        }
        let list = if *kind == App { &mut apps } else { &mut inits };
        let position = u32::try_from(list.len()).unwrap();
        list.push(spec);
        let share = Share::new(u32::try_from(core * 10).unwrap(), memory * 256);
        let device = DeviceRef { id: (*card).into(), index: u32::from(*card == "GPU-b") };
        let gpus = Grant::Share { device, share };
        grants.push(ContainerGrant { container: (*container).into(), kind: *kind, position, gpus });
    }
    let placement = Placement::new("n", 1, Plan { grants });
    let pod = json!({
        "metadata": {
            "name": name, "namespace": "ns", "annotations": annotation::write(&placement, &Keys::default()),
        },
        "spec": { "containers": apps, "initContainers": inits }, "status": { "phase": "Pending" },
    });
    stage.server.create("pods", pod).unwrap();
    stage.server.bind("ns", name, "n").unwrap();
}

/// The GPU, the memory in units and the compute in percent that a container finds in its limits.
fn found(container: &Container) -> (String, u64, u8) {
    let limits = limits(container);
    let [device] = limits.devices() else { panic!("{limits:?}") };
    (device.uuid.to_string(), device.memory / (256 << 20), device.core)
}

/// Waits until the node has decided how much of its GPU's time the container may use.
async fn paced(container: &Container) {
    let file = host(container, path::ALLOWANCE).0;
    let decided = async {
        while std::fs::read(&file).unwrap()[allowance::offset(0)..].iter().all(|byte| *byte == 0) {
            tokio::task::yield_now().await;
        }
    };
    let name = (&container.pod, &container.name);
    tokio::time::timeout(SOON, decided).await.unwrap_or_else(|_| panic!("{name:?} is not paced"));
}

/// The directory of a container's limits.
fn directory(container: &Container) -> PathBuf {
    host(container, path::LIMITS).0.ancestors().nth(2).unwrap().to_owned()
}

/// Every container of the pod, whatever its state.
async fn containers(stage: &Stage, pod: &str, count: usize) -> Vec<Container> {
    let all = |containers: &[Container]| {
        let own: Vec<Container> = containers.iter().filter(|c| c.pod == pod && c.starts > 0).cloned().collect();
        (own.len() == count).then_some(own)
    };
    stage.kubelet.wait_for(SOON, all).await.unwrap()
}

async fn ends(stage: &Stage, pod: &str) {
    stage.kubelet.complete_pod("ns", pod, "Succeeded").await.unwrap();
    stage.phase(pod, "Succeeded").await;
}

#[tokio::test]
async fn the_next_pod_with_the_same_ids_has_limits_of_its_own() {
    let mut stage = with_limiter().await;
    run(&stage, "first", &[(App, "main", 30, 20, "GPU-a")]);
    stage.confirmed("first").await;
    let mut last = stage.started("first", "main").await;
    // completed; completed and deleted; and with a restart of the plugin between
    for (pod, deleted, restarted) in [("second", false, false), ("third", true, false), ("fourth", true, true)] {
        let before = last.pod.clone();
        ends(&stage, &before).await;
        if deleted {
            stage.server.force_delete("pods", "ns", &before).unwrap();
        }
        if restarted {
            stage.stop_plugin().await;
            stage.start_plugin().await;
            stage.registered().await;
        }
        run(&stage, pod, &[(App, "main", 30, 10, "GPU-a")]);
        assert_eq!(isolation(&stage.confirmed(pod).await), r#"{"main":"limiter"}"#);
        let container = stage.started(pod, "main").await;
        assert_eq!(container.ids(CORE), last.ids(CORE), "kubelet gives the same");
        assert_eq!(found(&container), ("GPU-a".to_owned(), 10, 30));
        paced(&container).await;
        assert!(!directory(&last).exists(), "{before}");
        last = container;
    }
}

/// The directory of a pod that ended while the plugin was stopped.
#[tokio::test]
async fn what_is_left_of_an_earlier_pod_on_the_disk_is_nobodys() {
    let mut stage = with_limiter().await;
    run(&stage, "first", &[(App, "main", 30, 20, "GPU-a")]);
    stage.confirmed("first").await;
    let first = stage.started("first", "main").await;
    let (own, kept) = (directory(&first), directory(&first).with_file_name("kept"));
    copy(&own, &kept);
    ends(&stage, "first").await;
    run(&stage, "second", &[(App, "main", 30, 10, "GPU-a")]);
    stage.confirmed("second").await;
    let second = stage.started("second", "main").await;
    // as if its removal had failed: both exist when the plugin starts again
    stage.stop_plugin().await;
    std::fs::rename(&kept, &own).unwrap();
    std::fs::remove_file(host(&second, path::STATE).0).unwrap();
    std::fs::write(host(&second, path::ALLOWANCE).0, allowance::blank()).unwrap();
    let told = std::fs::read(own.join("etc/allowance")).unwrap();
    stage.start_plugin().await;
    stage.registered().await;
    paced(&second).await;
    assert_eq!(std::fs::read(own.join("etc/allowance")).unwrap(), told, "nobody is told anything there");
    stage.kubelet.restart_container("ns", "second", "main").await.unwrap();
    let second = stage.started("second", "main").await;
    assert!(second.start_errors.is_empty(), "{:?}", second.start_errors);
    assert!(host(&second, path::STATE).0.is_file());
    assert_eq!(found(&second), ("GPU-a".to_owned(), 10, 30));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// kubelet gives an app container the ids of the init container before it.
#[tokio::test]
async fn init_containers_and_apps_with_equal_ids_have_each_their_own() {
    let stage = with_limiter().await;
    // names that sort before and after, one the other's prefix
    let names = [["main-init", "main"], ["main", "main-app"], ["a", "b"], ["b", "a"]];
    for (at, [init, app]) in names.into_iter().enumerate() {
        for (card, other) in [("GPU-a", "GPU-a"), ("GPU-a", "GPU-b")] {
            let pod = format!("p{at}-{}", other.to_lowercase());
            run(&stage, &pod, &[(Init, init, 30, 40, card), (App, app, 30, 10, other)]);
            stage.confirmed(&pod).await;
            let [first, second] = &containers(&stage, &pod, 2).await[..] else { panic!() };
            assert_eq!(first.ids(CORE), second.ids(CORE), "kubelet gives the same");
            let expected = [(card.to_owned(), 40, 30), (other.to_owned(), 10, 30)];
            assert_eq!([found(first), found(second)], expected, "{pod}");
            paced(second).await;
            // whichever of them starts again
            for container in [init, app, init] {
                stage.kubelet.restart_container("ns", &pod, container).await.unwrap();
                assert_eq!([found(first), found(second)], expected, "{pod}: {container} started again");
            }
            ends(&stage, &pod).await;
        }
    }
}

#[tokio::test]
async fn every_container_of_a_pod_has_its_own_after_run_was_emptied() {
    let mut stage = with_limiter().await;
    let parts = [
        (Init, "main-init", 20, 8, "GPU-a"),
        (Init, "main", 20, 6, "GPU-a"),
        (Sidecar, "side", 20, 4, "GPU-a"),
        (App, "main-app", 20, 2, "GPU-a"),
        (App, "twin", 20, 2, "GPU-a"),
    ];
    run(&stage, "earlier", &[(App, "main", 20, 12, "GPU-a")]);
    stage.confirmed("earlier").await;
    stage.started("earlier", "main").await;
    ends(&stage, "earlier").await;
    run(&stage, "p", &parts);
    stage.confirmed("p").await;
    let all = containers(&stage, "p", parts.len()).await;
    let expected: Vec<_> = parts.iter().map(|(_, _, _, memory, _)| ("GPU-a".to_owned(), *memory, 20)).collect();
    assert_eq!(all.iter().map(found).collect::<Vec<_>>(), expected);
    let states: Vec<PathBuf> = all.iter().map(|container| host(container, path::STATE).0).collect();
    let run_directory = states[0].ancestors().nth(2).unwrap().to_owned();
    // the machine restarts: while the plugin runs, and before it does
    for restarted in [false, true] {
        if restarted {
            stage.stop_plugin().await;
        }
        std::fs::remove_dir_all(&run_directory).unwrap();
        if restarted {
            stage.start_plugin().await;
            stage.registered().await;
        }
        for (at, container) in all.iter().enumerate() {
            stage.kubelet.restart_container("ns", "p", &container.name).await.unwrap();
            let again = stage.kubelet.container("ns", "p", &container.name).unwrap();
            assert!(again.start_errors.is_empty(), "{:?}", again.start_errors);
            assert!(states[at].is_file(), "{} after {restarted}", container.name);
        }
        let mode = std::fs::metadata(&run_directory).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "tenants' files are not for other users of the host");
        assert_eq!(all.iter().map(found).collect::<Vec<_>>(), expected);
    }
    for container in all.iter().filter(|container| !container.init) {
        paced(container).await;
    }
}

/// This process as its limiter registers it: the place in the state file, and the value.
fn registered() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    let pid = inner.split_whitespace().last().unwrap().parse().unwrap();
    let at = std::mem::offset_of!(state::State, processes) + std::mem::offset_of!(state::Process, owner);
    (at as u64, state::owner(pid, start))
}

/// The processes that a container's limiter has registered are its own, not its predecessor's.
#[tokio::test]
async fn a_process_that_the_limiter_knows_raises_no_alarm_where_an_earlier_pod_had_the_ids() {
    let stage = with_limiter().await;
    run(&stage, "first", &[(App, "main", 30, 20, "GPU-a")]);
    stage.confirmed("first").await;
    let first = stage.started("first", "main").await;
    ends(&stage, "first").await;
    run(&stage, "second", &[(App, "main", 30, 20, "GPU-a")]);
    stage.confirmed("second").await;
    let second = stage.started("second", "main").await;
    assert_eq!(first.ids(CORE), second.ids(CORE), "kubelet gives the same");
    let process = format!(
        "{}[[process]]\npid = {}\ngpu = \"GPU-a\"\nmemory_mib = 1\npod = \"ns/second\"\ncontainer = \"main\"\n",
        two_cards(true),
        std::process::id()
    );
    std::fs::write(&stage.gpus, process).unwrap();
    let breach = r#"kind="unlimited",namespace="ns",node="n",pod="second"} 1"#;
    stage.until("/metrics", |_, text| text.contains(breach)).await;
    let (at, owner) = registered();
    let file = std::fs::OpenOptions::new().write(true).open(host(&second, path::STATE).0).unwrap();
    file.write_all_at(&owner.to_ne_bytes(), at).unwrap();
    stage.until("/metrics", |_, text| text.contains("kerf_plugin") && !text.contains(breach)).await;
}

/// What NVML shows for a process beyond what its limiter knows reaches the limiter, for the entry and the process that it
/// was measured for.
#[tokio::test]
async fn what_the_driver_takes_for_a_process_is_measured_and_told() {
    let stage = with_limiter().await;
    run(&stage, "p", &[(App, "main", 30, 20, "GPU-a")]);
    stage.confirmed("p").await;
    let container = stage.started("p", "main").await;
    assert_eq!(limits(&container).devices()[0].context, 400 << 20);
    let (at, owner) = registered();
    let file = std::fs::OpenOptions::new().write(true).open(host(&container, path::STATE).0).unwrap();
    let held = std::mem::offset_of!(state::State, devices) + std::mem::offset_of!(state::Device, held);
    let context = std::mem::offset_of!(state::State, extras) + std::mem::offset_of!(state::Extra, context);
    for (value, at) in [(1000_u64 << 20, held as u64), (400 << 20, context as u64), (owner, at)] {
        file.write_all_at(&value.to_ne_bytes(), at).unwrap();
    }
    let told = || {
        // opened each time: a start of the container lays a new file
        let file = std::fs::File::open(host(&container, path::OVERHEAD).0).unwrap();
        let word = |at: usize| {
            let mut word = [0; 8];
            file.read_exact_at(&mut word, at as u64).unwrap();
            u64::from_ne_bytes(word)
        };
        (word(overhead::offset(0, 0)).cast_signed() >> 20, word(overhead::owner_offset(0, 0)))
    };
    assert_eq!(told(), (0, 0));
    for (memory, difference) in [(1250, 250), (900, -100)] {
        let process = format!(
            "{}[[process]]\npid = {}\ngpu = \"GPU-a\"\nmemory_mib = {memory}\npod = \"ns/p\"\ncontainer = \"main\"\n",
            two_cards(true),
            std::process::id()
        );
        std::fs::write(&stage.gpus, process).unwrap();
        let measured = async {
            while told() != (difference, owner) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, measured).await.unwrap();
    }
    // the next life of the container begins without it
    stage.kubelet.restart_container("ns", "p", "main").await.unwrap();
    let again = stage.started("p", "main").await;
    assert!(again.start_errors.is_empty(), "{:?}", again.start_errors);
    assert_eq!(told(), (0, 0));
    let file = std::fs::File::open(host(&container, path::STATE).0).unwrap();
    assert_eq!(state::Snapshot::read(file).unwrap().processes, []);
}

#[tokio::test]
async fn a_container_that_starts_again_finds_limits_that_were_lost_while_there_was_no_plugin() {
    let mut stage = with_limiter().await;
    run(&stage, "p", &[(App, "main", 30, 20, "GPU-a")]);
    stage.confirmed("p").await;
    let main = stage.started("p", "main").await;
    for lost in [directory(&main), stage.state_dir()] {
        stage.stop_plugin().await;
        std::fs::remove_dir_all(&lost).unwrap();
        stage.start_plugin().await;
        stage.registered().await;
        stage.kubelet.restart_container("ns", "p", "main").await.unwrap();
        let again = stage.started("p", "main").await;
        assert!(again.start_errors.is_empty(), "{:?}", again.start_errors);
        assert_eq!(found(&main), ("GPU-a".to_owned(), 20, 30), "without {}", lost.display());
        paced(&main).await;
        let annotations = stage.confirmed("p").await;
        assert_eq!(isolation(&annotations), r#"{"main":"limiter"}"#);
    }
}

/// Whatever becomes of the files on the host, a container that starts again finds its limits.
#[tokio::test]
async fn a_container_that_starts_again_finds_its_limits_whatever_became_of_the_files() {
    let stage = with_limiter().await;
    run(&stage, "p", &[(App, "main", 30, 20, "GPU-a"), (App, "side", 10, 4, "GPU-a")]);
    stage.confirmed("p").await;
    let containers = [stage.started("p", "main").await, stage.started("p", "side").await];
    let [main, _] = &containers;
    let (limits, allowance) = (host(main, path::LIMITS).0, host(main, path::ALLOWANCE).0);
    let (etc, own) = (limits.parent().unwrap(), directory(main));
    let all = own.parent().unwrap();
    let library = host(main, path::LIBRARY).0;
    let losses: [(&str, &dyn Fn() -> std::io::Result<()>); 8] = [
        ("limits truncated", &|| std::fs::write(&limits, "")),
        ("limits lost", &|| std::fs::remove_file(&limits)),
        ("allowance lost", &|| std::fs::remove_file(&allowance)),
        ("allowance truncated", &|| std::fs::write(&allowance, "")),
        ("what the container sees lost", &|| std::fs::remove_dir_all(etc)),
        ("its directory lost", &|| std::fs::remove_dir_all(&own)),
        ("all directories lost", &|| std::fs::remove_dir_all(all)),
        ("the library lost", &|| std::fs::remove_dir_all(library.parent().unwrap())),
    ];
    for (loss, lose) in losses {
        lose().unwrap();
        for (container, expected) in
            containers.iter().zip([("GPU-a".to_owned(), 20, 30), ("GPU-a".to_owned(), 4, 10)])
        {
            stage.kubelet.restart_container("ns", "p", &container.name).await.unwrap();
            let again = stage.kubelet.container("ns", "p", &container.name).unwrap();
            assert!(again.start_errors.is_empty(), "{loss}: {:?}", again.start_errors);
            for file in [path::LIMITS, path::ALLOWANCE, path::STATE, path::LIBRARY, path::PRELOAD] {
                assert!(host(container, file).0.is_file(), "{loss}: {file} of {}", container.name);
            }
            assert_eq!(found(container), expected, "{loss}");
            paced(container).await;
        }
    }
}
