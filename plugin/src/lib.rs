//! kubelet's side of kerf: the device plugin. It reads on each pod of its node which GPU the extender chose, and
//! gives the pod's containers exactly that GPU.
//!
//! Folders are layers: each imports only those above it in this list.
//!
//! * `base`: the process and its host.
//! * `device`: GPUs as values. `device::backend` is what every vendor implements.
//! * `offer` (pure): what this node offers to kubelet, and what a container is given.
//!   `allocation` (pure): which container an Allocate call is for, and what kubelet's list says of it.
//! * `vendor`: a folder for each vendor. `roster` (pure): the GPUs of all sources, each once.
//! * `isolation`: what holds a container to its share. `state`: what the parts share.
//!   `api`: calls to the API server. `kubelet`: kubelet's sockets.
//! * `reconcile`: kubelet's list against the API server, and corrected records.
//! * `front`: the services for kubelet and for tkestack's library. `follow`: loops that keep the state current.
//!   `publish`: the Node's inventory, conditions, events and labels; metrics.
//! * `config`, `doctor` and this file: flags to values, and the start.

// names that say all have no comment
#![allow(missing_docs)]

pub mod config;
pub mod doctor;
mod tasks;

// public only for the tests of this package and of manifests: without the feature rustc finds unused items
#[cfg(not(feature = "testing"))]
mod allocation;
#[cfg(feature = "testing")]
pub mod allocation;
#[cfg(not(feature = "testing"))]
mod api;
#[cfg(feature = "testing")]
pub mod api;
#[cfg(not(feature = "testing"))]
mod base;
#[cfg(feature = "testing")]
pub mod base;
#[cfg(not(feature = "testing"))]
mod device;
#[cfg(feature = "testing")]
pub mod device;
#[cfg(not(feature = "testing"))]
mod follow;
#[cfg(feature = "testing")]
pub mod follow;
#[cfg(not(feature = "testing"))]
mod front;
#[cfg(feature = "testing")]
pub mod front;
#[cfg(not(feature = "testing"))]
mod isolation;
#[cfg(feature = "testing")]
pub mod isolation;
#[cfg(not(feature = "testing"))]
mod kubelet;
#[cfg(feature = "testing")]
pub mod kubelet;
#[cfg(not(feature = "testing"))]
mod offer;
#[cfg(feature = "testing")]
pub mod offer;
#[cfg(not(feature = "testing"))]
mod publish;
#[cfg(feature = "testing")]
pub mod publish;
#[cfg(not(feature = "testing"))]
mod reconcile;
#[cfg(feature = "testing")]
pub mod reconcile;
#[cfg(not(feature = "testing"))]
mod roster;
#[cfg(feature = "testing")]
pub mod roster;
#[cfg(not(feature = "testing"))]
mod state;
#[cfg(feature = "testing")]
pub mod state;
#[cfg(not(feature = "testing"))]
mod vendor;
#[cfg(feature = "testing")]
pub mod vendor;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kerf_runtime::shutdown::Tasks;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::follow::guarded::GuardedBackend;
use crate::state::answers::Answers;
use crate::tasks::Parts;

pub use publish::labels::flags::LabelMode;
pub use vendor::flags::two_dashes;

/// A running plugin. Cancel its token to end it; dropping this does not.
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
    /// Where it ended without a request to; the log names the part that failed.
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
pub async fn run(config: Config, client: Option<Client>, token: CancellationToken) -> anyhow::Result<()> {
    start(config, client, token).await?.finished().await
}

/// Starts everything and returns. A `client` is needed for `vcuda`, for placed profiles and for labels on the Node.
/// With a client and the Node's name, the GPUs' health is also published on the Node.
///
/// # Errors
/// Where the address of `config` is taken, or `client` is missing where it is needed.
pub async fn start(config: Config, client: Option<Client>, token: CancellationToken) -> anyhow::Result<Plugin> {
    tracing::info!(?config, "configuration");
    let parts = Parts::new(&config, client, Tasks::new(token.child_token()))?;
    let backend = GuardedBackend::new(config.backend.open(), parts.counters.clone());
    let errors = Arc::clone(&config.simulated_file_errors);
    let errors = publish::metrics::complaints(move || errors.load(Ordering::Relaxed))?;
    parts.registry.register(Box::new(errors))?;

    let mut offers = parts.serve_contracts(&config);
    if config.vcuda.is_some() {
        offers.push(("vcuda", parts.state.clone()));
    }
    parts.publish(offers, &config.labels, config.report_period)?;
    let admin = parts.serve_admin(config.listen).await?;
    if let Some(reconciler) = &parts.reconciler {
        // before anything is compared with it
        let answers = Answers::new(&config.isolation.state_dir);
        parts.state.allocations(|allocations| allocations.answers.restore(answers.read()));
        parts.follow_pods(reconciler, &config)?;
        if let Some(offers) = config.vcuda.clone() {
            let enforcers = parts.enforce(reconciler.cluster(), &config);
            parts.follow_devices(backend, &enforcers, &config);
            parts.serve_vcuda(offers, reconciler.clone(), enforcers, answers, config);
        } else {
            // the backend of vcuda is not waited for
            parts.state.discovered(Vec::new());
        }
    }
    Ok(Plugin { admin, tasks: parts.tasks, asked: token })
}
