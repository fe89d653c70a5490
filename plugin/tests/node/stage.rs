//! One node: API server, kubelet and plugin in this process, GPUs from a file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use kerf::annotation::{self, Keys};
use kerf::plan::{ContainerGrant, DeviceRef, Grant, Placement, Plan, WholeDevice};
use kerf::request::ContainerKind;
use kerf::units::{Mib, Share};
use kerf_plugin::Plugin;
use kerf_plugin::config::{Args, Config};
use kerf_testkit::api::ApiServer;
use kerf_testkit::kubelet::{Container, ContainerState, Kubelet, KubeletConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub const SOON: Duration = Duration::from_secs(20);
pub const CORE: &str = "inspur.com/vcuda-core";
pub const MEMORY: &str = "inspur.com/vcuda-memory";
/// Memory of each GPU: 64 units.
pub const CARD_MIB: u64 = 16384;

pub struct Stage {
    pub server: ApiServer,
    pub kubelet: Kubelet,
    pub plugin: Option<(Plugin, CancellationToken)>,
    pub gpus: PathBuf,
    /// A stand-in for the limiter: any file will do where no program runs.
    pub library: PathBuf,
    /// More flags of the plugin.
    pub flags: Vec<String>,
    /// How long a failure is remembered; `None`: the default.
    pub failure_memory: Option<Duration>,
    dir: TempDir,
}

pub fn two_cards(first_healthy: bool) -> String {
    format!(
        "[[gpu]]\nuuid = \"GPU-a\"\nmemory_mib = {CARD_MIB}\nhealthy = {first_healthy}\n\
         device_nodes = [\"/dev/null\"]\nutilization = 40\n\
         [[gpu]]\nuuid = \"GPU-b\"\nmemory_mib = {CARD_MIB}\ndevice_nodes = [\"/dev/zero\"]\n"
    )
}

impl Stage {
    /// Everything runs and both resources are registered.
    pub async fn ready() -> Self {
        let mut stage = Self::new().await;
        stage.start_plugin().await;
        stage.registered().await;
        stage
    }

    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = ApiServer::start().await.unwrap();
        let kubelet = Kubelet::start(KubeletConfig::new("n", server.url(), dir.path())).await.unwrap();
        let gpus = dir.path().join("gpus.toml");
        std::fs::write(&gpus, two_cards(true)).unwrap();
        let library = dir.path().join("libkerf_limiter.so");
        Self { server, kubelet, plugin: None, gpus, library, flags: Vec::new(), failure_memory: None, dir }
    }

    /// The plugin's command line.
    pub fn arguments(&self) -> Vec<String> {
        let kubelet = self.kubelet.config();
        let path = |path: &std::path::Path| path.display().to_string();
        let own = [
            "kerf-plugin".to_owned(),
            "--node-name=n".to_owned(),
            "--backend=simulated".to_owned(),
            format!("--simulated-file={}", path(&self.gpus)),
            format!("--device-plugins-dir={}", path(&kubelet.device_plugins_dir)),
            format!("--pod-resources-dir={}", path(&kubelet.pod_resources_dir)),
            "--metrics-listen=127.0.0.1:0".to_owned(),
            "--debug-listen=127.0.0.1:0".to_owned(),
            "--health-period=20ms".to_owned(),
            "--sample-period=20ms".to_owned(),
            format!("--kubeconfig={}", path(&self.kubeconfig())),
            format!("--limiter-library={}", path(&self.library)),
            format!("--state-dir={}", path(&self.state_dir())),
            format!("--run-dir={}", path(&self.dir.path().join("run"))),
        ];
        own.into_iter().chain(self.flags.iter().cloned()).collect()
    }

    pub async fn start_plugin(&mut self) {
        let args = Args::parse_from(self.arguments());
        let mut config = Config::try_from(args).unwrap();
        config.failure_memory = self.failure_memory.unwrap_or(config.failure_memory);
        let client = kerf_runtime::client::connect(config.kubeconfig.as_deref()).await.unwrap();
        let token = CancellationToken::new();
        let plugin = kerf_plugin::start(config, Some(client), token.clone()).await.unwrap();
        self.plugin = Some((plugin, token));
    }

    fn kubeconfig(&self) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        self.server.write_kubeconfig(&path).unwrap();
        path
    }

    pub async fn stop_plugin(&mut self) {
        let (plugin, token) = self.plugin.take().unwrap();
        token.cancel();
        plugin.finished().await.unwrap();
    }

    pub async fn registered(&self) {
        self.kubelet.wait_registered(&[CORE, MEMORY], SOON).await.unwrap();
        self.allocatable(CORE, "200").await;
        self.allocatable(MEMORY, "128").await;
    }

    pub async fn allocatable(&self, resource: &str, amount: &str) {
        let shown =
            |node: Option<&Value>| node.is_some_and(|node| node["status"]["allocatable"][resource] == amount);
        self.server.wait_for_object("nodes", "", "n", SOON, shown).await.unwrap();
    }

    /// Creates a pod with these annotations and binds it.
    pub fn run(&self, name: &str, containers: &[(&str, u64, u64)], annotations: Value) {
        let containers: Vec<Value> = containers
            .iter()
            .map(|(name, core, memory)| {
                let mut limits = serde_json::Map::from_iter([(CORE.to_owned(), core.to_string().into())]);
                if *memory > 0 {
                    limits.insert(MEMORY.to_owned(), memory.to_string().into());
                }
                json!({ "name": name, "image": "i", "resources": { "limits": limits } })
            })
            .collect();
        let pod = json!({
            "metadata": { "name": name, "namespace": "ns", "annotations": annotations },
            "spec": { "containers": containers }, "status": { "phase": "Pending" },
        });
        self.server.create("pods", pod).unwrap();
        self.server.bind("ns", name, "n").unwrap();
    }

    /// Runs a pod of shares, each on its GPU, as the extender would.
    pub fn place(&self, name: &str, time: u64, shares: &[(&str, u64, u64, &str)]) {
        let placement = placement(time, shares);
        let containers: Vec<_> = shares.iter().map(|(name, core, memory, _)| (*name, *core, *memory)).collect();
        self.run(name, &containers, json!(annotation::write(&placement, &Keys::default())));
    }

    /// Runs a pod of one container with other limits than its placement has.
    pub fn place_with(&self, name: &str, time: u64, core: u64, memory: u64, card: &str, limits: Value) {
        let annotations = annotation::write(&placement(time, &[("main", core, memory, card)]), &Keys::default());
        let pod = json!({
            "metadata": { "name": name, "namespace": "ns", "annotations": annotations },
            "spec": { "containers": [{ "name": "main", "image": "i", "resources": { "limits": limits } }] },
            "status": { "phase": "Pending" },
        });
        self.server.create("pods", pod).unwrap();
        self.server.bind("ns", name, "n").unwrap();
    }

    /// Runs a pod of one share, with something on it that its user wrote after it was placed.
    pub fn place_spoiled(&self, name: &str, time: u64, share: (&str, u64, u64, &str), key: &str) {
        let mut annotations = annotation::write(&placement(time, &[share]), &Keys::default());
        annotations.insert(format!("inspur.com/{key}"), "x".to_owned());
        self.run(name, &[(share.0, share.1, share.2)], json!(annotations));
    }

    /// The plugin's directory for files that outlive it.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("lib")
    }

    /// Waits until the pod is confirmed, and its isolation is written (which may be a moment later), and returns
    /// its annotations.
    pub async fn confirmed(&self, name: &str) -> Value {
        let shares = |pod: &Value| {
            let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
            let mut cores = containers.filter_map(|c| c["resources"]["limits"][CORE].as_str()?.parse::<u64>().ok());
            cores.any(|core| core < 100)
        };
        let confirmed = |pod: Option<&Value>| {
            pod.is_some_and(|pod| {
                let annotations = &pod["metadata"]["annotations"];
                let isolated = !shares(pod) || annotations["inspur.com/gpu-isolation"].is_string();
                annotations["inspur.com/gpu-assigned"] == "true" && isolated
            })
        };
        let pod = self.server.wait_for_object("pods", "ns", name, SOON, confirmed).await;
        pod.unwrap_or_else(|error| panic!("{name}: {error}")).unwrap()["metadata"]["annotations"].clone()
    }

    pub async fn started(&self, pod: &str, container: &str) -> Container {
        let running = |containers: &[Container]| {
            let mut own = containers.iter().filter(|c| c.pod == pod && c.name == container);
            own.find(|c| c.state == ContainerState::Running).cloned()
        };
        self.kubelet.wait_for(SOON, running).await.unwrap_or_else(|error| panic!("{pod}: {error}"))
    }

    pub async fn phase(&self, name: &str, phase: &str) -> Value {
        let reached = |pod: Option<&Value>| pod.is_some_and(|pod| pod["status"]["phase"] == phase);
        let pod = self.server.wait_for_object("pods", "ns", name, SOON, reached).await;
        (*pod.unwrap_or_else(|error| panic!("{name}: {error}")).unwrap()).clone()
    }

    /// The GPUs that the record of a pod names, by container.
    pub fn recorded(annotations: &Value, container: &str) -> Vec<String> {
        let text = annotations["inspur.com/gpu-placement"].as_str().unwrap();
        let placement = annotation::placement::decode(text).unwrap();
        let grant = placement.plan.grants.iter().find(|grant| grant.container.as_str() == container).unwrap();
        grant.gpus.ids().map(|id| id.as_str().to_owned()).collect()
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let listening = self.plugin.as_ref().unwrap().0.listening();
        let address = if path.starts_with("/debug") { listening.debug } else { listening.metrics };
        self.get_at(address, path).await
    }

    pub async fn get_at(&self, address: SocketAddr, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        // 1.0, where an answer never comes in chunks
        let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    /// Asks again until the answer is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(u16, &str) -> bool) -> String {
        let asked = async {
            loop {
                let (status, text) = self.get(path).await;
                if wanted(status, &text) {
                    return text;
                }
                tokio::task::yield_now().await;
            }
        };
        match tokio::time::timeout(SOON, asked).await {
            Ok(text) => text,
            Err(_) => panic!("{path}: {}", self.get(path).await.1),
        }
    }
}

pub fn placement(time: u64, shares: &[(&str, u64, u64, &str)]) -> Placement {
    let grants = shares.iter().zip(0..).map(|((name, core, memory, card), position)| {
        let index = u32::from(*card == "GPU-b");
        let device = DeviceRef { id: (*card).into(), index };
        let gpus = if *core >= 100 {
            Grant::Whole(vec![WholeDevice { device, memory: Mib(CARD_MIB) }])
        } else {
            let share = Share::new(u32::try_from(core * 10).unwrap(), memory * 256);
            Grant::Share { device, share }
        };
        ContainerGrant { container: (*name).into(), kind: ContainerKind::App, position, gpus }
    });
    Placement::new("n", time, Plan { grants: grants.collect() })
}
