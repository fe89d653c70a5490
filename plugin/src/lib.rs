//! kubelet's side of kerf: the device plugin. It reads on each pod of its node which card the extender chose, and
//! gives the pod's containers exactly that one.
//!
//! ```text
//!   kubelet --gRPC-- [kubelet] [service] --> [claim] (pure: whose call is it?) --> [binding] (pure: what it gets)
//!   API server ----- [watch] [cluster] ----> [state] <---- [monitor] --- [backend] (NVIDIA, simulated)
//!   [isolation] (what holds a container to its share) ----------> limits on the host, mounts
//!   kubelet's list - [reconcile] ----------> [claim::truth] --> corrected records
//!                                            [metrics] [debug] --> HTTP
//! ```

pub mod backend;
pub mod binding;
pub mod cgroup;
pub mod claim;
pub mod cluster;
pub mod config;
pub mod debug;
pub mod ids;
pub mod inventory;
pub mod isolation;
pub mod kubelet;
pub mod metrics;
pub mod monitor;
pub mod occupancy;
pub mod pacing;
pub mod reconcile;
pub mod service;
pub mod state;
pub mod tkestack;
pub mod watch;
pub mod watchdog;

use std::net::SocketAddr;
use std::sync::Arc;

use kerf::runtime::admin::{self, Admin};
use kerf::runtime::readiness::Readiness;
use kerf::runtime::shutdown::Tasks;
use kube::Client;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::backend::auto::Auto;
use crate::backend::nvidia::Nvidia;
use crate::backend::simulated::Simulated;
use crate::cluster::Cluster;
use crate::config::{BackendChoice, Config};
use crate::ids::Resource;
use crate::isolation::Ladder;
use crate::metrics::{Counters, Gauges};
use crate::monitor::Driver;
use crate::reconcile::Reconciler;
use crate::service::Shared;
use crate::state::State;
use crate::tkestack::{Roots, Tkestack};

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
pub async fn run(config: Config, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    start(config, client, token).await?.finished().await
}

/// Starts everything and returns.
///
/// # Errors
/// Where the address of `config` is taken.
pub async fn start(config: Config, client: Client, token: CancellationToken) -> anyhow::Result<Plugin> {
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
        numa_hints,
        health_period,
        sample_period,
    } = config;
    let tasks = Tasks::new(token.child_token());
    let stop = || tasks.token().clone();
    let registry = Registry::new();
    let counters = Counters::new(&registry)?;
    let state = State::default();
    let readiness = Readiness::default();

    let driver = Driver::new(backend_of(backend), counters.clone());
    registry.register(Box::new(Gauges::new(state.clone(), node.clone())?))?;
    let complaining = driver.clone();
    registry.register(Box::new(metrics::complaints(move || complaining.complaints())?))?;

    let cgroup_root = isolation.cgroup_root.clone();
    let ladder = Ladder::new(isolation);
    for folder in ladder.folders().all() {
        state.claims(|claims| claims.enforced(folder.core, folder.level));
    }

    let vcuda = with_tkestack.then(|| {
        let (vcuda, opened) = Tkestack::new();
        vcuda.resume(ladder.folders());
        let roots = Roots { proc: proc_root.clone(), cgroup: cgroup_root };
        tasks.spawn("tkestack", tkestack::follow(opened, state.clone(), roots, stop()));
        vcuda
    });

    let cluster = Cluster::new(client, node, keys);
    let reconciler = Reconciler::new(state.clone(), cluster.clone(), counters.clone(), &pod_resources_dir);
    let shared = Shared {
        state: state.clone(),
        reconciler: reconciler.clone(),
        counters: counters.clone(),
        strategy: Arc::new(strategy),
        ladder: ladder.clone(),
        tkestack: vcuda,
        numa_hints,
    };

    let listener = admin::listen(listen).await?;
    let address = listener.local_addr()?;
    let debugged = state.clone();
    let routes = admin::router(Admin {
        registry,
        series: None,
        readiness: readiness.clone(),
        debug: Arc::new(move || debug::state(&debugged)),
        program: "kerf-plugin",
        draining: stop(),
    });
    tracing::info!(%address, "serving HTTP");
    tasks.spawn("admin", admin::serve(listener, routes, stop()));

    let found = readiness.condition("gpus");
    let health =
        monitor::follow_health(driver.clone(), ladder.clone(), state.clone(), health_period, found, stop());
    tasks.spawn("health", health);
    let usage = monitor::follow_usage(driver, state.clone(), sample_period, proc_root.clone(), stop());
    tasks.spawn("usage", usage);
    tasks.spawn("pacing", pacing::follow(state.clone(), ladder.folders().clone(), stop()));
    let folders = ladder.folders().clone();
    let watched = watchdog::follow(
        state.clone(),
        folders,
        cluster.clone(),
        counters.clone(),
        breach_margin,
        proc_root,
        stop(),
    );
    tasks.spawn("watchdog", watched);
    tasks.spawn("inventory", monitor::publish(cluster.clone(), state.clone(), counters.clone(), stop()));
    if let Some(mps) = ladder.mps() {
        tasks.spawn("mps", mps.clone().follow(state.clone(), stop()));
    }
    if let Some(limits) = ladder.driver() {
        tasks.spawn("driver-limits", limits.clone().follow(state.clone(), ladder.folders().clone(), stop()));
    }
    tasks.spawn("limits", isolation::sweep(ladder.folders().clone(), state.clone(), stop()));
    let synced = readiness.condition("pods");
    tasks.spawn("pods", watch::follow(cluster, state, counters, synced, stop()));
    tasks.spawn("reconcile", reconciler.follow(stop()));
    for resource in Resource::ALL {
        let registered = readiness.condition(match resource {
            Resource::Core => "kubelet-core",
            Resource::Memory => "kubelet-memory",
        });
        let directory = device_plugins_dir.clone();
        let kept = kubelet::keep_registered(shared.clone(), resource, directory, registered, stop());
        tasks.spawn(resource.as_str(), kept);
    }
    Ok(Plugin { admin: address, tasks, asked: token })
}

fn backend_of(choice: BackendChoice) -> Arc<dyn Backend> {
    match choice {
        BackendChoice::Nvidia(options) => Arc::new(Nvidia::new(options)),
        BackendChoice::Simulated(path) => Arc::new(Simulated::new(path)),
        BackendChoice::Auto(options, path) => {
            let mut candidates: Vec<Box<dyn Backend>> = vec![Box::new(Nvidia::new(options))];
            candidates.extend(path.map(|path| Box::new(Simulated::new(path)) as Box<dyn Backend>));
            Arc::new(Auto::new(candidates))
        }
    }
}
