//! Starts all parts of an extender, and gives its owner access to them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use kerf::annotation::Keys;
use kerf_runtime::admin::{self, Admin, Standing};
use kerf_runtime::feed::{Ages, Feed};
use kerf_runtime::readiness::{Condition, Readiness};
use kerf_runtime::serving::tls::Tls;
use kerf_runtime::serving::{self, Limits};
use kerf_runtime::shutdown::Tasks;
use kerf_runtime::version;
use kube::Client;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::beside::{self, Beside};
use crate::binder::Binder;
use crate::bodies::Bodies;
use crate::budgets::Budgets;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::decisions::Decisions;
use crate::in_flight::InFlight;
use crate::intent::Intents;
use crate::lease::{self, Election};
use crate::metrics::{self, Metrics};
use crate::planning::Planning;
use crate::refused::Refused;
use crate::{api, debug, reaper, retries, watch};

/// How often certificates are read again.
const CERTIFICATES: Duration = Duration::from_secs(5);

/// What strangers may take of the scheduler's listener. It makes one call at a time, and binds beside it. Go's client closes
/// its idle connections after 90 s; were they closed here first, a call that is just being sent would fail.
const SCHEDULER: Limits = Limits {
    connections: 256,
    head: Duration::from_secs(5),
    idle: Duration::from_secs(120),
    exchange: Duration::from_secs(10),
};

/// A running extender.
pub struct Extender {
    listening: Listening,
    app: Arc<App>,
    tasks: Tasks,
}

/// The addresses that it listens on.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// For the scheduler.
    pub scheduler: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// `/debug/state`
    pub debug: SocketAddr,
}

struct Listeners {
    scheduler: TcpListener,
    admin: admin::Listeners,
}

/// Starts the extender: listens, follows Pods and Nodes, serves until the token of `tasks` is cancelled.
///
/// # Errors
/// Where an address cannot be listened on, or a certificate cannot be used.
pub async fn start(config: &Config, client: Client, tasks: Tasks) -> anyhow::Result<Extender> {
    tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
    let registry = Registry::new();
    let app = Arc::new(app(config, &client, &registry, &tasks)?);
    let tls = match &config.ports.tls {
        Some(files) => Some(Tls::load(files.clone()).await.context("TLS for the scheduler")?),
        None => None,
    };
    let listeners = Listeners::open(config).await?;
    let listening = listeners.addresses()?;
    watch(&app, config, client.clone(), &registry)?;
    elect(&app, config, client, &registry)?;
    let token = tasks.token().clone();
    tasks.spawn("reaper", reaper::run(app.clone(), token.clone()));
    tasks.spawn("retries", retries::run(app.clone(), token.clone()));
    if let Some(tls) = tls.clone() {
        tasks.spawn("certificates", tls.follow(CERTIFICATES, token.clone()));
    }
    let exchange = SCHEDULER.exchange.max(2 * config.scheduler_timeout);
    let limits = Limits { exchange, ..SCHEDULER };
    let verbs = api::router(app.clone(), config.legacy);
    tasks.spawn("http", serving::serve(listeners.scheduler, tls, verbs, limits, token));
    let more = match config.scheduler_livez.clone() {
        Some(livez) => beside::router(Beside::new(livez).context("--scheduler-livez")?),
        None => Router::new(),
    };
    let state = app.clone();
    let state: admin::Report = Arc::new(move || Box::new(debug::state(state.clone())));
    listeners.admin.serve_with(&tasks, admin(&app, registry), more, state);
    tracing::info!(?listening, "serving");
    Ok(Extender { listening, app, tasks })
}

impl Listeners {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        let ports = &config.ports;
        Ok(Self {
            scheduler: serving::listen(ports.listen).await.context("--listen")?,
            admin: admin::Listeners::open(ports.metrics, ports.debug).await?,
        })
    }

    fn addresses(&self) -> std::io::Result<Listening> {
        let admin::Listening { metrics, debug } = self.admin.addresses()?;
        Ok(Listening { scheduler: self.scheduler.local_addr()?, metrics, debug })
    }
}

fn app(config: &Config, client: &Client, registry: &Registry, tasks: &Tasks) -> anyhow::Result<App> {
    let (cluster, clock) = (Arc::new(Cluster::default()), Arc::new(Clock::default()));
    let Config { domain, namespace, share_resources, api_timeout, write_timeout, .. } = config.clone();
    Ok(App {
        readiness: Readiness::default(),
        keys: Keys::new(domain).with_shares(share_resources),
        policy: config.policy,
        candidates: config.candidates.map(|candidates| usize::from(candidates.get())),
        bodies: Bodies::new(config.max_body),
        intents: Intents::default(),
        in_flight: InFlight::default(),
        budgets: Budgets::default(),
        refused: Refused::default(),
        decisions: Decisions::default(),
        planning: Planning::default(),
        election: config.scheduler_lease.clone().map(|lease| Election::new(lease, config.host.clone())),
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

/// Follows the lease by which the scheduler beside it is elected, if one is named. A standby is ready as well: it knows of
/// everything, so that its scheduler can begin at once.
fn elect(app: &App, config: &Config, client: Client, registry: &Registry) -> anyhow::Result<()> {
    let Some(election) = &app.election else { return Ok(()) };
    let failures = app.metrics.watch_failures.with_label_values(&["leases"]);
    let feed = Feed::new("leases", config.patience, failures);
    let pauses = election.clone().follow_pauses(client.clone(), config.api_timeout, app.tasks.token().clone());
    app.tasks.spawn("pauses", pauses);
    app.tasks.spawn("watch lease", election.clone().follow(client, feed, app.tasks.token().clone()));
    let own = election.clone();
    registry.register(Box::new(metrics::active(move || own.standing() == lease::Standing::Active)?))?;
    Ok(())
}

fn admin(app: &Arc<App>, registry: Registry) -> Admin {
    let (own, election) = (app.clone(), app.election.clone());
    let series: admin::Report = Arc::new(move || {
        let active = |election: &Arc<Election>| election.standing() == lease::Standing::Active;
        let pending = metrics::pending(&own.cluster, &own.refused, own.election.as_ref().is_none_or(active));
        Box::new(metrics::cards(&own.cluster).chain(pending))
    });
    Admin {
        registry,
        series: Some(series),
        readiness: app.readiness.clone(),
        standing: election.map(|election| -> Standing { Arc::new(move || election.text()) }),
        program: "kerf-extender",
        draining: app.tasks.token().clone(),
    }
}

impl Extender {
    /// The address that it serves the scheduler on.
    pub fn address(&self) -> SocketAddr {
        self.listening.scheduler
    }

    /// All addresses that it listens on.
    pub fn listening(&self) -> Listening {
        self.listening
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
