//! `kerf plan` over a snapshot of a cluster names the node and the GPUs that the extender gives the pod.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use kerf::annotation::{self, Keys};
use kerf::device::{Device, Inventory};
use kerf::ids::{ContainerName, NodeName};
use kerf::k8s::ALLOCATIONS_SUCCEED;
use kerf::ledger::NodeLedger;
use kerf::placement::Planner;
use kerf::plan::Placement;
use kerf::policy::Policy;
use kerf::replay::Random;
use kerf::units::Mib;
use kerf_extender::Extender;
use kerf_runtime::shutdown::Tasks;
use kerf_testkit::api::ApiServer;
use kerf_testkit::scheduler::{ExtenderBindingArgs, ExtenderClient, ExtenderConfig};
use kube::Client;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Clusters, and pods that are placed on each, one after the other.
const CLUSTERS: u64 = 24;
const PODS: usize = 10;
/// Cores of every node, in thousandths.
const CORES: usize = 32_000;

struct World {
    api: ApiServer,
    random: Random,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    ledger: NodeLedger,
    tainted: bool,
    cores: usize,
}

impl World {
    /// A cluster with pods on it, and others that wait.
    async fn new(seed: u64) -> Self {
        let api = ApiServer::start().await.unwrap();
        let mut world = Self { api, random: Random::new(seed), nodes: Vec::new() };
        for number in 0..2 + world.random.below(5) {
            world.node(format!("n{number}"));
        }
        for number in 0..world.random.below(40) {
            world.bound(&format!("bound-{number:02}"));
        }
        for number in 0..world.random.below(30) {
            let (core, memory) = world.share();
            world.waiting(&format!("waiting-{number:02}"), &core, &memory);
        }
        for number in 0..PODS {
            let (core, memory) = world.share();
            world.waiting(&format!("asked-{number}"), &core, &memory);
        }
        world
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.random.below(one_in) == 0
    }

    fn share(&mut self) -> (String, String) {
        match self.random.below(5) {
            0 => ("100".into(), String::new()),
            1 => ("200".into(), String::new()),
            _ => ((1 + self.random.below(99)).to_string(), (1 + self.random.below(30)).to_string()),
        }
    }

    fn node(&mut self, name: String) {
        let keys = Keys::default();
        let (model, memory) = [("A", 16_384), ("B", 32_768)][self.random.below(2)];
        let count = 1 + self.random.below(6) as u32;
        let device = |index| Device {
            model: model.into(),
            ..Device::new(format!("GPU-{name}-{index}"), index, Mib(memory))
        };
        let ledger = NodeLedger::new(&Inventory::new((0..count).map(device).collect()));
        let ill = if self.chance(4) { self.random.below(count as usize) as u32 } else { count };
        let gpus: Vec<Value> = (0..count)
            .map(|index| {
                let health = if index == ill { "unhealthy" } else { "healthy" };
                json!({ "uuid": format!("GPU-{name}-{index}"), "index": index, "model": model, "memory_mib": memory,
                        "health": health })
            })
            .collect();
        let (tainted, failing) = (self.chance(5), self.chance(5));
        let taints =
            if tainted { json!([{ "key": "k", "value": "v", "effect": "NoSchedule" }]) } else { json!([]) };
        let status = if failing { "False" } else { "True" };
        let resources = json!({
            &keys.core: (count * 100).to_string(), &keys.memory: (u64::from(count) * memory / 256).to_string(),
            "cpu": format!("{CORES}m"), "memory": "1Ti", "pods": "200",
        });
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "annotations": { &keys.inventory: json!({ "version": 1, "gpus": gpus }).to_string() } },
            "spec": { "taints": taints },
            "status": { "capacity": resources, "allocatable": resources,
                        "conditions": [{ "type": ALLOCATIONS_SUCCEED, "status": status }] },
        });
        self.api.create("nodes", object).unwrap();
        self.nodes.push(Node { name, ledger, tainted, cores: CORES });
    }

    /// A pod with a request for cores, some of which tolerate the taint and some of which name a policy.
    fn pod(&mut self, name: &str, core: &str, memory: &str) -> Value {
        let keys = Keys::default();
        let mut limits = json!({ &keys.core: core, "cpu": format!("{}m", 500 * (1 + self.random.below(6))) });
        if !memory.is_empty() {
            limits[&keys.memory] = memory.into();
        }
        let tolerations = if self.chance(3) { json!([{ "key": "k", "operator": "Exists" }]) } else { json!([]) };
        let policy = Policy::ALL[self.random.below(Policy::ALL.len())];
        let annotations = if self.chance(2) { json!({ &keys.policy: policy.as_str() }) } else { json!({}) };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "default", "annotations": annotations },
            "spec": { "tolerations": tolerations,
                      "containers": [{ "name": "main", "resources": { "limits": limits, "requests": limits } }] },
            "status": { "phase": "Pending" },
        })
    }

    fn waiting(&mut self, name: &str, core: &str, memory: &str) {
        let pod = self.pod(name, core, memory);
        self.api.create("pods", pod).unwrap();
    }

    /// A pod that runs where it fits, mostly with a record of that; else with one that names another node, or none.
    fn bound(&mut self, name: &str) {
        let keys = Keys::default();
        let (core, memory) = self.share();
        let mut pod = self.pod(name, &core, &memory);
        let parsed = serde_json::from_value(pod.clone()).unwrap();
        let request = kerf::k8s::request(&parsed, &keys).unwrap().unwrap();
        let at = self.random.below(self.nodes.len());
        let cores = usize::try_from(kerf::k8s::requested(&parsed).cpu).unwrap();
        let Some(plan) = Planner::default().plan(&self.nodes[at].ledger, &request, Policy::Spread).ok() else {
            return;
        };
        if self.nodes[at].cores < cores {
            return;
        }
        self.nodes[at].cores -= cores;
        self.nodes[at].ledger = self.nodes[at].ledger.with_plan(&plan);
        let recorded = match self.random.below(12) {
            0 => None,
            1 => Some(self.random.below(self.nodes.len())),
            _ => Some(at),
        };
        if let Some(recorded) = recorded {
            let node = NodeName::from(&*self.nodes[recorded].name);
            let placement = Placement::new(node, 1, plan);
            for (key, value) in annotation::write(&placement, &keys) {
                pod["metadata"]["annotations"][key] = value.into();
            }
        }
        pod["spec"]["nodeName"] = self.nodes[at].name.as_str().into();
        pod["status"]["phase"] = "Running".into();
        self.api.create("pods", pod).unwrap();
    }

    async fn extender(&self, policy: Policy) -> (Extender, ExtenderClient, CancellationToken) {
        let free = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--debug-listen=127.0.0.1:0"];
        let args = ["kerf-extender", "--policy", policy.as_str(), "--candidates", "0"].into_iter().chain(free);
        let args = kerf_extender::config::Args::try_parse_from(args).unwrap();
        let mut config = kerf_extender::config::Config::try_from(&args).unwrap();
        // how long it waits for writes of an earlier life
        config.write_timeout = Duration::from_millis(500);
        let mut client = kube::Config::new(self.api.url().parse().unwrap());
        client.default_retry = false;
        let token = CancellationToken::new();
        let client = Client::try_from(client).unwrap();
        let extender = kerf_extender::start(&config, client, Tasks::new(token.clone())).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), extender.ready()).await.expect("ready");
        let url = format!("http://{}/scheduler", extender.address());
        let keys = Keys::default();
        let client = ExtenderClient::new(ExtenderConfig::new(&url, &[&keys.core, &keys.memory])).unwrap();
        (extender, client, token)
    }

    /// The nodes that kube-scheduler would ask the extender about.
    fn asked(&self, pod: &Value, cores: usize) -> Vec<Arc<Value>> {
        let tolerates = pod["spec"]["tolerations"].as_array().is_some_and(|tolerations| !tolerations.is_empty());
        let open = |object: &Arc<Value>| {
            let node = self.nodes.iter().find(|node| object["metadata"]["name"] == *node.name).unwrap();
            (tolerates || !node.tainted) && node.cores >= cores
        };
        self.api.list("nodes").unwrap().into_iter().filter(open).collect()
    }
}

/// Node and GPUs.
type Choice = Option<(String, Vec<String>)>;

/// What `kerf plan` says.
fn planned(folder: &Path, world: &World, pod: &Value, policy: Policy) -> Choice {
    let items: Vec<Arc<Value>> = ["nodes", "pods"].iter().flat_map(|kind| world.api.list(kind).unwrap()).collect();
    let write = |name: &str, value: &Value| {
        let path = folder.join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path
    };
    let snapshot = write("snapshot.json", &json!({ "kind": "List", "items": items }));
    let mut kerf = Command::new(env!("CARGO_BIN_EXE_kerf"));
    kerf.arg("plan").arg(write("pod.json", pod)).arg("--file").arg(snapshot);
    let output = kerf.args(["--json", "--policy", policy.as_str()]).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let best = found["plans"][0]["workloads"][0]["placements"].get(0)?;
    let gpus = best["containers"]["main"].as_array().unwrap().iter();
    Some((best["node"].as_str()?.to_owned(), gpus.map(|gpu| gpu.as_str().unwrap().to_owned()).collect()))
}

/// What the extender does, asked as by kube-scheduler.
async fn lived(world: &mut World, extender: &Extender, client: &ExtenderClient, pod: &Arc<Value>) -> Choice {
    let text = |at: &str| pod.pointer(at).and_then(Value::as_str).unwrap().to_owned();
    let cores = kerf::k8s::requested(&serde_json::from_value(Value::clone(pod)).unwrap()).cpu as usize;
    let nodes = world.asked(pod, cores);
    let left = client.filter(pod, &nodes).await.unwrap().nodes;
    let left: Vec<_> =
        nodes.into_iter().filter(|n| left.iter().any(|name| n["metadata"]["name"] == **name)).collect();
    let node = match &left[..] {
        [] => return None,
        [only] => only["metadata"]["name"].as_str().unwrap().to_owned(),
        several => {
            let scores = client.prioritize(pod, several).await.unwrap();
            scores.into_iter().max_by_key(|score| score.score).unwrap().host
        }
    };
    let args = ExtenderBindingArgs {
        pod_name: text("/metadata/name"),
        pod_namespace: text("/metadata/namespace"),
        pod_uid: text("/metadata/uid"),
        node: node.clone(),
    };
    client.bind(&args).await.unwrap();
    let uid = args.pod_uid.as_str().into();
    let mut changes = extender.cluster().changes();
    while extender.cluster().is_pending(&uid) {
        changes.changed().await.unwrap();
    }
    world.nodes.iter_mut().find(|known| known.name == node).unwrap().cores -= cores;
    let bound = world.api.get("pods", "default", &args.pod_name).unwrap();
    let record = bound["metadata"]["annotations"][&Keys::default().placement].as_str().unwrap();
    let grants = annotation::placement::decode(record).unwrap().plan.grants;
    let gpus: BTreeMap<ContainerName, Vec<String>> =
        grants.iter().map(|g| (g.container.clone(), g.gpus.ids().map(ToString::to_string).collect())).collect();
    Some((node, gpus.into_values().next().unwrap()))
}

#[tokio::test]
async fn plan_and_extender_choose_the_same() {
    let (mut placed, mut refused) = (0, 0);
    for seed in 0..CLUSTERS {
        let policy = Policy::ALL[usize::try_from(seed).unwrap() % Policy::ALL.len()];
        let mut world = World::new(seed).await;
        let (extender, client, token) = world.extender(policy).await;
        let folder = tempfile::tempdir().unwrap();
        for number in 0..PODS {
            let name = format!("asked-{number}");
            let pod = world.api.get("pods", "default", &name).unwrap();
            let planned = planned(folder.path(), &world, &pod, policy);
            let lived = lived(&mut world, &extender, &client, &pod).await;
            assert_eq!(planned, lived, "cluster {seed}, {policy}, {name}");
            if lived.is_some() { placed += 1 } else { refused += 1 }
        }
        token.cancel();
    }
    assert!(placed > 60 && refused > 10, "{placed} placed, {refused} refused");
}
