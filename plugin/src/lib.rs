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
//! * `tasks`: the tasks of a running plugin. `config`, `doctor` and this file: flags to values, and the start. `prune`: what is
//!   left in a cluster after the plugins.

#![allow(missing_docs, reason = "a name that says everything needs no comment")]
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "most modules are private, and their documentation is for who reads them"
)]

pub mod config;
pub mod doctor;
pub mod prune;
mod tasks;

mod allocation;
mod api;
mod base;
mod device;
mod follow;
mod front;
mod isolation;
mod kubelet;
mod offer;
mod publish;
mod reconcile;
mod roster;
mod state;
mod vendor;

use std::sync::Arc;

use kerf_runtime::admin::{Listeners, Listening};
use kerf_runtime::shutdown::Tasks;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::state::answers::Answers;
use crate::tasks::Parts;

pub use publish::labels::flags::LabelMode;
pub use vendor::flags::two_dashes;

/// What tests use besides. Without the feature it is private, and rustc finds unused items.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::allocation::{Key, Pod, Stage, State as ClaimState, view};
    pub use crate::base::counters;
    pub use crate::device::{backend, cards, ids, label, roots, scan};
    pub use crate::front::encode;
    pub use crate::isolation::{demand, driver, enforcers, limiter};
    pub use crate::offer::{Offered, Offers, contract, hand_over, order, units};
    pub use crate::publish::{condition, labels, metrics};
    pub use crate::state::State;
    pub use crate::state::left_out::LeftOut;
    pub use crate::vendor::{amd, intel, labelled, nvidia, scanner, simulated, support};
}

/// A running plugin. Cancel its token to end it; dropping this does not.
pub struct Plugin {
    listening: Listening,
    tasks: Tasks,
    asked: CancellationToken,
}

impl Plugin {
    /// The addresses that it listens on.
    pub fn listening(&self) -> Listening {
        self.listening
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

/// Starts everything and returns. A `client` is needed for `vcuda`, for placed profiles and for labels on the Node.
/// With a client and the Node's name, the GPUs' health is also published on the Node.
///
/// # Errors
/// Where an address of `config` is taken, or `client` is missing where it is needed.
pub async fn start(config: Config, client: Option<Client>, token: CancellationToken) -> anyhow::Result<Plugin> {
    tracing::info!(?config, "configuration");
    let answers = Answers::new(&config.isolation.state_dir);
    let listeners = Listeners::open(config.metrics_listen, config.debug_listen).await?;
    let parts = Arc::new(Parts::new(config, client, Tasks::new(token.child_token()))?);
    parts.publish(parts.serve_contracts())?;
    if let Some(reconciler) = &parts.reconciler {
        // before anything is compared with it; the disk need not answer
        let saved = answers.clone();
        let reading = tokio::task::spawn_blocking(move || saved.read());
        if let Some(saved) = token.run_until_cancelled(reading).await.transpose()? {
            parts.state.allocations(|allocations| allocations.answers.restore(saved));
        }
        parts.follow_pods(reconciler)?;
        if let Some(offers) = parts.config.vcuda.clone() {
            parts.follow_vcuda(offers, reconciler.clone(), answers);
        } else {
            // the backend of vcuda is not waited for
            parts.state.discovered(Vec::new());
        }
    }
    let listening = parts.serve_admin(listeners)?;
    Ok(Plugin { listening, tasks: parts.tasks.clone(), asked: token })
}
