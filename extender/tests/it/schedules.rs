//! Random schedules: pods come, end and go, bindings are refused, lost and late, the extender is killed, watches lag,
//! pods are nominated, groups wait for their members, kubelet rejects pods, tenants edit annotations and create
//! pods with a node that no scheduler chose. No card is given twice at any time; and once all is quiet again, no cards
//! are held without a pod, and no pod waits where there is room.
//!
//! `KERF_SCHEDULES`: how many schedules are run (1); `KERF_SCHEDULE_STEPS`: the length of each (150);
//! `KERF_SCHEDULE_SEED`: the first seed.

mod tenant;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kerf::annotation::Keys;
use kerf::k8s::ALLOCATIONS_SUCCEED;
use kerf_extender::config::{Config, Ports};
use kerf_testkit::api::{Action, ApiServer, Fault, Watchers};
use kerf_testkit::scheduler::{ExtenderConfig, Scheduler, SchedulerConfig};
use serde_json::{Value, json};

use self::tenant::{Tenant, is_stranger};
use crate::fixture::{World, config, node, pod, share};

const NODES: u32 = 3;
const CARDS: u32 = 2;
const GROUP: &str = "scheduling.x-k8s.io/pod-group";
/// A reservation with an unknown outcome lasts 15 s; pods that wait for it are placed within 20 s after that.
const QUIET: Duration = Duration::from_secs(40);

/// SplitMix64.
struct Lot(u64);

impl Lot {
    fn draw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(usize::try_from(self.draw(of.len() as u64)).unwrap()) }
    }
}

/// What the API server's pods take of each card, in hundredths, and how many there are on it.
type Truth = BTreeMap<String, (u32, u32)>;

fn text<'a>(pod: &'a Value, at: &str) -> &'a str {
    pod.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

fn is_bound(pod: &Value) -> bool {
    !text(pod, "/spec/nodeName").is_empty()
}

fn has_ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Fails where a card is given twice.
fn truth(api: &ApiServer, tenant: &Tenant) -> Truth {
    let mut truth = Truth::new();
    for node in 0..NODES {
        for card in 0..CARDS {
            truth.insert(format!("GPU-n{node}-{card}"), (0, 0));
        }
    }
    let holds = |pod: &Value| is_bound(pod) && !has_ended(pod) && !is_stranger(pod);
    for pod in api.list("pods").unwrap().iter().filter(|pod| holds(pod)) {
        for grant in tenant.placed(pod).plan.grants {
            for (device, share) in grant.gpus.amounts() {
                let card = truth.get_mut(device.id.as_str()).unwrap();
                card.0 += share.compute.0 / 10;
                card.1 += 1;
            }
        }
    }
    assert!(truth.values().all(|(core, _)| *core <= 100), "given twice: {truth:?}");
    truth
}

fn core(pod: &Value) -> u32 {
    pod["spec"]["containers"][0]["resources"]["limits"][&Keys::default().core].as_str().unwrap().parse().unwrap()
}

fn has_room(truth: &Truth, core: u32) -> bool {
    if core < 100 {
        // memory is enough for six
        return truth.values().any(|(used, pods)| used + core <= 100 && *pods < 6);
    }
    (0..NODES).any(|node| {
        let prefix = format!("GPU-n{node}-");
        let free = truth.iter().filter(|(card, (_, pods))| card.starts_with(&prefix) && *pods == 0).count();
        free >= (core / 100) as usize
    })
}

struct Run {
    world: World,
    address: SocketAddr,
    lot: Lot,
    tenant: Tenant,
    created: usize,
}

impl Run {
    fn config(address: SocketAddr) -> Config {
        let ports = Ports { listen: address, ..config().ports };
        Config { ports, api_timeout: Duration::from_millis(200), ..config() }
    }

    fn pods(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Arc<Value>> {
        let pods = self.world.api.list("pods").unwrap();
        pods.into_iter().filter(|pod| wanted(pod)).collect()
    }

    fn any(&mut self, wanted: impl Fn(&Value) -> bool) -> Option<String> {
        let pods = self.pods(wanted);
        self.lot.one(&pods).map(|pod| text(pod, "/metadata/name").to_owned())
    }

    fn create(&mut self, core: &str, group: Option<String>) {
        self.created += 1;
        let mut object = pod(&format!("p{}", self.created), share(core, if core.len() > 2 { "" } else { "10" }));
        object["spec"]["priority"] = self.lot.draw(3).into();
        if let Some(group) = group {
            object["metadata"]["labels"] = json!({ GROUP: group });
            object["spec"]["priority"] = 0.into();
        }
        self.world.api.create("pods", object).unwrap();
    }

    /// kubelet rejects a pod, and the plugin reports that on its node; or the node is fine again.
    fn reject(&mut self, name: &str) {
        let status = json!({ "phase": "Failed", "reason": "UnexpectedAdmissionError" });
        let pod = self.world.api.patch_status("pods", "default", name, status).unwrap();
        let well = if self.lot.draw(2) == 0 { "True" } else { "False" };
        let conditions = json!([{ "type": ALLOCATIONS_SUCCEED, "status": well, "reason": "AllocationsFail" }]);
        let node = text(&pod, "/spec/nodeName");
        self.world.api.patch_status("nodes", "", node, json!({ "conditions": conditions })).unwrap();
    }

    fn edit(&mut self) {
        let pods = self.pods(|pod| !has_ended(pod) && !is_stranger(pod));
        if let Some(pod) = self.lot.one(&pods) {
            self.tenant.edit(&self.world.api, &mut self.lot, pod);
        }
    }

    async fn step(mut self) -> Self {
        match self.lot.draw(20) {
            0..=4 => {
                let core = *self.lot.one(&["10", "30", "50", "60", "100", "200"]).unwrap();
                self.create(core, None);
            }
            5 => {
                let group = format!("g{}", self.lot.draw(4));
                self.create("60", Some(group.clone()));
                self.create("60", Some(group));
            }
            6 => {
                let patch = json!({ "phase": if self.lot.draw(2) == 0 { "Succeeded" } else { "Failed" } });
                if let Some(name) = self.any(|pod| is_bound(pod) && !has_ended(pod)) {
                    self.world.api.patch_status("pods", "default", &name, patch).unwrap();
                }
            }
            7 => {
                if let Some(name) = self.any(|pod| is_bound(pod) && !has_ended(pod)) {
                    self.reject(&name);
                }
            }
            8 => {
                if let Some(name) = self.any(|pod| !has_ended(pod)) {
                    self.world.api.force_delete("pods", "default", &name).unwrap();
                }
            }
            9 => {
                if let Some(name) = self.any(|pod| is_bound(pod) && !has_ended(pod)) {
                    self.world.api.delete("pods", "default", &name).unwrap();
                }
            }
            10 | 11 => {
                let late = Action::Delay(Duration::from_millis(100 + self.lot.draw(300)));
                let actions =
                    [Action::DropBefore, Action::DropAfter, Action::Status(500), Action::Status(409), late];
                let action = *self.lot.one(&actions).unwrap();
                self.world.api.inject(Fault::new("create", "pods/binding", action).times(1 + self.lot.draw(3)));
            }
            12 => {
                let action = *self.lot.one(&[Action::DropBefore, Action::Status(503)]).unwrap();
                self.world.api.inject(Fault::new("get", "pods", action).times(1 + self.lot.draw(2)));
            }
            13 => {
                let node =
                    if self.lot.draw(2) == 0 { String::new() } else { format!("n{}", self.lot.draw(NODES.into())) };
                if let Some(name) = self.any(|pod| !is_bound(pod)) {
                    let patch = json!({ "nominatedNodeName": node });
                    self.world.api.patch_status("pods", "default", &name, patch).unwrap();
                }
            }
            14 => match self.lot.draw(2) {
                0 => self.world.api.hold_watch("pods", Watchers::Others).unwrap(),
                _ => self.world.api.release_watch("pods").unwrap(),
            },
            15 | 16 => self.edit(),
            17 => {
                self.created += 1;
                let (node, core) =
                    (self.lot.draw(NODES.into()), *self.lot.one(&["10", "60", "100", "200"]).unwrap());
                let stranger = self.tenant.stranger(&mut self.lot, self.created, node, core);
                self.world.api.create("pods", stranger).unwrap();
            }
            18 => {
                if let Some(name) = self.any(|pod| is_stranger(pod) && !has_ended(pod)) {
                    self.reject(&name);
                }
            }
            _ if self.lot.draw(3) == 0 => {
                self.world.api.release_watch("pods").unwrap();
                let api = self.world.kill().await;
                self.world = World::on(api, Self::config(self.address)).await;
            }
            _ => {}
        }
        // actions of other parts in the meantime belong to the schedule
        tokio::time::sleep(Duration::from_millis(self.lot.draw(25))).await;
        truth(&self.world.api, &self.tenant);
        self
    }

    /// Nothing goes wrong any more: groups that cannot come together are given up, kubelet has rejected who was not
    /// placed, and of the pods that were edited some end and the others get back what they had.
    fn calm(&mut self) {
        self.world.api.clear_faults();
        self.world.api.release_watch("pods").unwrap();
        for pod in self.pods(|pod| !has_ended(pod)) {
            let name = text(&pod, "/metadata/name");
            let ends = !text(&pod, "/metadata/deletionTimestamp").is_empty();
            let edited = is_bound(&pod) && self.tenant.has_edited(&pod);
            let in_group = pod["metadata"]["labels"].get(GROUP).is_some();
            if is_stranger(&pod) {
                self.reject(name);
            } else if ends || (in_group && !is_bound(&pod)) || (edited && self.lot.draw(2) == 0) {
                self.world.api.force_delete("pods", "default", name).unwrap();
            } else {
                self.tenant.mend(&self.world.api, &pod);
            }
            if !is_bound(&pod) && !ends && !in_group {
                let patch = json!({ "nominatedNodeName": "" });
                self.world.api.patch_status("pods", "default", name, patch).unwrap();
            }
        }
    }

    /// What is wrong once all is quiet; empty where nothing is.
    fn wrong(&self) -> String {
        let truth = truth(&self.world.api, &self.tenant);
        let waiting = self.pods(|pod| !is_bound(pod) && !has_ended(pod));
        let starved: Vec<&str> = waiting
            .iter()
            .filter(|pod| has_room(&truth, core(pod)))
            .map(|pod| text(pod, "/metadata/name"))
            .collect();
        let mut leaked = Vec::new();
        for node in 0..NODES {
            let used = self.world.used(&format!("n{node}"));
            for (card, used) in used.iter().enumerate() {
                let (core, _) = truth[&format!("GPU-n{node}-{card}")];
                if *used != core * 10 {
                    leaked.push(format!("GPU-n{node}-{card}: {used} is held, pods have {core}0"));
                }
            }
        }
        if starved.is_empty() && leaked.is_empty() { String::new() } else { format!("{starved:?} {leaked:?}") }
    }
}

async fn schedule(seed: u64, steps: u64) {
    let api = ApiServer::start().await.unwrap();
    for number in 0..NODES {
        api.create("nodes", node(&format!("n{number}"), CARDS, 15_360)).unwrap();
    }
    // no other process takes a port of this address while the extender is restarted
    let [.., high, low] = seed.to_be_bytes();
    let world = World::on(api, Run::config(([127, 1, high, low], 0).into())).await;
    let address = world.extender.address();
    let keys = Keys::default();
    let extender = ExtenderConfig {
        // shorter than a late binding takes
        http_timeout: Duration::from_millis(250),
        ..ExtenderConfig::new(&world.url, &[&keys.core, &keys.memory])
    };
    let scheduler = SchedulerConfig {
        initial_backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(200),
        permit_timeout: Duration::from_millis(300),
        groups: (0..4).map(|number| (format!("g{number}"), 2)).collect(),
        nominates_waiting: seed.is_multiple_of(2),
        seed,
        ..SchedulerConfig::new(world.api.url(), Some(extender))
    };
    let scheduler = Scheduler::start(scheduler).await.unwrap();
    let mut run = Run { world, address, lot: Lot(seed), tenant: Tenant::default(), created: 0 };
    for _ in 0..steps {
        run = run.step().await;
    }
    run.calm();
    let begun = Instant::now();
    while !run.wrong().is_empty() {
        assert!(begun.elapsed() < QUIET, "seed {seed}, {steps} steps: {}\n{:?}", run.wrong(), scheduler.queue());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    scheduler.shutdown().await;
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_schedules_end_without_a_double_allocation_a_leak_or_a_starved_pod() {
    let first = setting("KERF_SCHEDULE_SEED", 1);
    for seed in first..first + setting("KERF_SCHEDULES", 1) {
        schedule(seed, setting("KERF_SCHEDULE_STEPS", 150)).await;
    }
}
