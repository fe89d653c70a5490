//! A running extender on a stand-in API server, and the objects that tests are made of.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kerf::annotation::Keys;
use kerf_extender::WAKER;
use kerf_extender::config::{Config, Ports};
use kerf_extender::{Extender, start};
use kerf_runtime::shutdown::Tasks;
use kerf_testkit::api::{Action, ApiServer, Fault};
use kerf_testkit::scheduler::{ExtenderBindingArgs, ExtenderClient, ExtenderConfig};
use kube::Client;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; a passing test never waits this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// With a free port.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub struct World {
    pub api: ApiServer,
    pub extender: Extender,
    pub client: ExtenderClient,
    pub url: String,
    token: CancellationToken,
}

pub fn config() -> Config {
    Config {
        ports: Ports { listen: LOOPBACK, tls: None, metrics: LOOPBACK, debug: LOOPBACK },
        domain: Default::default(),
        namespace: "kerf-system".into(),
        share_resources: kerf::shares::SHARE_RESOURCES.parse().expect("names"),
        policy: Default::default(),
        api_timeout: Duration::from_millis(300),
        write_timeout: Duration::from_millis(300),
        candidates: None,
        legacy: false,
        max_body: 4 << 20,
        scheduler_timeout: Duration::from_secs(1),
        scheduler_lease: None,
        scheduler_livez: None,
        host: "here".into(),
        patience: Default::default(),
    }
}

pub async fn client_of(api: &ApiServer) -> Client {
    let mut config = kube::Config::new(api.url().parse().expect("a URL"));
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

/// An extender that need not be ready yet.
pub async fn started(api: ApiServer, config: Config) -> World {
    if api.get("csistoragecapacities", &config.namespace, WAKER).is_err() {
        let waker =
            json!({ "metadata": { "name": WAKER, "namespace": config.namespace }, "storageClassName": "none" });
        api.create("csistoragecapacities", waker).expect("waker");
    }
    let token = CancellationToken::new();
    let extender = start(&config, client_of(&api).await, Tasks::new(token.clone())).await.expect("extender");
    let url = format!("http://{}/scheduler", extender.address());
    let keys = Keys::default();
    let client = ExtenderClient::new(ExtenderConfig::new(&url, &[&keys.core, &keys.memory])).expect("client");
    World { api, extender, client, url, token }
}

impl World {
    pub async fn new(nodes: impl IntoIterator<Item = Value>) -> Self {
        let api = ApiServer::start().await.expect("API server");
        for node in nodes {
            api.create("nodes", node).expect("node");
        }
        Self::on(api, config()).await
    }

    /// Serves `/scheduler/predicates`.
    pub async fn legacy(nodes: impl IntoIterator<Item = Value>) -> Self {
        let api = ApiServer::start().await.expect("API server");
        for node in nodes {
            api.create("nodes", node).expect("node");
        }
        Self::on(api, Config { legacy: true, ..config() }).await
    }

    pub async fn on(api: ApiServer, config: Config) -> Self {
        let world = started(api, config).await;
        tokio::time::timeout(PATIENCE, world.extender.ready()).await.expect("ready");
        world
    }

    /// Ends the extender as SIGKILL does, without draining. The API server continues.
    pub async fn kill(self) -> ApiServer {
        self.token.cancel();
        self.api
    }

    /// Ends the extender as SIGTERM does; returns how long that took.
    pub async fn end(self) -> (Duration, ApiServer) {
        let begun = Instant::now();
        self.token.cancel();
        self.extender.drained().await;
        (begun.elapsed(), self.api)
    }

    /// Creates a pod and waits until the extender has seen it.
    pub async fn pod(&self, name: &str, containers: Value) -> Arc<Value> {
        self.api.create("pods", pod(name, containers)).expect("pod")
    }

    pub async fn bind(&self, pod: &Value, node: &str) -> Result<(), String> {
        self.client.bind(&binding(pod, node)).await.map_err(|error| error.to_string())
    }

    pub fn nodes(&self) -> Vec<Arc<Value>> {
        self.api.list("nodes").expect("nodes")
    }

    /// The recorded cards of each pod's first container.
    pub fn placements(&self) -> BTreeMap<String, Vec<String>> {
        let keys = Keys::default();
        let pods = self.api.list("pods").expect("pods");
        pods.iter()
            .filter_map(|pod| {
                let text = pod.pointer("/metadata/annotations")?.get(&keys.placement)?.as_str()?;
                let placement = kerf::annotation::placement::decode(text).expect("readable");
                let node = pod.pointer("/spec/nodeName").and_then(Value::as_str);
                assert!(node.is_none() || node == Some(placement.node.as_str()), "bound where it was placed");
                let cards =
                    placement.plan.grants[0].gpus.ids().map(|id| format!("{}/{id}", placement.node)).collect();
                Some((pod.pointer("/metadata/name")?.as_str()?.to_owned(), cards))
            })
            .collect()
    }

    /// Waits until the extender's view of the cluster satisfies `holds`.
    pub async fn until(&self, what: &str, holds: impl Fn(&World) -> bool) {
        let mut changes = self.extender.cluster().changes();
        let wait = async {
            while !holds(self) {
                changes.changed().await.expect("extender lives");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// Makes the extender list everything again, as after a watch that broke and was too old to continue. It then knows
    /// of pods that were deleted in between.
    pub async fn relist(&self) {
        let marker = self.pod("of-the-list", share("1", "1")).await;
        let uid = marker["metadata"]["uid"].as_str().expect("uid").into();
        self.until("seen", |w| w.extender.cluster().is_pending(&uid)).await;
        let held = self.api.inject(Fault::new("watch", "*", Action::Hold));
        self.api.break_watches();
        held.wait_hits(2, PATIENCE).await.expect("watches begin anew");
        self.api.force_delete("pods", "default", "of-the-list").expect("deleted");
        self.api.compact();
        held.remove();
        self.until("listed", |w| !w.extender.cluster().is_pending(&uid)).await;
    }

    /// Where the extender serves this path.
    pub fn url_of(&self, path: &str) -> String {
        let listening = self.extender.listening();
        let address = match path {
            path if path.starts_with("/scheduler") => listening.scheduler,
            path if path.starts_with("/debug") => listening.debug,
            _ => listening.metrics,
        };
        format!("http://{address}{path}")
    }

    /// The extender's answer to a GET.
    pub async fn text(&self, path: &str) -> String {
        reqwest::get(self.url_of(path)).await.expect("an answer").text().await.expect("a text")
    }

    /// Compute in use on each card of a node, as the extender counts it.
    pub fn used(&self, node: &str) -> Vec<u32> {
        let nodes = self.extender.cluster().snapshot();
        let node = nodes.into_iter().find(|known| known.name.as_str() == node).expect("known node");
        node.ledger.cards().iter().map(|card| card.used().compute.0).collect()
    }
}

/// What kube-scheduler says to bind a pod.
pub fn binding(pod: &Value, node: &str) -> ExtenderBindingArgs {
    let text = |at: &str| pod.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    ExtenderBindingArgs {
        pod_name: text("/metadata/name"),
        pod_namespace: text("/metadata/namespace"),
        pod_uid: text("/metadata/uid"),
        node: node.to_owned(),
    }
}

/// A node with an inventory of equal cards.
pub fn node(name: &str, cards: u32, memory_mib: u64) -> Value {
    let keys = Keys::default();
    let gpus: Vec<Value> = (0..cards)
        .map(|index| {
            json!({ "uuid": format!("GPU-{name}-{index}"), "index": index, "model": "Test", "memory_mib": memory_mib,
                    "health": "healthy" })
        })
        .collect();
    let inventory = json!({ "version": 1, "gpus": gpus }).to_string();
    let capacity = json!({ &keys.core: (cards * 100).to_string(),
                           &keys.memory: (u64::from(cards) * (memory_mib / 256)).to_string() });
    json!({
        "metadata": { "name": name, "annotations": { &keys.inventory: inventory } },
        "status": { "capacity": capacity, "allocatable": capacity },
    })
}

/// A node as gpu-manager leaves it: only capacity.
pub fn bare_node(name: &str, core: &str, memory: &str) -> Value {
    let keys = Keys::default();
    let capacity = json!({ &keys.core: core, &keys.memory: memory });
    json!({ "metadata": { "name": name }, "status": { "capacity": capacity, "allocatable": capacity } })
}

/// One container with these limits.
pub fn share(core: &str, memory: &str) -> Value {
    let keys = Keys::default();
    let mut limits = json!({ &keys.core: core });
    if !memory.is_empty() {
        limits[&keys.memory] = memory.into();
    }
    json!([{ "name": "main", "resources": { "limits": limits, "requests": limits } }])
}

pub fn pod(name: &str, containers: Value) -> Value {
    json!({ "metadata": { "name": name, "namespace": "default" },
            "spec": { "containers": containers }, "status": { "phase": "Pending" } })
}
