//! kubelet's side of kerf: the device plugin. It reads on each pod of its node which card the extender chose, and
//! gives the pod's containers exactly that one.
//!
//! Folders are layers: each imports those above it in this list and its own files.
//!
//! * [`base`]: the process and its host.
//! * [`device`]: GPUs as values. `device::backend` is what every vendor implements.
//! * [`offer`] (pure): what this node offers to kubelet, and what a container is given.
//!   [`allocation`] (pure): which container an Allocate call is for, and what kubelet's list says of it.
//! * [`vendor`]: a folder for each vendor. [`roster`] (pure): the GPUs of all sources, each once.
//! * [`isolation`]: what holds a container to its share. [`state`]: what the parts share.
//!   [`api`]: calls to the API server. [`kubelet`]: kubelet's sockets.
//! * [`reconcile`]: kubelet's list against the API server, and corrected records.
//! * [`front`]: who asks for GPUs: kubelet, tkestack's library. [`follow`]: loops that keep the state.
//!   [`publish`]: what others are told: the Node's inventory, conditions, events and labels; metrics.
//! * [`config`], [`doctor`] and this file: flags to values, and the start.

pub mod allocation;
pub mod api;
pub mod base;
pub mod config;
pub mod device;
pub mod doctor;
pub mod follow;
pub mod front;
pub mod isolation;
pub mod kubelet;
pub mod offer;
pub mod publish;
pub mod reconcile;
pub mod roster;
pub mod state;
pub mod vendor;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use kerf_runtime::admin::{self, Admin};
use kerf_runtime::feed::{Ages, Feed};
use kerf_runtime::readiness::{Condition, Readiness};
use kerf_runtime::shutdown::Tasks;
use kerf_runtime::version;
use kube::Client;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::api::client::Cluster;
use crate::base::counters::Counters;
use crate::config::Config;
use crate::device::ids::Resource;
use crate::follow::access::Access;
use crate::follow::devices::Driver;
use crate::front::placed::Steering;
use crate::front::vcuda::{Service, Shared};
use crate::front::vcuda_controller::{Roots, Tkestack};
use crate::isolation::Ladder;
use crate::kubelet::registration::Endpoint;
use crate::offer::contract::Profile;
use crate::publish::labels::write::Target;
use crate::publish::metrics::Gauges;
use crate::reconcile::Reconciler;
use crate::state::State;
use crate::state::answers::Answers;

/// A plugin that runs. Cancel its token to end it; dropping this does not.
pub struct Plugin {
    admin: SocketAddr,
    tasks: Tasks,
    asked: CancellationToken,
}

impl Plugin {
    /// Where `/metrics` and the other administrative routes are.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until everything has ended.
    ///
    /// # Errors
    /// Where it ended without being asked to; the log names the part that failed.
    pub async fn finished(self) -> anyhow::Result<()> {
        self.tasks.drained().await;
        anyhow::ensure!(self.asked.is_cancelled(), "a part of the plugin ended unexpectedly");
        Ok(())
    }
}

/// Runs until `token` is cancelled.
///
/// # Errors
/// Where the address of `config` is taken, or a part ends unexpectedly.
pub async fn run(
    config: Config,
    client: impl Into<Option<Client>>,
    token: CancellationToken,
) -> anyhow::Result<()> {
    start(config, client, token).await?.finished().await
}

/// Starts everything and returns. A `client` is needed for `vcuda`, for placed profiles and for labels on the Node; with one
/// and the Node's name the Node is also told how the cards are.
///
/// # Errors
/// Where the address of `config` is taken, or `client` is missing where it is needed.
pub async fn start(
    config: Config,
    client: impl Into<Option<Client>>,
    token: CancellationToken,
) -> anyhow::Result<Plugin> {
    tracing::info!(?config, "configuration");
    let Config {
        node,
        keys,
        backend,
        device_plugins_dir,
        pod_resources_dir,
        listen,
        kubeconfig: _,
        proc_root,
        strategy,
        isolation,
        breach_margin,
        tkestack: with_tkestack,
        health_period,
        sample_period,
        report_period,
        withdraw_after,
        patience,
        failure_memory,
        labels: labelled,
        vcuda,
        profiles,
        placed,
    } = config;
    let tasks = Tasks::new(token.child_token());
    let stop = || tasks.token().clone();
    let registry = Registry::new();
    let counters = Counters::new(&registry)?;
    let state = State::default();
    let readiness = Readiness::default();

    let driver = Driver::new(device::backend::of(backend), counters.clone());
    registry.register(Box::new(Gauges::new(state.clone(), node.clone())?))?;
    let complaining = driver.clone();
    registry.register(Box::new(publish::metrics::complaints(move || complaining.complaints())?))?;

    let client: Option<Client> = client.into();
    let cluster = client.filter(|_| !node.as_str().is_empty()).map(|client| Cluster::new(client, node, keys));
    let reconciler = if vcuda || placed {
        let cluster = cluster.clone().context("the profile vcuda and --placed need the API server")?;
        Some(Reconciler::new(state.clone(), cluster, counters.clone(), &pod_resources_dir))
    } else {
        None
    };
    // what those do who ask kubelet whose call they answer begins once that is known to be told
    let supported = reconciler.as_ref().map(|reconciler| {
        let (supported, cluster) = (readiness.condition(version::CONDITION), reconciler.cluster().clone());
        let ask = move || {
            let cluster = cluster.clone();
            async move { Ok(cluster.kubelet_version().await?) }
        };
        tasks.spawn_short(version::follow("kubelet", ask, supported.clone(), stop()));
        supported
    });
    let steering =
        reconciler.clone().filter(|_| placed).map(|reconciler| Steering { state: state.clone(), reconciler });
    let mut offers: Vec<(&str, State)> = Vec::new();
    for profile in profiles {
        let name = profile.name;
        let state =
            offer(profile, steering.clone(), supported.clone(), &counters, &device_plugins_dir, &readiness, &tasks);
        offers.push((name, state));
    }
    if vcuda {
        offers.push(("vcuda", state.clone()));
    }
    if let Some(cluster) = &cluster {
        for (name, state) in &offers {
            let kind = publish::condition::condition_type(name);
            let (cluster, counters) = (cluster.clone(), counters.clone());
            let told = publish::health::follow(cluster, kind, state.clone(), counters, report_period, stop());
            tasks.spawn("node-health", told);
        }
    }
    let states = offers.into_iter().map(|(_, state)| state).collect();
    if let Some(target) = Target::of(&labelled, cluster)? {
        let written =
            publish::labels::write::follow(target, states, labelled.style, counters.clone(), report_period, stop());
        tasks.spawn("labels", written);
    }
    let feed = |kind| Feed::new(kind, patience, counters.api_errors.with_label_values(&["watch"]));
    let (pod_news, node_news) = (feed("pods"), feed("nodes"));
    if reconciler.is_some() {
        registry
            .register(Box::new(Ages::new(publish::metrics::WATCH_AGE, [pod_news.clone(), node_news.clone()])?))?;
    }
    let debugged = state.clone();
    let shown = Arc::new(move || publish::debug::state(&debugged));
    let address = administer(listen, registry, &readiness, shown, &tasks).await?;
    let Some(reconciler) = reconciler else { return Ok(Plugin { admin: address, tasks, asked: token }) };
    let cluster = reconciler.cluster().clone();
    let answers = Answers::new(&isolation.state_dir);
    // before anything is compared with it
    state.allocations(|allocations| allocations.remember(answers.read()));
    let (latest, node) = tokio::sync::watch::channel(None);
    tasks.spawn("node", follow::own_node::follow(cluster.clone(), node_news.clone(), latest, stop()));
    let told = publish::cordon::follow(cluster.clone(), state.clone(), node.clone(), counters.clone(), stop());
    tasks.spawn("cordon", told);
    let published =
        follow::devices::publish(cluster.clone(), state.clone(), node, node_news, counters.clone(), stop());
    tasks.spawn("inventory", published);
    let access = Access { pods: pod_news.clone(), lists: cluster.lists().clone(), grace: withdraw_after };
    let judged = access.clone();
    readiness.check("pods", move || judged.lacks());
    let recorder = reconciler.clone();
    readiness.check("records", move || recorder.unrecorded());
    tasks.spawn("pods", follow::pods::follow(cluster.clone(), state.clone(), pod_news, stop()));
    tasks.spawn("access", access.follow(state.clone(), reconciler.clone(), stop()));
    let alone = readiness.condition("one resource domain: drain the node of pods of the other");
    tasks.spawn("reconcile", reconciler.clone().follow(alone, stop()));
    let told = publish::failing::follow(cluster.clone(), state.clone(), failure_memory, counters.clone(), stop());
    tasks.spawn("failing", told);
    if !vcuda {
        // it is not waited for
        state.discovered(Vec::new());
        return Ok(Plugin { admin: address, tasks, asked: token });
    }
    let cgroup_root = isolation.cgroup_root.clone();
    let ladder = Ladder::new(isolation);
    for folder in ladder.folders().all() {
        state.allocations(|allocations| allocations.enforced(&folder.key, folder.core, folder.level));
    }

    let vcuda = with_tkestack.then(|| {
        let (vcuda, opened) = Tkestack::new();
        vcuda.resume(ladder.folders());
        let roots = Roots { proc: proc_root.clone(), cgroup: cgroup_root };
        let folders = ladder.folders().clone();
        tasks.spawn("tkestack", front::vcuda_controller::follow(opened, state.clone(), folders, roots, stop()));
        vcuda
    });

    let shared = Shared {
        state: state.clone(),
        reconciler,
        counters: counters.clone(),
        strategy: Arc::new(strategy),
        ladder: ladder.clone(),
        answers,
        tkestack: vcuda,
    };

    let found = readiness.condition("gpus");
    let health =
        follow::devices::follow_health(driver.clone(), ladder.clone(), state.clone(), health_period, found, stop());
    tasks.spawn("health", health);
    let usage = follow::devices::follow_usage(driver, state.clone(), sample_period, proc_root.clone(), stop());
    tasks.spawn("usage", usage);
    tasks.spawn("pacing", follow::pacing::follow(state.clone(), ladder.folders().clone(), stop()));
    let folders = ladder.folders().clone();
    let watched = follow::watchdog::follow(
        state.clone(),
        folders,
        cluster.clone(),
        counters.clone(),
        breach_margin,
        proc_root,
        stop(),
    );
    tasks.spawn("watchdog", watched);
    if let Some(mps) = ladder.mps() {
        tasks.spawn("mps", mps.clone().follow(state.clone(), stop()));
    }
    if let Some(limits) = ladder.driver() {
        let (limits, folders) = (limits.clone(), ladder.folders().clone());
        let kept = limits.follow(state.clone(), folders, cluster.clone(), counters.clone(), stop());
        tasks.spawn("driver-limits", kept);
    }
    tasks.spawn("limits", isolation::sweep(ladder.folders().clone(), state.clone(), stop()));
    for (resource, word, ready) in
        [(Resource::Core, "core", "kubelet-core"), (Resource::Memory, "memory", "kubelet-memory")]
    {
        let registered = readiness.condition(ready);
        let shared = shared.clone();
        let endpoint = Endpoint {
            word: word.to_owned(),
            label: word.to_owned(),
            resource: resource.name(&shared.strategy.keys).to_owned(),
            options: front::vcuda::options(),
            counters: shared.counters.clone(),
            directory: device_plugins_dir.clone(),
            service: move |streams, token| Service::new(shared.clone(), resource.clone(), streams, token),
        };
        let listened = state.clone();
        let met = move |met| {
            registered.set(met);
            if !met {
                listened.allocations(|allocations| allocations.disconnected());
            }
        };
        let serving = kubelet::registration::keep_registered(endpoint, met, stop());
        tasks.spawn(word, once(supported.clone(), serving, stop()));
    }
    Ok(Plugin { admin: address, tasks, asked: token })
}

/// Serves the administrative routes.
async fn administer(
    listen: SocketAddr,
    registry: Registry,
    readiness: &Readiness,
    debug: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    tasks: &Tasks,
) -> anyhow::Result<SocketAddr> {
    let listener = admin::listen(listen).await?;
    let address = listener.local_addr()?;
    let stop = || tasks.token().clone();
    let readiness = readiness.clone();
    let routes =
        admin::router(Admin { registry, series: None, readiness, debug, program: "kerf-plugin", draining: stop() });
    tracing::info!(%address, "serving HTTP");
    tasks.spawn("admin", admin::serve(listener, routes, stop()));
    Ok(address)
}

/// Offers a profile's resources, from cards of its own, which it returns; with `steering` they are cards of the node's
/// roster, too.
fn offer(
    profile: Profile,
    steering: Option<Steering>,
    supported: Option<Condition>,
    counters: &Counters,
    directory: &Path,
    readiness: &Readiness,
    tasks: &Tasks,
) -> State {
    let (name, period, profile, steered) = (profile.name, profile.period, Arc::new(profile), steering.is_some());
    let state = match &steering {
        Some(steering) => steering.state.beside(Arc::clone(&profile)),
        None => State::default(),
    };
    let driver = Driver::new(device::backend::of(profile.source.clone()), counters.clone());
    let stop = || tasks.token().clone();
    let found = readiness.condition("gpus");
    // nothing holds a profile's containers to a share: their contracts know no limits
    let health = follow::devices::follow_health(driver, Ladder::none(), state.clone(), period, found, stop());
    tasks.spawn("health", health);
    let ready = readiness.condition(name);
    let serving = front::profile::follow(
        profile,
        state.clone(),
        steering,
        counters.clone(),
        directory.to_owned(),
        ready,
        stop(),
    );
    tasks.spawn(name, once(supported.filter(|_| steered), serving, stop()));
    state
}

/// Does a part's work once the condition holds, where there is one.
async fn once(condition: Option<Condition>, work: impl Future<Output = ()>, stop: CancellationToken) {
    if let Some(condition) = condition {
        tokio::select! {
            () = condition.met() => {}
            () = stop.cancelled() => return,
        }
    }
    work.await;
}
