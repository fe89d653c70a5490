//! tkestack's vcuda-controller finds the files that it reads and its socket, and those of no other container.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use kerf_proto::vcuda::VDeviceRequest;
use kerf_proto::vcuda::vcuda_service_client::VcudaServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::stage::Stage;

const ID: &str = "8f3c0d1e2b4a5968778695a4b3c2d1e0f8f3c0d1e2b4a5968778695a4b3c2d1e";

/// As a program in the container does, but by the host's name of the directory.
async fn client(directory: &Path) -> VcudaServiceClient<Channel> {
    // a path of a socket is short
    let short = tempfile::tempdir().unwrap();
    let link = short.path().join("v");
    symlink(directory, &link).unwrap();
    let socket = format!("unix:{}", link.join("vcuda.sock").display());
    let channel = Endpoint::from_shared(socket).unwrap().connect().await.unwrap();
    VcudaServiceClient::new(channel)
}

struct Node {
    stage: Stage,
    uid: String,
    vcuda: PathBuf,
    proc: PathBuf,
}

async fn node() -> Node {
    let mut stage = Stage::new().await;
    let proc = stage.library.with_file_name("proc");
    let groups = stage.library.with_file_name("cgroup");
    stage.flags = vec![
        "--tkestack".to_owned(),
        format!("--proc-root={}", proc.display()),
        format!("--cgroup-root={}", groups.display()),
    ];
    stage.start_plugin().await;
    stage.registered().await;
    stage.place("p", 1, &[("main", 50, 30, "GPU-a")]);
    stage.confirmed("p").await;
    let container = stage.started("p", "main").await;
    let mount = container.mounts.iter().find(|mount| mount.container_path == "/etc/vcuda").unwrap();
    assert!(mount.read_only);
    let pod = stage.server.get("pods", "ns", "p").unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let group = groups.join(format!("kubepods/pod{uid}/{ID}"));
    std::fs::create_dir_all(&group).unwrap();
    std::fs::write(group.join("cgroup.procs"), "4711\n12\n").unwrap();
    Node { vcuda: PathBuf::from(&mount.host_path), stage, uid, proc }
}

impl Node {
    /// The control group of this process, which calls, as the plugin sees it.
    fn runs_in(&self, uid: &str, id: &str) {
        let own = self.proc.join(std::process::id().to_string());
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("cgroup"), format!("0::/kubepods/pod{uid}/{id}\n")).unwrap();
    }

    fn request(&self) -> VDeviceRequest {
        VDeviceRequest {
            bus_id: String::new(),
            pod_uid: self.uid.clone(),
            container_name: String::new(),
            container_id: ID.to_owned(),
        }
    }
}

#[tokio::test]
async fn a_container_that_registers_finds_its_limits_and_its_processes() {
    let mut node = node().await;
    node.runs_in(&node.uid, ID);
    client(&node.vcuda).await.register_v_device(node.request()).await.unwrap();
    let config = std::fs::read(node.vcuda.join(ID).join("vcuda.config")).unwrap();
    assert_eq!(config.len(), 8240);
    assert_eq!(config[..36], *node.uid.as_bytes());
    assert_eq!(config[4096..4101], *b"main\0");
    assert_eq!(config[8208..8216], 8_053_063_680u64.to_le_bytes());
    assert_eq!((config[8216], config[8220], config[8232]), (50, 1, 1));
    let pids = std::fs::read(node.vcuda.join(ID).join("pids.config")).unwrap();
    assert_eq!(pids, [12u32.to_le_bytes(), 4711u32.to_le_bytes()].concat());
    // and so it does after a restart of the plugin
    std::fs::remove_dir_all(node.vcuda.join(ID)).unwrap();
    node.stage.stop_plugin().await;
    node.stage.start_plugin().await;
    node.stage.registered().await;
    let found = |_: u16, text: &str| text.contains("confirmed");
    node.stage.until("/debug/state", found).await;
    client(&node.vcuda).await.register_v_device(node.request()).await.unwrap();
    assert!(node.vcuda.join(ID).join("vcuda.config").is_file());
}

#[tokio::test]
async fn who_is_another_than_it_says_is_refused() {
    let node = node().await;
    let mut client = client(&node.vcuda).await;
    let other = "00000000-0000-4000-8000-000000000000";
    // no container; another pod that has reached the socket; another container id than its own
    let refused = client.register_v_device(node.request()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    node.runs_in(other, ID);
    for uid in [node.uid.as_str(), other] {
        let request = VDeviceRequest { pod_uid: uid.to_owned(), ..node.request() };
        let refused = client.register_v_device(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{uid}");
    }
    node.runs_in(&node.uid, ID);
    let request = VDeviceRequest { container_id: ID.replace('8', "9"), ..node.request() };
    let refused = client.register_v_device(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert!(std::fs::read_dir(&node.vcuda).unwrap().all(|entry| entry.unwrap().file_name() == "vcuda.sock"));
}
