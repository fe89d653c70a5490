//! The multi-process service, with a stand-in for NVIDIA's control program that takes the same commands: in the
//! foreground it is the daemon, otherwise it hands one command to it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kerf::annotation::{self, Keys};
use kerf_limiter_contract::path;
use serde_json::json;

use crate::isolation::{divided, host};
use crate::stage::{CORE, MEMORY, SOON, Stage, placement};

/// Commands are lines of a file, answers are numbers; the daemon runs while its `control` exists.
const CONTROL: &str = r#"#!/bin/sh
pipe=$CUDA_MPS_PIPE_DIRECTORY
if [ "$1" = -f ]; then
    [ ! -e "$pipe/../refuse" ] || exit 1
    echo "daemon $CUDA_VISIBLE_DEVICES" >>"$pipe/../journal"
    : >"$pipe/control"
    exec sleep 1000
fi
[ -e "$pipe/control" ] || exit 1
read -r command
echo "$command" >>"$pipe/../journal"
echo 100.0
"#;

struct Node {
    stage: Stage,
    directory: PathBuf,
}

async fn node() -> Node {
    let mut stage = Stage::new().await;
    std::fs::write(&stage.library, "a library").unwrap();
    let program = stage.library.with_file_name("nvidia-cuda-mps-control");
    std::fs::write(&program, CONTROL).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    stage.flags = vec![format!("--mps-control={}", program.display())];
    let directory = stage.library.with_file_name("run").join("mps");
    stage.start_plugin().await;
    stage.registered().await;
    Node { stage, directory }
}

impl Node {
    fn journal(&self, gpu: &str) -> String {
        std::fs::read_to_string(self.directory.join(gpu).join("journal")).unwrap_or_default()
    }

    async fn level(&self, gpu: &str, level: &str) {
        let key = "inspur.com/gpu-inventory";
        let told = |node: Option<&serde_json::Value>| {
            let text = node.and_then(|node| node["metadata"]["annotations"][key].as_str()).unwrap_or_default();
            let gpus = annotation::inventory::decode(text).unwrap_or_default();
            gpus.devices().iter().any(|device| device.id.as_str() == gpu && device.isolation.as_str() == level)
        };
        let waited = self.stage.server.wait_for_object("nodes", "", "n", SOON, told).await;
        waited.unwrap_or_else(|error| panic!("{gpu} {level}: {error}; {}", self.journal(gpu)));
    }
}

#[tokio::test]
async fn each_card_has_a_daemon_that_is_found_where_clients_look() {
    let node = node().await;
    node.level("GPU-a", "mps").await;
    node.level("GPU-b", "mps").await;
    assert!(node.journal("GPU-a").starts_with("daemon GPU-a\n"), "{}", node.journal("GPU-a"));
    node.stage.place("p", 1, &[("main", 30, 10, "GPU-b")]);
    let annotations = node.stage.confirmed("p").await;
    assert_eq!(annotations["inspur.com/gpu-isolation"], r#"{"main":"mps"}"#);
    let container = node.stage.started("p", "main").await;
    assert_eq!(container.env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"], "30");
    assert_eq!(container.env["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"], "0=2560M");
    assert!(!container.env.contains_key("CUDA_MPS_PIPE_DIRECTORY"));
    let pipe = container.mounts.iter().find(|mount| mount.container_path == "/tmp/nvidia-mps").unwrap();
    assert!(Path::new(&pipe.host_path).join("control").exists());
    // the limiter is used as well
    assert!(container.mounts.iter().any(|mount| mount.container_path == "/etc/kerf"));
    // the most that a client without its environment has is the largest share of the GPU
    let told = async {
        loop {
            let journal = node.journal("GPU-b");
            let percent = journal.contains("set_default_active_thread_percentage 30\n");
            if percent && journal.contains("set_default_device_pinned_mem_limit 0 2560M\n") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, told).await.unwrap_or_else(|_| panic!("{}", node.journal("GPU-b")));
}

/// The service divides the multiprocessors, and a part of the time of a part would be a quarter for a half. Memory the service
/// limits for each process, and the limiter for all of them together.
#[tokio::test]
async fn the_limiter_leaves_compute_to_the_service() {
    let node = node().await;
    node.level("GPU-b", "mps").await;
    node.stage.place("p", 1, &[("main", 30, 10, "GPU-b")]);
    let annotations = node.stage.confirmed("p").await;
    assert_eq!(annotations["inspur.com/gpu-isolation"], r#"{"main":"mps"}"#);
    let container = node.stage.started("p", "main").await;
    assert_eq!(divided(&container), (2560, 100, 100));
    // also where the limits are written again
    std::fs::remove_file(host(&container, path::LIMITS).0).unwrap();
    node.stage.kubelet.restart_container("ns", "p", "main").await.unwrap();
    assert_eq!(divided(&container), (2560, 100, 100));
}

/// A server serves one user at a time; another user would silently wait for it.
#[tokio::test]
async fn a_container_of_another_user_than_the_daemons_is_left_to_the_limiter() {
    let node = node().await;
    node.level("GPU-a", "mps").await;
    let place = |name: &str, time, isolation: Option<&str>| {
        let mut annotations = annotation::write(&placement(time, &[("main", 30, 10, "GPU-a")]), &Keys::default());
        annotations.extend(isolation.map(|level| ("inspur.com/isolation".to_owned(), level.to_owned())));
        let pod = json!({
            "metadata": { "name": name, "namespace": "ns", "annotations": annotations },
            "spec": {
                "securityContext": { "runAsUser": 65534 },
                "containers": [{ "name": "main", "image": "i", "resources": { "limits": { CORE: "30", MEMORY: "10" } } }],
            },
            "status": { "phase": "Pending" },
        });
        node.stage.server.create("pods", pod).unwrap();
        node.stage.server.bind("ns", name, "n").unwrap();
    };
    place("p", 1, None);
    let annotations = node.stage.confirmed("p").await;
    assert_eq!(annotations["inspur.com/gpu-isolation"], r#"{"main":"limiter"}"#);
    let container = node.stage.started("p", "main").await;
    assert!(container.mounts.iter().all(|mount| mount.container_path != "/tmp/nvidia-mps"));
    assert!(!container.env.contains_key("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"));
    place("q", 2, Some("mps"));
    let failed = |pod: Option<&serde_json::Value>| pod.is_some_and(|pod| pod["status"]["phase"] == "Failed");
    let pod = node.stage.server.wait_for_object("pods", "ns", "q", SOON, failed).await.unwrap().unwrap();
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(message.contains("requires isolation mps, but shares of GPU GPU-a have limiter"), "{message}");
}

#[tokio::test]
async fn a_card_whose_daemon_is_gone_or_whose_directory_is_wrong_has_not_this_rung() {
    let mut node = node().await;
    node.level("GPU-a", "mps").await;
    // a user who could put another socket there could take clients from the daemon
    let pipe = node.directory.join("GPU-a/pipe");
    std::fs::set_permissions(&pipe, std::fs::Permissions::from_mode(0o777)).unwrap();
    node.level("GPU-a", "limiter").await;
    std::fs::set_permissions(&pipe, std::fs::Permissions::from_mode(0o755)).unwrap();
    node.level("GPU-a", "mps").await;
    std::fs::write(node.directory.join("GPU-b/refuse"), "").unwrap();
    std::fs::remove_file(node.directory.join("GPU-b/pipe/control")).unwrap();
    node.level("GPU-b", "limiter").await;
    node.stage.stop_plugin().await;
}

/// Containers of the same user as the daemon's can write its directory.
#[tokio::test]
async fn what_a_container_puts_in_place_of_the_daemons_is_noticed() {
    let mut node = node().await;
    node.level("GPU-a", "mps").await;
    node.level("GPU-b", "mps").await;
    let pipe = |gpu: &str| node.directory.join(gpu).join("pipe");
    let (own, link) = (pipe("GPU-a").join("control"), pipe("GPU-b").join("log"));
    // a socket that somebody else listens at
    std::fs::rename(&own, own.with_extension("old")).unwrap();
    std::fs::write(&own, "").unwrap();
    node.level("GPU-a", "limiter").await;
    std::fs::rename(own.with_extension("old"), &own).unwrap();
    node.level("GPU-a", "mps").await;
    // a file that the daemon would write as root
    std::os::unix::fs::symlink(&node.stage.library, &link).unwrap();
    node.level("GPU-b", "limiter").await;
    // before the daemon starts again, it is gone
    node.stage.stop_plugin().await;
    node.stage.start_plugin().await;
    node.level("GPU-b", "mps").await;
    assert!(!link.exists() && std::fs::read_to_string(&node.stage.library).unwrap() == "a library");
    // no container has the directory of the logs
    node.stage.place("p", 1, &[("main", 30, 10, "GPU-b")]);
    node.stage.confirmed("p").await;
    let container = node.stage.started("p", "main").await;
    let log = node.directory.join("GPU-b/log");
    assert!(log.is_dir() && container.mounts.iter().all(|mount| !log.starts_with(&mount.host_path)));
}
