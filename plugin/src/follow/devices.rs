//! Asks the driver: which cards, how they are, what they do. And tells the Node.
//!
//! A driver may hang. Its calls run on a blocking thread, one at a time, and are given up on after a while; until
//! the hung one returns no other is made, and the cards count as unhealthy.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kerf::annotation::inventory;
use kerf_runtime::feed::Feed;
use kerf_runtime::readiness::Condition;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::client::{Cluster, ClusterError};
use crate::base::cgroup;
use crate::device::backend::{Backend, BackendError};
use crate::follow::own_node::Latest;
use crate::isolation::Ladder;
use crate::publish::metrics::Counters;
use crate::state::cards_watch::Pause;
use crate::state::{Sample, State};

/// A driver that is silent for so long hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Static facts (topology, memory size) are read again this often.
const REDISCOVERY: Duration = Duration::from_secs(30);
/// How often the Node is looked at while it cannot be watched, in case somebody removed the inventory.
const REVIEW: Duration = Duration::from_secs(60);
/// Whoever writes over the inventory again and again is not answered ever faster: after so long without it, at once.
const PEACE: Duration = Duration::from_secs(120);

/// A driver behind a deadline.
#[derive(Clone)]
pub struct Driver {
    backend: Arc<dyn Backend>,
    busy: Arc<Semaphore>,
    counters: Counters,
}

impl Driver {
    /// Asks `backend`.
    pub fn new(backend: Arc<dyn Backend>, counters: Counters) -> Self {
        Self { backend, busy: Arc::new(Semaphore::new(1)), counters }
    }

    /// How often what the backend reads was found unusable.
    pub fn complaints(&self) -> u64 {
        self.backend.complaints()
    }

    async fn ask<T, F>(&self, question: &'static str, ask: F) -> Result<T, BackendError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Backend) -> Result<T, BackendError> + Send + 'static,
    {
        let slow = |reason: &str| BackendError::Failed {
            backend: self.backend.name(),
            question,
            reason: reason.to_owned(),
        };
        let backend = Arc::clone(&self.backend);
        let asked = async {
            let permit = Arc::clone(&self.busy).acquire_owned().await;
            let answered = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                ask(backend.as_ref())
            });
            answered.await
        };
        let (kind, error) = match timeout(PATIENCE, asked).await {
            Ok(Ok(Ok(answer))) => return Ok(answer),
            Ok(Ok(Err(error))) => (error.code(), error),
            Ok(Err(_)) => ("failed", slow("the call panicked")),
            Err(_) => ("slow", slow("no answer in time")),
        };
        self.counters.backend_errors.with_label_values(&[kind]).inc();
        Err(error)
    }
}

/// Keeps cards and their health current. `found` is met while cards are here.
pub async fn follow_health(
    driver: Driver,
    ladder: Ladder,
    state: State,
    period: Duration,
    found: Condition,
    token: CancellationToken,
) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut discovered: Option<Instant> = None;
    let mut news = News::default();
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let due = discovered.is_none_or(|at| at.elapsed() >= REDISCOVERY);
        let result = if due { Ok(None) } else { driver.ask("health", |b| b.health()).await.map(Some) };
        let result = match result {
            // a card came: its facts are needed before it can be listed
            Ok(Some(health)) if health.keys().all(|id| state.cards().get(id).is_some()) => {
                state.health(Ok(health));
                state.isolation(|host| ladder.of_shares(host));
                Ok(())
            }
            Ok(_) => driver.ask("discover", |b| b.discover()).await.map(|mut devices| {
                discovered = Some(Instant::now());
                devices.iter_mut().for_each(|host| host.device.isolation = ladder.of_shares(host));
                state.discovered(devices);
            }),
            Err(error) => Err(error),
        };
        found.set(result.is_ok() && state.cards().hosts().next().is_some());
        if let Err(error) = &result {
            discovered = None;
            state.health(Err(error));
        }
        news.tell(&state, result.err());
    }
}

/// Logs changes, not states.
#[derive(Default)]
struct News {
    error: Option<String>,
    health: std::collections::BTreeMap<kerf::ids::DeviceId, kerf::device::Health>,
}

impl News {
    fn tell(&mut self, state: &State, error: Option<BackendError>) {
        let error = error.map(|error| error.to_string());
        if error != self.error {
            match &error {
                Some(error) => tracing::warn!(%error, "GPU driver does not answer; trying again"),
                None => tracing::info!("GPU driver answers again"),
            }
            self.error = error;
        }
        for host in state.cards().hosts() {
            let device = &host.device;
            let before = self.health.insert(device.id.clone(), device.health);
            if before != Some(device.health) {
                let health = device.health.as_str();
                tracing::info!(gpu = %device.id, index = device.index, model = %device.model, health, "GPU");
            }
        }
    }
}

/// Keeps measurements current.
pub async fn follow_usage(
    driver: Driver,
    state: State,
    period: Duration,
    proc_root: PathBuf,
    token: CancellationToken,
) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let proc_root = Arc::new(proc_root);
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let proc_root = Arc::clone(&proc_root);
        let sample = driver.ask("usage", move |backend| {
            let usage = backend.usage()?;
            let owners = usage.processes.iter().map(|process| match process.owner {
                Some(_) => None,
                None => cgroup::owner(&proc_root, process.pid),
            });
            let owners = owners.collect();
            Ok(Sample { usage, owners })
        });
        let sample = sample.await.unwrap_or_else(|error| {
            tracing::debug!(%error, "no measurement");
            Sample::default()
        });
        state.set_sample(sample);
    }
}

/// Keeps the Node's inventory annotation current: what `node` shows otherwise is written again. Nothing waits for it.
pub async fn publish(
    cluster: Cluster,
    state: State,
    mut node: watch::Receiver<Latest>,
    feed: Feed,
    counters: Counters,
    token: CancellationToken,
) {
    let mut roster = state.watch_roster();
    let mut refusals = BTreeSet::new();
    let mut writer = Writer {
        key: cluster.keys().inventory.clone(),
        cluster,
        written: None,
        at: None,
        tried: None,
        pause: Pause::default(),
    };
    loop {
        let now = roster.borrow_and_update().clone();
        for refusal in now.refusals.difference(&refusals) {
            tracing::warn!(%refusal, "not announced on the Node");
        }
        refusals.clone_from(&now.refusals);
        let seen = node.borrow_and_update().clone();
        let mut wait = REVIEW;
        // before the first discovery there is nothing to say, and an older inventory may still be right
        if now.settled && now.hosts().next().is_some() {
            let text = inventory::encode(&now.inventory());
            let seen = seen.filter(|_| feed.lost().is_none()).map(|shown| shown.inventory);
            match writer.keep(&text, seen).await {
                Ok(None) => {}
                Ok(Some(due)) => wait = due,
                Err(error) => {
                    counters.api_errors.with_label_values(&["node"]).inc();
                    tracing::warn!(%error, "inventory not published; trying again");
                    wait = writer.pause.longer();
                }
            }
        }
        tokio::select! {
            () = token.cancelled() => return,
            changed = roster.changed() => if changed.is_err() { return },
            changed = node.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Writes the inventory.
struct Writer {
    cluster: Cluster,
    key: String,
    /// What was written last, and when.
    written: Option<String>,
    at: Option<Instant>,
    /// What was to be written when that was last tried.
    tried: Option<String>,
    /// Between writes of the same.
    pause: Pause,
}

impl Writer {
    /// Writes `text` where the Node does not show it. `seen`: what it shows, where that is known. Says when to look again,
    /// where that is before anything changes.
    async fn keep(&mut self, text: &str, seen: Option<Option<String>>) -> Result<Option<Duration>, ClusterError> {
        let again = self.written.as_deref() == Some(text);
        let shown = match seen {
            Some(shown) => shown,
            None if again => self.cluster.node_annotation(&self.key).await?,
            None => None,
        };
        if shown.as_deref() == Some(text) {
            self.written = Some(text.to_owned());
            return Ok(None);
        }
        if again {
            let quiet = self.at.map_or(PEACE, |at| at.elapsed());
            if quiet >= PEACE {
                self.pause.end();
            }
            // the watch has not shown yet what was written, or somebody writes against us
            let due = self.pause.now().saturating_sub(quiet);
            if !due.is_zero() {
                return Ok(Some(due));
            }
            self.pause.longer();
            // profiles whose pods are placed, and vcuda, belong into one process
            tracing::warn!(
                removed = shown.is_none(),
                "somebody else changed this Node's inventory; writing it again"
            );
        } else if self.tried.as_deref() != Some(text) {
            self.pause.end();
        }
        self.tried = Some(text.to_owned());
        self.cluster.annotate_node(&self.key, text).await?;
        if !again {
            tracing::info!(bytes = text.len(), "inventory published");
        }
        (self.written, self.at) = (Some(text.to_owned()), Some(Instant::now()));
        Ok(Some(self.pause.now()))
    }
}
