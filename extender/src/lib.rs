//! kube-scheduler's side of kerf.
//!
//! ```text
//! watch (Pods, Nodes) --> cluster (a ledger for each node) <-- api (filter, prioritize, bind, predicates)
//!                            ^                                  |            |
//!                         reaper --reads--> API server <--writes-- binder    intent (pods in flight)
//! ```
//!
//! [`asking`] is the cluster as one pod finds it, `planning` keeps what takes long away from everything else, `refused` has kube-scheduler try again whom freed cards would serve.
//! [`cluster`] owns every lock. Filter and prioritize read it; bind reserves in it, lets go of the lock and then
//! does one write. `survey` is the same cluster as the policies see it that weigh all nodes against each other. What the
//! watches say wins over what was assumed.

pub mod api;
pub mod asking;
pub mod binder;
mod budgets;
pub mod clock;
pub mod cluster;
pub mod config;
mod debug;
mod freed;
pub mod in_flight;
pub mod intent;
pub mod metrics;
mod planning;
mod queue;
mod reaper;
mod refused;
mod survey;
mod watch;

pub use survey::Footprint;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use k8s_openapi::api::core::v1::Pod;
use kerf::annotation::Keys;
use kerf::ids::PodUid;
use kerf::policy::Policy;
use kerf::request::GpuRequest;
use kerf_runtime::admin::{self, Admin};
use kerf_runtime::feed::{Ages, Feed};
use kerf_runtime::readiness::{Condition, Readiness};
use kerf_runtime::shutdown::Tasks;
use kerf_runtime::version;
use kube::Client;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::binder::Binder;
use crate::budgets::Budgets;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::in_flight::InFlight;
use crate::intent::Intents;
use crate::metrics::{Metrics, Verb};
use crate::planning::{Place, Planning};
use crate::refused::Refused;

/// How long a binding's outcome may be unknown before the API server is asked, in milliseconds. Far longer than
/// any write can still be under way.
pub const DEADLINE_MS: u64 = 15_000;

/// The longest uid that a pod in flight is remembered by, in bytes. The API server's have 36.
const MAX_UID: usize = 64;

/// All parts of a running extender.
pub struct App {
    keys: Keys,
    policy: Policy,
    candidates: Option<usize>,
    max_body: usize,
    cluster: Arc<Cluster>,
    intents: Intents,
    in_flight: InFlight,
    budgets: Budgets,
    refused: Refused,
    planning: Planning,
    binder: Binder,
    clock: Arc<Clock>,
    metrics: Metrics,
    tasks: Tasks,
    readiness: Readiness,
}

/// An extender that serves.
pub struct Extender {
    address: SocketAddr,
    app: Arc<App>,
    tasks: Tasks,
}

impl App {
    /// Refuses a call that came before the watches have shown everything, when every card looks free, or when their news
    /// is too old to decide by.
    ///
    /// # Errors
    /// A text for the answer's `Error`; the scheduler tries again.
    fn check_ready(&self) -> Result<(), String> {
        match self.readiness.unmet().as_slice() {
            [] => Ok(()),
            unmet => Err(format!("extender is not ready: {}", unmet.join(", "))),
        }
    }

    /// Remembers where a pod in flight will most likely be bound.
    fn intend(&self, pod: &Pod, request: &Arc<GpuRequest>, node: &str) {
        let uid = pod.metadata.uid.as_deref().filter(|uid| (1..=MAX_UID).contains(&uid.len()));
        let Some(uid) = uid.map(PodUid::from).filter(|uid| !self.cluster.is_gone(uid)) else { return };
        // the scheduler's watch may be ahead of ours
        let shown = self.cluster.pending_request(&uid).is_some();
        let plan = self.cluster.asking(&uid, request, self.policy).plan(node);
        if let Ok(plan) = plan {
            self.cluster.expect(&uid, &node.into(), self.clock.now());
            self.intents.remember(uid, shown, node.into(), request.clone(), plan, self.clock.now());
        }
    }

    /// Plans the pod on one node, where that holds up nobody.
    ///
    /// # Errors
    /// A text where that cannot be done now.
    async fn planned<T: Send + 'static>(
        self: &Arc<Self>,
        request: &Arc<GpuRequest>,
        plan: impl Fn(&Self) -> T + Send + 'static,
    ) -> Result<T, String> {
        let (app, request) = (self.clone(), request.clone());
        let work = move |place: Place| place.allows(&request, app.policy, 1).map(|()| plan(&app));
        self.planning.run_here_or_there(0, work).await
    }

    /// Counts and logs a call that could not be answered, and hands its error on.
    fn failed(&self, verb: Verb, error: String) -> String {
        self.metrics.answered(verb, "error");
        tracing::warn!(verb = verb.as_str(), error, "call failed");
        error
    }
}

/// Starts the extender: listens, follows Pods and Nodes, serves until the token of `tasks` is cancelled.
///
/// # Errors
/// Where the address cannot be listened on.
pub async fn start(config: &Config, client: Client, tasks: Tasks) -> anyhow::Result<Extender> {
    tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
    let Config {
        listen,
        domain,
        namespace,
        share_resources,
        policy,
        candidates,
        api_timeout,
        write_timeout,
        legacy,
        max_body,
        patience,
    } = config.clone();
    let registry = Registry::new();
    let cluster = Arc::new(Cluster::default());
    let clock = Arc::new(Clock::default());
    let readiness = Readiness::default();
    let app = Arc::new(App {
        readiness: readiness.clone(),
        keys: Keys::new(domain).with_shares(share_resources),
        policy,
        candidates: candidates.map(|candidates| usize::from(candidates.get())),
        max_body,
        intents: Intents::default(),
        in_flight: InFlight::default(),
        budgets: Budgets::default(),
        refused: Refused::default(),
        planning: Planning::default(),
        binder: Binder::new(client.clone(), api_timeout, write_timeout, namespace),
        metrics: Metrics::new(&registry, cluster.clone(), clock.clone()).context("metrics")?,
        cluster,
        clock,
        tasks: tasks.clone(),
    });
    let [node_news, pod_news, budget_news] = ["nodes", "pods", "poddisruptionbudgets"]
        .map(|kind| Feed::new(kind, patience, app.metrics.watch_failures.with_label_values(&[kind])));
    for (name, feed) in [("news of nodes", node_news.clone()), ("news of pods", pod_news.clone())] {
        readiness.check(name, move || feed.stale());
    }
    registry.register(Box::new(Ages::new(
        metrics::WATCH_AGE,
        [node_news.clone(), pod_news.clone(), budget_news.clone()],
    )?))?;
    let listener = admin::listen(listen).await?;
    let address = listener.local_addr()?;
    let token = tasks.token().clone();
    let [nodes, pods, settled] =
        ["nodes listed", "pods listed", "earlier bindings seen"].map(|c| readiness.condition(c));
    let ask = {
        let client = client.clone();
        move || version::of_api_server(client.clone())
    };
    let supported = readiness.condition(version::CONDITION);
    tasks.spawn_short(version::follow("API server", ask, supported, token.clone()));
    tasks.spawn_short(settle(pods.clone(), settled, write_timeout, token.clone()));
    tasks.spawn("watch nodes", watch::nodes(app.clone(), client.clone(), node_news, nodes, token.clone()));
    tasks.spawn("watch pods", watch::pods(app.clone(), client.clone(), pod_news, pods, token.clone()));
    tasks.spawn("watch disruption budgets", watch::budgets(app.clone(), client, budget_news, token.clone()));
    tasks.spawn("reaper", reaper::run(app.clone(), token.clone()));
    tasks.spawn("retries", refused::run(app.clone(), token.clone()));
    let router = router(app.clone(), registry, readiness, legacy);
    tasks.spawn("http", admin::serve(listener, router, token));
    tracing::info!(%address, "serving");
    Ok(Extender { address, app, tasks })
}

/// A process that was killed may have sent a binding that the API server carries out only after our first list
/// of pods. Until such a write can no longer be under way, and the watch has shown it, nothing is placed.
async fn settle(listed: Condition, settled: Condition, longest_write: Duration, token: CancellationToken) {
    let wait = async {
        listed.met().await;
        tokio::time::sleep(longest_write).await;
        settled.set(true);
    };
    tokio::select! {
        () = wait => {}
        () = token.cancelled() => {}
    }
}

fn router(app: Arc<App>, registry: Registry, readiness: Readiness, legacy: bool) -> Router {
    let state = app.clone();
    let draining = app.tasks.token().clone();
    let debug = Arc::new(move || debug::state(&state));
    let cluster = app.cluster.clone();
    let series: admin::Series = Arc::new(move || Box::new(metrics::cards(&cluster)));
    let admin = Admin { registry, series: Some(series), readiness, debug, program: "kerf-extender", draining };
    api::router(app, legacy).merge(admin::router(admin))
}

impl Extender {
    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The cards of all nodes, for audits.
    pub fn cluster(&self) -> &Cluster {
        &self.app.cluster
    }

    /// What it counts, for reports.
    pub fn metrics(&self) -> &Metrics {
        &self.app.metrics
    }

    /// What is missing before it is ready; empty when it is.
    pub fn unready(&self) -> Vec<String> {
        self.app.readiness.unmet()
    }

    /// Waits until both watches have shown a complete list and no write of an earlier life can follow.
    pub async fn ready(&self) {
        self.app.readiness.ready().await;
    }

    /// Asks the API server about every binding in doubt now, instead of at the next round.
    pub async fn settle(&self) {
        reaper::round(&self.app).await;
    }

    /// Waits until it was told to drain and has done so.
    pub async fn drained(&self) {
        self.tasks.drained().await;
    }
}
