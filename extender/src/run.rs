//! Starts all parts of an extender, and gives its owner access to them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use kerf::annotation::Keys;
use kerf_runtime::admin::{self, Admin};
use kerf_runtime::feed::{Ages, Feed};
use kerf_runtime::readiness::{Condition, Readiness};
use kerf_runtime::shutdown::Tasks;
use kerf_runtime::version;
use kube::Client;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::binder::Binder;
use crate::budgets::Budgets;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::decisions::Decisions;
use crate::in_flight::InFlight;
use crate::intent::Intents;
use crate::metrics::{self, Metrics};
use crate::planning::Planning;
use crate::refused::Refused;
use crate::{api, debug, reaper, retries, watch};

/// A running extender.
pub struct Extender {
    address: SocketAddr,
    app: Arc<App>,
    tasks: Tasks,
}

/// Starts the extender: listens, follows Pods and Nodes, serves until the token of `tasks` is cancelled.
///
/// # Errors
/// Where the address cannot be listened on.
pub async fn start(config: &Config, client: Client, tasks: Tasks) -> anyhow::Result<Extender> {
    tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
    let registry = Registry::new();
    let app = Arc::new(app(config, &client, &registry, &tasks)?);
    let listener = admin::listen(config.listen).await?;
    let address = listener.local_addr()?;
    watch(&app, config, client, &registry)?;
    let token = tasks.token().clone();
    tasks.spawn("reaper", reaper::run(app.clone(), token.clone()));
    tasks.spawn("retries", retries::run(app.clone(), token.clone()));
    tasks.spawn("http", admin::serve(listener, router(app.clone(), registry, config.legacy), token));
    tracing::info!(%address, "serving");
    Ok(Extender { address, app, tasks })
}

fn app(config: &Config, client: &Client, registry: &Registry, tasks: &Tasks) -> anyhow::Result<App> {
    let (cluster, clock) = (Arc::new(Cluster::default()), Arc::new(Clock::default()));
    let Config { domain, namespace, share_resources, api_timeout, write_timeout, .. } = config.clone();
    Ok(App {
        readiness: Readiness::default(),
        keys: Keys::new(domain).with_shares(share_resources),
        policy: config.policy,
        candidates: config.candidates.map(|candidates| usize::from(candidates.get())),
        max_body: config.max_body,
        intents: Intents::default(),
        in_flight: InFlight::default(),
        budgets: Budgets::default(),
        refused: Refused::default(),
        decisions: Decisions::default(),
        planning: Planning::default(),
        binder: Binder { client: client.clone(), read: api_timeout, write: write_timeout, namespace },
        metrics: Metrics::new(registry, cluster.clone(), clock.clone()).context("metrics")?,
        cluster,
        clock,
        tasks: tasks.clone(),
    })
}

/// Starts the watches. The extender is ready once they have shown everything, and as long as their news is recent.
fn watch(app: &Arc<App>, config: &Config, client: Client, registry: &Registry) -> anyhow::Result<()> {
    let (readiness, tasks, token) = (&app.readiness, &app.tasks, app.tasks.token().clone());
    let [node_news, pod_news, budget_news] = ["nodes", "pods", "poddisruptionbudgets"]
        .map(|kind| Feed::new(kind, config.patience, app.metrics.watch_failures.with_label_values(&[kind])));
    for (name, feed) in [("news of nodes", node_news.clone()), ("news of pods", pod_news.clone())] {
        readiness.check(name, move || feed.stale());
    }
    let feeds = [node_news.clone(), pod_news.clone(), budget_news.clone()];
    registry.register(Box::new(Ages::new(metrics::WATCH_AGE, feeds)?))?;
    let [nodes, pods, settled] =
        ["nodes listed", "pods listed", "earlier bindings seen"].map(|c| readiness.condition(c));
    let ask = {
        let client = client.clone();
        move || version::of_api_server(client.clone())
    };
    let supported = readiness.condition(version::CONDITION);
    tasks.spawn_short(version::follow("API server", ask, supported, token.clone()));
    tasks.spawn_short(settle(pods.clone(), settled, config.write_timeout, token.clone()));
    tasks.spawn("watch nodes", watch::nodes(app.clone(), client.clone(), node_news, nodes, token.clone()));
    tasks.spawn("watch pods", watch::pods(app.clone(), client.clone(), pod_news, pods, token.clone()));
    tasks.spawn("watch disruption budgets", watch::budgets(app.clone(), client, budget_news, token));
    Ok(())
}

/// A previous run that was killed may have sent a binding that the API server carries out only after our first list of
/// pods. Nothing is placed until no such write can be in flight and the watch has shown it.
async fn settle(listed: Condition, settled: Condition, longest_write: Duration, token: CancellationToken) {
    let wait = async {
        listed.met().await;
        tokio::time::sleep(longest_write).await;
        settled.set(true);
    };
    token.run_until_cancelled(wait).await;
}

fn router(app: Arc<App>, registry: Registry, legacy: bool) -> Router {
    let state = app.clone();
    let draining = app.tasks.token().clone();
    let debug = Arc::new(move || debug::state(&state));
    let cluster = app.cluster.clone();
    let series: admin::Series = Arc::new(move || Box::new(metrics::cards(&cluster)));
    let readiness = app.readiness.clone();
    let admin = Admin { registry, series: Some(series), readiness, debug, program: "kerf-extender", draining };
    api::router(app, legacy).merge(admin::router(admin))
}

impl Extender {
    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The cards of all nodes, for audits.
    pub fn cluster(&self) -> &Cluster {
        &self.app.cluster
    }

    /// Its metrics, for reports.
    pub fn metrics(&self) -> &Metrics {
        &self.app.metrics
    }

    /// The conditions that are not met; empty when it is ready.
    pub fn unready(&self) -> Vec<String> {
        self.app.readiness.unmet()
    }

    /// Waits until it is ready: all watches have shown a complete list and no write of a previous run can follow.
    pub async fn ready(&self) {
        self.app.readiness.ready().await;
    }

    /// Asks the API server now about every binding whose outcome is unknown, instead of at the next round.
    pub async fn settle(&self) {
        reaper::round(&self.app).await;
    }

    /// Waits until it has drained.
    pub async fn drained(&self) {
        self.tasks.drained().await;
    }
}
