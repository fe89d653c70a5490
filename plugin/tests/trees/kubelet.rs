//! From tree to container, through a kubelet that speaks the real protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use kerf::annotation::{self, Keys};
use kerf::plan::{ContainerGrant, DeviceRef, Grant, Placement, Plan};
use kerf::request::ContainerKind;
use kerf::units::Share;
use kerf_plugin::Plugin;
use kerf_testkit::api::ApiServer;
use kerf_testkit::kubelet::{Call, Container, ContainerState, Kubelet, KubeletConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::forest::Forest;
use crate::offers::config;

pub const SOON: Duration = Duration::from_secs(30);

/// Tree, flags, resource and its amount, and device files that a container with one of it has.
type Case<'a> = (&'a str, &'a [&'a str], &'a str, usize, &'a [&'a str]);

pub struct Stage {
    pub server: ApiServer,
    pub kubelet: Kubelet,
    pub forest: Forest,
    pub plugins: Vec<(Plugin, CancellationToken)>,
    dir: TempDir,
}

impl Stage {
    pub async fn new(forest: Forest) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = ApiServer::start().await.unwrap();
        let kubelet = Kubelet::start(KubeletConfig::new("n", server.url(), dir.path())).await.unwrap();
        Self { server, kubelet, forest, plugins: Vec::new(), dir }
    }

    /// Starts a plugin with these flags, which gets the API server where it is given the name of its Node.
    pub async fn start(&mut self, flags: &[&str]) {
        let directory = format!("-plugin-directory={}", self.kubelet.config().device_plugins_dir.display());
        let free = ["--metrics-listen=127.0.0.1:0", "--debug-listen=127.0.0.1:0"];
        let own = [free[0], free[1], "--health-period=20ms", directory.as_str()];
        let mut config = config(&self.forest, &[&own, flags].concat());
        for contract in &mut config.contracts {
            contract.period = Duration::from_millis(20);
        }
        config.pod_resources_dir.clone_from(&self.kubelet.config().pod_resources_dir);
        let token = CancellationToken::new();
        let client = if !config.node.as_str().is_empty() {
            let kubeconfig = self.dir.path().join("kubeconfig");
            self.server.write_kubeconfig(&kubeconfig).unwrap();
            Some(kerf_runtime::client::connect(Some(&kubeconfig)).await.unwrap())
        } else {
            None
        };
        let plugin = kerf_plugin::start(config, client, token.clone()).await.unwrap();
        self.plugins.push((plugin, token));
    }

    pub async fn allocatable(&self, resource: &str, amount: usize) {
        let amount = amount.to_string();
        let shown =
            |node: Option<&Value>| node.is_some_and(|node| node["status"]["allocatable"][resource] == amount);
        let seen = self.server.wait_for_object("nodes", "", "n", SOON, shown).await;
        seen.unwrap_or_else(|error| panic!("{resource} {amount}: {error} {:?}", self.kubelet.resources()));
    }

    pub fn create(&self, name: &str, limits: &Value, annotations: &Value) {
        let pod = json!({
            "metadata": { "name": name, "namespace": "ns", "annotations": annotations },
            "spec": { "containers": [{ "name": "main", "image": "i", "resources": { "limits": limits } }] },
            "status": { "phase": "Pending" },
        });
        self.server.create("pods", pod).unwrap();
        self.server.bind("ns", name, "n").unwrap();
    }

    pub async fn run(&self, name: &str, limits: Value) -> Container {
        self.create(name, &limits, &json!({}));
        self.running(name).await
    }

    pub async fn running(&self, name: &str) -> Container {
        let running = |containers: &[Container]| {
            containers.iter().find(|c| c.pod == name && c.state == ContainerState::Running).cloned()
        };
        self.kubelet.wait_for(SOON, running).await.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// What the first plugin tells Prometheus.
    pub async fn metrics(&self) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.plugins[0].0.listening().metrics).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub async fn end(&mut self) {
        for (plugin, token) in self.plugins.drain(..) {
            token.cancel();
            plugin.finished().await.unwrap();
        }
    }

    pub async fn stop(mut self) {
        self.end().await;
    }
}

fn nodes(container: &Container) -> Vec<&str> {
    container.devices.iter().map(|spec| spec.host_path.as_str()).collect()
}

#[tokio::test]
async fn every_tree_reaches_a_container() {
    let cases: [Case<'_>; 7] = [
        ("a", &["-profile=amd"], "amd.com/gpu", 1, &["/dev/kfd", "/dev/dri/card0", "/dev/dri/renderD128"]),
        ("b", &["-profile=amd", "-resource_naming_strategy=mixed"], "amd.com/cpx_nps1", 32, &["/dev/kfd"]),
        ("c", &["-profile=amd", "-pulse=1"], "amd.com/gpu", 8, &["/dev/kfd"]),
        ("d", &["-profile=amd"], "amd.com/gpu", 63, &["/dev/kfd", "/dev/dri/card56", "/dev/dri/renderD184"]),
        ("e", &["-profile=intel"], "gpu.intel.com/xe", 1, &["/dev/dri/card1", "/dev/dri/renderD129"]),
        (
            "f",
            &["-profile=nvidia", "--mig-strategy=mixed", "--mig-profile=3g.20gb", "--pass-device-specs"],
            "nvidia.com/mig-3g.20gb",
            2,
            &["/dev/nvidiactl", "/dev/nvidia0"],
        ),
        ("g", &["-profile=deepomatic"], "deepomatic.com/shared-gpu", 200, &["/dev/nvidiactl", "/dev/nvidia0"]),
    ];
    for (tree, flags, resource, amount, wanted) in cases {
        let mut stage = Stage::new(Forest::named(tree)).await;
        stage.start(flags).await;
        stage.allocatable(resource, amount).await;
        let container = stage.run("p", json!({ resource: "1" })).await;
        for node in wanted {
            assert!(nodes(&container).contains(node), "{tree}: {:?}", nodes(&container));
        }
        // all of it but what the pod has
        if amount > 1 {
            let rest = stage.run("q", json!({ resource: (amount - 1).to_string() })).await;
            assert!(rest.resources[resource].is_disjoint(&container.resources[resource]));
        }
        assert!(!stage.kubelet.calls().iter().any(|call| matches!(call, Call::Allocate { error: Some(_), .. })));
        stage.stop().await;
    }
}

#[tokio::test]
async fn four_pods_of_two_shares_are_spread_or_packed_over_two_cards() {
    for (policy, wanted) in [("distributed", [4, 4]), ("packed", [4, 4])] {
        let mut stage = Stage::new(Forest::named("g")).await;
        let policy_flag = format!("--share-policy={policy}");
        stage.start(&["-profile=deepomatic", "-gpu-duplication-factor=4", &policy_flag]).await;
        stage.allocatable("deepomatic.com/shared-gpu", 8).await;
        let mut cards: BTreeMap<String, usize> = BTreeMap::new();
        let mut by_pod = Vec::new();
        for pod in 0..4 {
            let container = stage.run(&format!("p{pod}"), json!({ "deepomatic.com/shared-gpu": "2" })).await;
            let ids = &container.resources["deepomatic.com/shared-gpu"];
            let names: Vec<String> = ids.iter().map(|id| id.split_once("-_-").unwrap().0.to_owned()).collect();
            for name in &names {
                assert!(nodes(&container).contains(&format!("/dev/{name}").as_str()));
                *cards.entry(name.clone()).or_default() += 1;
            }
            by_pod.push(names);
        }
        assert_eq!(cards.into_values().collect::<Vec<_>>(), wanted);
        let on_one = by_pod.iter().filter(|names| names[0] == names[1]).count();
        assert_eq!(on_one, if policy == "packed" { 4 } else { 0 }, "{policy}: {by_pod:?}");
        stage.stop().await;
    }
}

#[tokio::test]
async fn a_card_that_is_removed_is_ill_until_it_is_back() {
    let mut stage = Stage::new(Forest::named("e")).await;
    stage.start(&["-profile=intel", "-shared-dev-num=3"]).await;
    stage.allocatable("gpu.intel.com/xe", 3).await;
    stage.run("before", json!({ "gpu.intel.com/xe": "1" })).await;
    let gone = stage.forest.path().join("dev/dri");
    for name in ["card1", "renderD129"] {
        std::fs::remove_file(gone.join(name)).unwrap();
    }
    stage.allocatable("gpu.intel.com/xe", 0).await;
    // the capacity stays, and so does the other GPU
    assert_eq!(stage.kubelet.resources()["gpu.intel.com/xe"], (3, 0));
    assert_eq!(stage.kubelet.resources()["gpu.intel.com/i915"], (3, 3));
    for name in ["card1", "renderD129"] {
        std::fs::write(gone.join(name), "").unwrap();
    }
    stage.allocatable("gpu.intel.com/xe", 3).await;
    let container = stage.run("after", json!({ "gpu.intel.com/xe": "2" })).await;
    assert_eq!(nodes(&container), ["/dev/dri/card1", "/dev/dri/renderD129"]);
    stage.stop().await;
}

#[tokio::test]
async fn a_driver_that_comes_late_is_waited_for() {
    let mut stage = Stage::new(Forest::described(json!({}))).await;
    stage.start(&["-profile=amd"]).await;
    kerf_testkit::tree::Tree::named("a").unwrap().write(stage.forest.path()).unwrap();
    stage.allocatable("amd.com/gpu", 1).await;
    stage.stop().await;
}

#[tokio::test]
async fn profiles_on_one_node_do_not_disturb_each_other() {
    let forest = Forest::described(json!({ "cards": [
        { "vendor": "amd", "address": "0000:19:00.0", "card": 1, "render": 129 },
        { "vendor": "intel", "address": "0000:00:02.0", "card": 0, "render": 128, "driver": "i915" },
        { "vendor": "nvidia", "address": "0000:3b:00.0", "minor": 0, "uuid": "GPU-a" },
    ] }));
    let mut stage = Stage::new(forest).await;
    // two in one process, the third in its own
    stage.start(&["-profile=amd,intel"]).await;
    stage.start(&["-profile=nvidia", "--nvidia-replicas=2"]).await;
    let all = [("amd.com/gpu", 1), ("gpu.intel.com/i915", 1), ("nvidia.com/gpu", 2)];
    for (resource, amount) in all {
        stage.allocatable(resource, amount).await;
    }
    let limits = json!({ "amd.com/gpu": "1", "gpu.intel.com/i915": "1", "nvidia.com/gpu": "1" });
    let container = stage.run("p", limits).await;
    assert!(container.conflicts.is_empty(), "{:?}", container.conflicts);
    assert_eq!(container.env["NVIDIA_VISIBLE_DEVICES"], "GPU-a");
    // one vendor's driver goes; the others stay
    std::fs::remove_file(stage.forest.path().join("dev/kfd")).unwrap();
    stage.allocatable("amd.com/gpu", 0).await;
    stage.kubelet.restart().await.unwrap();
    stage.kubelet.wait_registered(&["amd.com/gpu", "gpu.intel.com/i915", "nvidia.com/gpu"], SOON).await.unwrap();
    stage.allocatable("nvidia.com/gpu", 2).await;
    stage.run("q", json!({ "nvidia.com/gpu": "1" })).await;
    stage.stop().await;
}

#[tokio::test]
async fn cdi_files_say_what_the_answer_says() {
    let mut stage = Stage::new(Forest::named("e")).await;
    stage.start(&["-profile=intel"]).await;
    stage.allocatable("gpu.intel.com/i915", 1).await;
    let container = stage.run("p", json!({ "gpu.intel.com/i915": "1" })).await;
    assert_eq!(container.cdi_devices, ["intel.cdi.k8s.io/gpu=card0"]);
    let file = stage.forest.path().join("cdi/intel.cdi.k8s.io-gpu-card0.yaml");
    let spec: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!((spec["cdiVersion"].as_str(), spec["kind"].as_str()), (Some("0.5.0"), Some("intel.cdi.k8s.io/gpu")));
    let edits = &spec["devices"][0]["containerEdits"];
    let paths = |list: &Value, key: &str| {
        list.as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths(&edits["deviceNodes"], "path"), nodes(&container));
    let mounts: Vec<_> = container.mounts.iter().map(|mount| mount.host_path.clone()).collect();
    assert_eq!(paths(&edits["mounts"], "hostPath"), mounts);
    stage.stop().await;
}

#[tokio::test]
async fn vcuda_is_offered_on_amd_and_intel_cards_beside_other_profiles() {
    let cases: [(&str, &str, &str, &[&str]); 2] = [
        ("a", "amd", "0000:19:00.0", &["/dev/dri/card0", "/dev/dri/renderD128", "/dev/kfd"]),
        ("e", "intel", "0042:01:05.0", &["/dev/dri/card1", "/dev/dri/renderD129"]),
    ];
    for (tree, backend, card, wanted) in cases {
        let mut stage = Stage::new(Forest::named(tree)).await;
        let backend_flag = format!("--backend={backend}");
        stage.start(&["--node-name=n", &backend_flag, "--profile=vcuda,deepomatic"]).await;
        let cards = if tree == "e" { 2 } else { 1 };
        stage.allocatable("inspur.com/vcuda-core", 100 * cards).await;
        let shown = |node: Option<&Value>| {
            let text = node.and_then(|node| node["metadata"]["annotations"]["inspur.com/gpu-inventory"].as_str());
            text.is_some_and(|text| text.contains(card))
        };
        stage.server.wait_for_object("nodes", "", "n", SOON, shown).await.unwrap();
        let device = DeviceRef { id: card.into(), index: 0 };
        let gpus = Grant::Share { device, share: Share::new(300, 2048) };
        let grant = ContainerGrant { container: "main".into(), kind: ContainerKind::App, position: 0, gpus };
        let placement = Placement::new("n", 1, Plan { grants: vec![grant] });
        let limits = json!({ "inspur.com/vcuda-core": "30", "inspur.com/vcuda-memory": "8" });
        stage.create("p", &limits, &json!(annotation::write(&placement, &Keys::default())));
        let container = stage.running("p").await;
        assert_eq!(nodes(&container), wanted);
        assert!(container.env.is_empty(), "{:?}", container.env);
        let held = &container.resources["inspur.com/vcuda-core"];
        assert!(held.iter().all(|id| id.starts_with(&format!("{card}::"))), "{held:?}");
        stage.stop().await;
    }
}
