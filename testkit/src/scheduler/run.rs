//! The loop: changes from the API server in, attempts and binds out.

mod binding;
mod evicting;
mod permit;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::ExtenderClient;
use super::cluster::Cluster;
use super::config::SchedulerConfig;
use super::cycle::Cycle;
use super::journal::{Attempt, Journal, Outcome};
use super::message::Message;
use super::preemption::Budgets;
use super::queue::{Queue, QueueState};
use crate::api::object;
use crate::client::ApiClient;
use crate::client::informer::{News, follow};
use crate::clock;

struct Run {
    config: SchedulerConfig,
    client: ApiClient,
    cluster: Cluster,
    queue: Queue,
    cycle: Cycle,
    journal: Arc<Journal>,
    messages: mpsc::UnboundedSender<Message>,
    publish: watch::Sender<QueueState>,
    tasks: TaskTracker,
    /// Uids of pods whose bind call is in flight.
    binding: HashSet<String>,
    /// Pods that wait in Permit for their group, with the node and the attempt.
    waiting: BTreeMap<String, Waiting>,
    budgets: Budgets,
    nodes_listed: bool,
    pods_listed: bool,
    attempts: u64,
    bound: u64,
}

/// A pod in Permit.
struct Waiting {
    pod: Arc<Value>,
    node: String,
    attempt: u64,
    group: String,
}

pub(crate) fn start(
    config: SchedulerConfig,
    journal: Arc<Journal>,
    messages: mpsc::UnboundedSender<Message>,
    inbox: mpsc::UnboundedReceiver<Message>,
    publish: watch::Sender<QueueState>,
    cancel: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let client = ApiClient::new(&config.api_url, "scheduler")?;
    let extender = config.extender.clone().map(ExtenderClient::new).transpose()?;
    let ignored = config
        .extender
        .iter()
        .flat_map(|extender| &extender.managed_resources)
        .filter(|resource| resource.ignored_by_scheduler)
        .map(|resource| resource.name.clone())
        .collect();
    let tasks = TaskTracker::new();
    let tell = messages.clone();
    tasks.spawn(follow(client.clone(), "/api/v1/nodes", String::new(), cancel.clone(), move |news| {
        tell.send(Message::Nodes(news)).is_ok()
    }));
    let tell = messages.clone();
    tasks.spawn(follow(client.clone(), "/api/v1/pods", String::new(), cancel.clone(), move |news| {
        tell.send(Message::Pods(news)).is_ok()
    }));
    let tell = messages.clone();
    let capacities = "/apis/storage.k8s.io/v1/csistoragecapacities";
    tasks.spawn(follow(client.clone(), capacities, String::new(), cancel.clone(), move |news| {
        tell.send(Message::Others(news)).is_ok()
    }));
    let tell = messages.clone();
    let budgets = "/apis/policy/v1/poddisruptionbudgets";
    tasks.spawn(follow(client.clone(), budgets, String::new(), cancel.clone(), move |news| {
        tell.send(Message::Budgets(news)).is_ok()
    }));
    let run = Run {
        client,
        cluster: Cluster::new(ignored),
        queue: Queue::new(config.initial_backoff, config.max_backoff),
        cycle: Cycle::new(
            extender,
            StdRng::seed_from_u64(config.seed),
            config.sample_nodes,
            config.opportunistic_batching,
        ),
        journal,
        messages,
        publish,
        tasks,
        binding: HashSet::new(),
        waiting: BTreeMap::new(),
        budgets: Budgets::new(),
        nodes_listed: false,
        pods_listed: false,
        attempts: 0,
        bound: 0,
        config,
    };
    Ok(tokio::spawn(run.run(inbox, cancel)))
}

impl Run {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>, cancel: CancellationToken) {
        loop {
            while let Ok(message) = inbox.try_recv() {
                self.hear(message);
            }
            let now = Instant::now();
            self.queue.mature(now);
            self.queue.flush(self.config.flush_after, now);
            if self.nodes_listed && self.pods_listed {
                if let Some(pod) = self.queue.pop() {
                    tokio::select! {
                        () = self.attempt(pod) => {}
                        () = cancel.cancelled() => break,
                    }
                    continue;
                }
                self.tell_state();
            }
            let flush = self.queue.next_flush(self.config.flush_after);
            let wake = match (self.queue.next_ready(), flush) {
                (Some(ready), Some(flush)) => Some(ready.min(flush)),
                (ready, flush) => ready.or(flush),
            };
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.hear(message),
                    None => break,
                },
                () = sleep(wake) => {}
                () = cancel.cancelled() => break,
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn tell_state(&self) {
        let state = QueueState {
            binding: self.binding.len(),
            permit: self.waiting.len(),
            bound: self.bound,
            attempts: self.attempts,
            ..self.queue.state()
        };
        self.publish.send_replace(state);
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Nodes(News::Listed(nodes)) => {
                for name in self.cluster.node_names().iter() {
                    if !nodes.iter().any(|node| object::name(node) == name) {
                        self.cluster.remove_node(name);
                    }
                }
                for node in nodes {
                    self.cluster.apply_node(node);
                }
                self.nodes_listed = true;
                self.queue.wake_all(Instant::now());
            }
            Message::Nodes(News::Applied(node)) => {
                if self.cluster.apply_node(node) {
                    self.queue.wake_all(Instant::now());
                }
            }
            Message::Nodes(News::Deleted(node)) => self.cluster.remove_node(object::name(&node)),
            Message::Pods(News::Listed(pods)) => {
                let listed: HashSet<&str> = pods.iter().map(|pod| object::uid(pod)).collect();
                let known = [self.cluster.observed(), self.queue.uids()].concat();
                for uid in known.iter().filter(|uid| !listed.contains(uid.as_str())) {
                    self.cluster.remove_pod(uid);
                    self.queue.remove(uid);
                    self.waiting.remove(uid);
                }
                for pod in pods {
                    self.hear_pod(pod);
                }
                self.pods_listed = true;
                self.queue.wake_all(Instant::now());
            }
            Message::Pods(News::Applied(pod)) => self.hear_pod(pod),
            Message::Pods(News::Deleted(pod)) => {
                let uid = object::uid(&pod);
                self.queue.remove(uid);
                self.waiting.remove(uid);
                if self.cluster.remove_pod(uid) {
                    self.queue.wake_all(Instant::now());
                }
            }
            Message::Budgets(news) => {
                let key = |budget: &Value| format!("{}/{}", object::namespace(budget), object::name(budget));
                match news {
                    News::Listed(all) => self.budgets = all.into_iter().map(|one| (key(&one), one)).collect(),
                    News::Applied(one) => drop(self.budgets.insert(key(&one), one)),
                    News::Deleted(one) => drop(self.budgets.remove(&key(&one))),
                }
            }
            // an extender's refusals end by events of all kinds; the objects of the first list are not events
            Message::Others(News::Listed(_)) => {}
            Message::Others(_) => self.queue.wake_all(Instant::now()),
            Message::PermitOver { uid, attempt } => self.permit_over(&uid, attempt),
            Message::Bound { uid, attempt, took, result } => self.hear_bound(&uid, attempt, took, result),
            Message::NotNominated { uid } => {
                self.cluster.nominate_no_more(&uid);
                self.queue.wake_all(Instant::now());
            }
            Message::Flush => self.queue.wake_all(Instant::now()),
        }
    }

    fn hear_pod(&mut self, pod: Arc<Value>) {
        let uid = object::uid(&pod).to_owned();
        if object::is_terminated(&pod) {
            self.queue.remove(&uid);
            if self.cluster.remove_pod(&uid) {
                self.queue.wake_all(Instant::now());
            }
        } else if !object::node_name(&pod).is_empty() {
            self.queue.remove(&uid);
            self.cluster.apply_pod(&pod);
            self.queue.wake_all(Instant::now());
        } else if object::is_deleting(&pod) || !self.is_ours(&pod) {
            self.queue.remove(&uid);
        } else {
            if self.cluster.nominate(&pod) {
                self.queue.wake_all(Instant::now());
            }
            self.queue.apply(pod, Instant::now());
        }
    }

    fn is_ours(&self, pod: &Value) -> bool {
        let gated = object::at(pod, &["spec", "schedulingGates"])
            .and_then(Value::as_array)
            .is_some_and(|gates| !gates.is_empty());
        let name = object::text(pod, &["spec", "schedulerName"]);
        !gated && (name.is_empty() || name == self.config.scheduler_name)
    }

    async fn attempt(&mut self, pod: Arc<Value>) {
        let uid = object::uid(&pod).to_owned();
        let mut attempt = Attempt {
            number: self.attempts,
            namespace: object::namespace(&pod).to_owned(),
            pod: object::name(&pod).to_owned(),
            uid: uid.clone(),
            in_tree: Default::default(),
            in_tree_reasons: Default::default(),
            asked: Vec::new(),
            hinted: false,
            kept: Vec::new(),
            failed: Default::default(),
            unresolvable: Default::default(),
            scores: Default::default(),
            chosen: None,
            nominated: None,
            cycle: Duration::ZERO,
            bind: Duration::ZERO,
            outcome: Outcome::Binding,
        };
        self.attempts += 1;
        self.cycle.run(&mut self.cluster, &pod, &mut attempt).await;
        match (&attempt.outcome, &attempt.chosen) {
            (Outcome::Unschedulable(why), _) => {
                self.explain(&uid, "Unschedulable", why);
                self.queue.wait(&uid, Instant::now());
                attempt.nominated = self.preempt(&pod, &attempt.unresolvable).await;
            }
            (Outcome::Failed(why), _) => {
                self.explain(&uid, "SchedulerError", why);
                self.queue.back_off(&uid, Instant::now());
            }
            (_, Some(node)) => {
                self.cluster.assume(&pod, node);
                self.permit(&pod, node.clone(), attempt.number);
            }
            (_, None) => {}
        }
        self.journal.push(attempt);
        self.tell_state();
    }

    /// Writes why a pod has no node into its `PodScheduled` condition, unless that is there already.
    fn explain(&self, uid: &str, reason: &str, message: &str) {
        let Some(pod) = self.queue.pod(uid) else { return };
        let said = object::at(&pod, &["status", "conditions"]).and_then(Value::as_array).into_iter().flatten().any(
            |condition| {
                object::text(condition, &["type"]) == "PodScheduled"
                    && object::text(condition, &["reason"]) == reason
                    && object::text(condition, &["message"]) == message
            },
        );
        if said {
            return;
        }
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", object::namespace(&pod), object::name(&pod));
        let patch = json!({
            "metadata": { "uid": uid },
            "status": { "conditions": [{
                "type": "PodScheduled",
                "status": "False",
                "reason": reason,
                "message": message,
                "lastProbeTime": null,
                "lastTransitionTime": clock::now(),
            }] },
        });
        let client = self.client.clone();
        self.tasks.spawn(async move {
            if let Err(error) = client.patch(&path, &patch).await {
                tracing::debug!(%error, path, "condition not written");
            }
        });
    }
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
