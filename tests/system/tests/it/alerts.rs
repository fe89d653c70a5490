//! Each alert fires and clears on a real Prometheus that scrapes the extender and the plugin. How long its condition has to
//! last before is in `rules.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;

use kerf::annotation::Keys;
use kerf_system::prometheus::{self, Prometheus, Target};
use kerf_system::rules;
use kerf_system::stack::{MachineSpec, PATIENCE, Stack, StackConfig};
use kerf_system::workload::{container, pod};
use kerf_testkit::api::{Action, Fault};
use kerf_testkit::scheduler::{ExtenderBindingArgs, ExtenderClient, ExtenderConfig};
use serde_json::{Value, json};

/// A namespace and a name.
const LEASE: (&str, &str) = ("kerf-system", "kerf-scheduler");
const NODE: &str = "node-0";
/// Two GPUs; the first line is for what is wrong with them.
const CARDS: &str =
    "[[gpu]]\ncount = 2\nuuid = \"GPU-a\"\nmodel = \"A100\"\nmemory_mib = 40960\ndevice_nodes = [\"/dev/null\"]\n";

/// kerf on one machine, and Prometheus with its alerts.
struct World {
    stack: Stack,
    prometheus: Prometheus,
    seen: BTreeSet<String>,
}

/// What PodMonitors give a program's series.
fn target(address: std::net::SocketAddr, pod: &str) -> Target {
    let labels = vec![("namespace", "kerf-system".to_owned()), ("pod", pod.to_owned())];
    Target { address, labels }
}

impl World {
    async fn new() -> Self {
        let mut spec = MachineSpec::equal(NODE, 2, "A100", 40_960);
        spec.cards = CARDS.to_owned();
        let extender = vec![format!("--scheduler-lease={}/{}", LEASE.0, LEASE.1)];
        let stack =
            Stack::start(&[spec], StackConfig { seed: 3, extender, ..Default::default() }).await.expect("start");
        let prometheus = Prometheus::start(&rules::at_once()).await.expect("prometheus");
        let world = Self { stack, prometheus, seen: BTreeSet::new() };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
        world.stack.api.create("leases", lease(host.trim())).expect("lease");
        world.scrape(true, true);
        world
    }

    /// Scrapes what runs.
    fn scrape(&self, extender: bool, plugin: bool) {
        let extender = extender.then(|| target(self.stack.extender().listening().metrics, "kerf-scheduler-0"));
        let plugin = plugin.then(|| target(self.stack.machines[NODE].listening.metrics, "kerf-plugin-0"));
        let targets: Vec<Target> = extender.into_iter().chain(plugin).collect();
        self.prometheus.scrape(&targets).expect("targets");
    }

    async fn firing(&self) -> anyhow::Result<Vec<Value>> {
        let alerts = self.prometheus.query("ALERTS{alertstate=\"firing\"}").await?;
        Ok(alerts.into_iter().map(|(labels, _)| labels).collect())
    }

    /// Waits until the alert fires with these labels.
    async fn fires(&mut self, alert: &str, labels: Value) {
        let has = |found: &Value| {
            found["alertname"] == alert
                && labels.as_object().expect("labels").iter().all(|(name, value)| found[name] == *value)
        };
        let look = async || Ok(self.firing().await?.iter().any(has).then_some(()));
        if let Err(error) = self.prometheus.until(alert, look).await {
            panic!("{error:#}; firing: {:?}", self.firing().await);
        }
        self.seen.insert(alert.to_owned());
    }

    /// Waits until nothing is wrong.
    async fn clears(&self) {
        let scraped =
            format!("max by (node) (kerf_plugin_gpu_healthy{{node=\"{NODE}\"}}) + on () max(kerf_extender_active)");
        let quiet = async || {
            let all_seen = self.prometheus.query(&scraped).await?.first().is_some_and(|(_, value)| *value == 2.0);
            Ok((all_seen && self.firing().await?.is_empty()).then_some(()))
        };
        if let Err(error) = self.prometheus.until("nothing is wrong", quiet).await {
            panic!("{error:#}; firing: {:?}", self.firing().await);
        }
    }

    /// Replaces the file of simulated GPUs at once.
    fn cards(&self, content: &str) {
        let path = &self.stack.machines[NODE].cards;
        let new = path.with_extension("new");
        std::fs::write(&new, content).expect("written");
        std::fs::rename(new, path).expect("renamed");
    }

    fn submit(&self, name: &str, core: &str) {
        self.stack.submit(pod(name, vec![], vec![container("main", core, "4")])).expect("pod");
    }

    fn delete(&self, name: &str) {
        self.stack.api.force_delete("pods", "default", name).expect("deleted");
    }
}

fn lease(holder: &str) -> Value {
    json!({ "metadata": { "namespace": LEASE.0, "name": LEASE.1 },
            "spec": { "holderIdentity": format!("{holder}_1"), "leaseDurationSeconds": 3600,
                      "renewTime": "2026-01-01T00:00:01.000000Z" } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_alert_fires_and_clears() {
    if !prometheus::is_there() {
        return;
    }
    let mut world = World::new().await;
    world.submit("first", "60");
    world.submit("second", "60");
    world.stack.until_running(2).await.expect("both run");
    world.clears().await;

    of_gpus(&mut world).await;
    of_pods(&mut world).await;
    of_binds(&mut world).await;
    of_programs(&mut world).await;

    let all: BTreeSet<String> = rules::alerts(&rules::groups()).into_iter().collect();
    assert_eq!(world.seen, all, "an alert was not tried");
    world.stack.shutdown().await.expect("clean end");
}

/// The GPU of a pod.
fn card_of(world: &World, name: &str) -> String {
    let pod = world.stack.api.get("pods", "default", name).expect("pod");
    let text = pod["metadata"]["annotations"][&Keys::default().placement].as_str().expect("a record").to_owned();
    let placement = kerf::annotation::placement::decode(&text).expect("readable");
    placement.plan.grants[0].gpus.ids().next().expect("a GPU").to_string()
}

async fn of_gpus(world: &mut World) {
    world.cards(&format!("{CARDS}healthy = false\n"));
    world.fires("GPUUnhealthy", json!({ "node": NODE, "index": "1", "model": "A100" })).await;
    world.cards(CARDS);
    world.clears().await;

    world.cards(&format!("unavailable = \"no driver\"\n{CARDS}"));
    let of_plugin = json!({ "namespace": "kerf-system", "pod": "kerf-plugin-0", "kind": "unavailable" });
    world.fires("KerfPluginWithoutDriver", of_plugin).await;
    world.cards(CARDS);
    world.clears().await;

    let gpu = card_of(world, "first");
    let process = "memory_mib = 9000\npod = \"default/first\"\ncontainer = \"main\"";
    let pid = std::process::id();
    world.cards(&format!("{CARDS}[[process]]\npid = {pid}\ngpu = \"{gpu}\"\n{process}\n"));
    // the pod's own labels, not those of the program that has the series
    let breach =
        json!({ "node": NODE, "namespace": "default", "pod": "first", "container": "main", "kind": "memory" });
    world.fires("GPUShareBreached", breach).await;
    world.cards(CARDS);
    world.clears().await;

    // a record that kerf would never write
    world.stack.machines[NODE].kubelet.stop().await;
    let first = world.stack.api.get("pods", "default", "first").expect("pod");
    let mut copy = pod("copy", vec![], vec![container("main", "60", "4")]);
    copy["metadata"]["annotations"] = first["metadata"]["annotations"].clone();
    copy["metadata"]["annotations"][&Keys::default().gpu_assigned] = "false".into();
    copy["spec"]["nodeName"] = NODE.into();
    world.stack.submit(copy).expect("pod");
    let index = if gpu.ends_with('0') { "0" } else { "1" };
    world.fires("GPUOvercommitted", json!({ "node": NODE, "index": index })).await;
    world.delete("copy");
    world.stack.machines[NODE].kubelet.restart().await.expect("kubelet returns");
    world.clears().await;
}

async fn of_pods(world: &mut World) {
    // two times 40 are free
    world.submit("third", "50");
    world.fires("GPUsFragmented", json!({})).await;
    world.delete("third");
    world.clears().await;

    world.stack.machines[NODE].kubelet.stop().await;
    world.submit("third", "10");
    world.fires("KerfPodsUnconfirmed", json!({ "node": NODE })).await;
    world.stack.machines[NODE].kubelet.restart().await.expect("kubelet returns");
    world.stack.until_running(3).await.expect("it runs");
    world.delete("third");
    world.clears().await;
}

async fn of_binds(world: &mut World) {
    let refused = world.stack.api.inject(Fault::new("create", "pods/binding", Action::Status(403)));
    world.submit("refused", "10");
    world.fires("KerfBindsFail", json!({ "outcome": "refused" })).await;
    refused.remove();
    world.stack.until_running(3).await.expect("it runs");
    world.delete("refused");
    world.clears().await;

    // a scheduler that does not try again, and an API server that answers neither the binding nor questions about it
    let mut lost = pod("lost", vec![], vec![container("main", "10", "4")]);
    lost["spec"]["schedulerName"] = "by-hand".into();
    world.stack.submit(lost).expect("pod");
    let lost = world.stack.api.get("pods", "default", "lost").expect("pod");
    let faults = [
        world.stack.api.inject(Fault::new("create", "pods/binding", Action::DropBefore)),
        world.stack.api.inject(Fault::new("get", "pods", Action::Status(503))),
    ];
    let url = format!("http://{}/scheduler", world.stack.extender().address());
    let keys = Keys::default();
    let client = ExtenderClient::new(ExtenderConfig::new(&url, &[&keys.core, &keys.memory])).expect("client");
    let binding = ExtenderBindingArgs {
        pod_name: "lost".to_owned(),
        pod_namespace: "default".to_owned(),
        pod_uid: lost["metadata"]["uid"].as_str().expect("uid").to_owned(),
        node: NODE.to_owned(),
    };
    let seen = async || {
        let pods = world.stack.extender().cluster().unbound().0;
        Ok((pods == 1).then_some(()))
    };
    world.prometheus.until("the extender knows the pod", seen).await.expect("known");
    client.bind(&binding).await.expect_err("no answer");
    world.fires("KerfBindsInDoubt", json!({})).await;
    faults.iter().for_each(|fault| fault.remove());
    world.delete("lost");
    world.clears().await;
}

async fn of_programs(world: &mut World) {
    world.stack.api.silence_watches(true);
    world.fires("KerfNoNewsOfTheCluster", json!({ "kind": "nodes" })).await;
    world.fires("KerfNoNewsOfTheCluster", json!({ "kind": "pods", "pod": "kerf-plugin-0" })).await;
    world.stack.api.silence_watches(false);
    world.clears().await;

    let host = lease("another");
    world.stack.api.patch("leases", LEASE.0, LEASE.1, &host).expect("lease");
    world.fires("KerfNoLeader", json!({})).await;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
    world.stack.api.patch("leases", LEASE.0, LEASE.1, &lease(host.trim())).expect("lease");
    world.clears().await;

    let api = Arc::clone(&world.stack.api);
    world.stack.machines.get_mut(NODE).expect("machine").stop_plugin().await.expect("it stops");
    world.fires("KerfPluginGone", json!({ "node": NODE })).await;
    world.stack.machines.get_mut(NODE).expect("machine").start_plugin(&api, NODE).await.expect("it returns");
    world.scrape(true, true);
    world.clears().await;

    world.stack.kill_extender();
    world.fires("KerfExtenderGone", json!({})).await;
    tokio::time::timeout(PATIENCE, world.stack.restart_extender()).await.expect("in time").expect("it returns");
    world.scrape(true, true);
    world.clears().await;
}
