//! A prefix of a trace through `kerf replay`, and the same pods, one after the other, through HTTP, the scheduler's
//! loop and binds: the placements are equal.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use kerf::annotation::Keys;
use kerf_extender::Extender;
use kerf_runtime::shutdown::Tasks;
use kerf_testkit::api::ApiServer;
use kerf_testkit::scheduler::{ExtenderConfig, QueueState, Scheduler, SchedulerConfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::trace_run;
use kerf_system::stack::{PATIENCE, client};
use kerf_system::trace::{self, NodeRow, PodRow};
use kerf_system::workload;

/// Memory of every GPU: 100 units, so that a share's memory is exactly its part of a GPU.
const CARD_MIB: u64 = 25_600;
/// Pods that a node may run, as in a replay.
const MOST_PODS: u64 = 1001;
/// One of this many machines of the trace is taken, and `PODS` pods: enough to fill them.
const EVERY: usize = 24;
const PODS: usize = 320;

/// The place of a pod: node, and GPUs by index. `None`: not placed.
type Place = Option<(String, Vec<u64>)>;

/// A part of a trace. Shares are rounded up to whole percent, since pods can only request those.
struct Prefix {
    machines: Vec<NodeRow>,
    pods: Vec<PodRow>,
}

impl Prefix {
    fn read() -> Self {
        let made = tempfile::tempdir().expect("folder");
        let (folder, every) = match trace_run::beside() {
            Some(folder) => (folder, EVERY),
            None => {
                eprintln!(
                    "NOTE: the Alibaba GPU trace is not at hand; replaying a workload of our own with its columns"
                );
                trace_run::own(made.path(), PODS);
                (made.path().to_owned(), 1)
            }
        };
        let (nodes, pods) = trace::files(&folder).expect("trace files");
        let mut machines: Vec<NodeRow> = trace::rows(&nodes).expect("nodes");
        // the order of the live cluster
        machines.sort_by(|a, b| a.sn.cmp(&b.sn));
        let machines: Vec<NodeRow> = machines.into_iter().step_by(every).collect();
        let mut pods: Vec<PodRow> = trace::rows(&pods).expect("pods");
        pods.truncate(PODS);
        for pod in pods.iter_mut().filter(|pod| pod.gpu_milli < 1000) {
            pod.gpu_milli = (pod.gpu_milli.div_ceil(10) * 10).min(990);
        }
        Self { machines, pods }
    }

    /// The places that `kerf replay` chooses for the pods.
    fn replayed(&self, policy: &str) -> Vec<Place> {
        let folder = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("write");
            path
        };
        let mut nodes = String::from("sn,cpu_milli,memory_mib,gpu,model,gpu_memory_mib\n");
        for NodeRow { sn, cpu_milli, memory_mib, gpu, model } in &self.machines {
            nodes += &format!("{sn},{cpu_milli},{memory_mib},{gpu},{model},{CARD_MIB}\n");
        }
        let mut pods = String::from("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_memory_mib\n");
        for PodRow { name, cpu_milli, memory_mib, num_gpu, gpu_milli } in &self.pods {
            let memory = if *gpu_milli < 1000 { gpu_milli * CARD_MIB / 1000 } else { 0 };
            pods += &format!("{name},{cpu_milli},{memory_mib},{num_gpu},{gpu_milli},{memory}\n");
        }
        let (nodes, pods) = (write("nodes.csv", nodes), write("pods.csv", pods));
        let input = [
            "kerf".as_ref(),
            "replay".as_ref(),
            "--nodes".as_ref(),
            nodes.as_os_str(),
            "--pods".as_ref(),
            pods.as_os_str(),
        ];
        let output = ["--policy".as_ref(), policy.as_ref(), "--log".as_ref(), folder.path().as_os_str()];
        let args = kerf_cli::Args::try_parse_from(input.into_iter().chain(output)).expect("options");
        assert_eq!(kerf_cli::run(&args).expect("kerf replay"), ExitCode::SUCCESS);
        places(&folder.path().join(format!("{policy}-in-order.csv")))
    }
}

/// The places in a log.
fn places(log: &Path) -> Vec<Place> {
    let place = |row: BTreeMap<String, String>| {
        let node = row["node"].clone();
        let cards = row["gpu_indexes"].split(';').filter_map(|index| index.parse().ok()).collect();
        (!node.is_empty()).then_some((node, cards))
    };
    trace::rows(log).expect("log").into_iter().map(place).collect()
}

/// API server, extender and scheduler; no kubelets, since only placement is tested.
struct Live {
    api: ApiServer,
    extender: Extender,
    scheduler: Scheduler,
    /// The number of pods on each node.
    pods: BTreeMap<String, u64>,
    token: CancellationToken,
}

impl Live {
    async fn start(machines: &[NodeRow], policy: &str) -> Self {
        let api = ApiServer::start().await.expect("API server");
        for machine in machines {
            api.create("nodes", node(machine)).expect("node");
        }
        let free = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--debug-listen=127.0.0.1:0"];
        let args = ["kerf-extender", "--policy", policy].into_iter().chain(free);
        let args = kerf_extender::config::Args::try_parse_from(args).expect("flags");
        let config = kerf_extender::config::Config::try_from(&args).expect("configuration");
        let token = CancellationToken::new();
        let tasks = Tasks::new(token.clone());
        let extender =
            kerf_extender::start(&config, client(&api).await.expect("client"), tasks).await.expect("start");
        tokio::time::timeout(PATIENCE, extender.ready()).await.expect("the extender is ready");
        let keys = Keys::default();
        let url = format!("http://{}/scheduler", extender.address());
        let mut config =
            SchedulerConfig::new(api.url(), Some(ExtenderConfig::new(&url, &[&keys.core, &keys.memory])));
        // a pod is tried once, as in a replay
        config.initial_backoff = PATIENCE * 60;
        config.max_backoff = PATIENCE * 60;
        let scheduler = Scheduler::start(config).await.expect("scheduler");
        Self { api, extender, scheduler, pods: BTreeMap::new(), token }
    }

    /// Creates a pod with GPUs; returns its place. A pod that fits nowhere is deleted.
    async fn comes(&mut self, row: &PodRow) -> Place {
        let tried = self.scheduler.queue().attempts;
        self.api.create("pods", pod(row)).expect("pod");
        let settled = |state: &QueueState| state.attempts > tried && state.active == 0 && state.binding == 0;
        let state = self.scheduler.wait_for(PATIENCE, settled).await.expect("the scheduler is done with it");
        assert_eq!(state.attempts, tried + 1, "{}", row.name);
        let pod = self.api.get("pods", "default", &row.name).expect("pod");
        let Some(node) = pod.pointer("/spec/nodeName").and_then(Value::as_str) else {
            self.api.force_delete("pods", "default", &row.name).expect("deleted");
            let gone = |state: &QueueState| state.unschedulable == 0 && state.backing_off == 0;
            self.scheduler.wait_for(PATIENCE, gone).await.expect("the scheduler has forgotten it");
            return None;
        };
        *self.pods.entry(node.to_owned()).or_default() += 1;
        let text = pod.pointer("/metadata/annotations").and_then(|all| all.get(&Keys::default().placement));
        let placement = kerf::annotation::placement::decode(text.and_then(Value::as_str).expect("a record"));
        let grants = placement.expect("readable").plan.grants;
        Some((node.to_owned(), grants[0].gpus.devices().map(|device| device.index.into()).collect()))
    }

    /// Creates a pod without GPUs on this node: kube-scheduler places such pods alone, and kerf only sees them there.
    async fn appears(&mut self, row: &PodRow, node: &str) {
        let mut object = pod(row);
        object["spec"]["nodeName"] = node.into();
        self.api.create("pods", object).expect("pod");
        let here = self.pods.entry(node.to_owned()).or_default();
        *here += 1;
        let left = MOST_PODS - *here;
        let mut changes = self.extender.cluster().changes();
        let seen = async {
            while self.extender.cluster().host_left(node).map(|host| host.pods) != Some(left) {
                changes.changed().await.expect("the extender lives");
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("the extender sees it");
    }

    async fn shutdown(self) {
        self.scheduler.shutdown().await;
        self.token.cancel();
        self.api.shutdown().await;
    }
}

fn node(row: &NodeRow) -> Value {
    let keys = Keys::default();
    let card = |index: usize| {
        json!({ "uuid": format!("GPU-{}-{index}", row.sn), "index": index, "model": row.model,
                                      "memory_mib": CARD_MIB, "health": "healthy" })
    };
    let cards: Vec<Value> = (0..row.gpu).map(card).collect();
    let has = json!({ &keys.core: (row.gpu * 100).to_string(), &keys.memory: (row.gpu * 100).to_string(),
                      "cpu": format!("{}m", row.cpu_milli), "memory": format!("{}Mi", row.memory_mib),
                      "pods": MOST_PODS.to_string() });
    json!({
        "metadata": { "name": row.sn,
                      "annotations": { &keys.inventory: json!({ "version": 1, "gpus": cards }).to_string() } },
        "status": { "capacity": has, "allocatable": has },
    })
}

fn pod(row: &PodRow) -> Value {
    let host = json!({ "cpu": format!("{}m", row.cpu_milli), "memory": format!("{}Mi", row.memory_mib) });
    let mut container = match (row.num_gpu, row.gpu_milli / 10) {
        (0, _) => json!({ "name": "main", "image": "example/none", "resources": { "requests": {} } }),
        (1, core @ 1..100) => workload::container("main", &core.to_string(), &core.to_string()),
        (count, _) => workload::container("main", &(count * 100).to_string(), ""),
    };
    for (name, amount) in host.as_object().into_iter().flatten() {
        container["resources"]["requests"][name] = amount.clone();
    }
    workload::pod(&row.name, vec![], vec![container])
}

async fn agrees(policy: &str) {
    let prefix = Prefix::read();
    let replayed = prefix.replayed(policy);
    assert_eq!(replayed.len(), prefix.pods.len());
    let mut live = Live::start(&prefix.machines, policy).await;
    for (row, place) in prefix.pods.iter().zip(&replayed) {
        if row.num_gpu == 0 {
            let (node, _) = place.as_ref().expect("there is room for every pod without cards");
            live.appears(row, node).await;
        } else {
            assert_eq!(live.comes(row).await, *place, "{policy}: {}", row.name);
        }
    }
    let failed = replayed.iter().filter(|place| place.is_none()).count();
    assert!(failed > 0 && failed < PODS / 4, "{failed} pods found no place: the cluster was full only in the end");
    live.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fragmentation_places_a_trace_as_its_replay_does() {
    agrees("fragmentation").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn binpack_places_a_trace_as_its_replay_does() {
    agrees("binpack").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn best_fit_places_a_trace_as_its_replay_does() {
    agrees("best-fit").await;
}
