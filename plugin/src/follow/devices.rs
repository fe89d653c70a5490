//! Polls the driver: which GPUs there are, their health, their usage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use kerf::device::Health;
use kerf::ids::DeviceId;
use kerf_runtime::readiness::Condition;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::base::cgroup;
use crate::device::backend::{Backend, BackendError, HostDevice};
use crate::device::cards::Cards;
use crate::follow::guarded::GuardedBackend;
use crate::follow::held::Held;
use crate::isolation::enforcers::Enforcers;
use crate::state::State;
use crate::state::left_out::ProfileLeftOut;
use crate::state::sample::Sample;

/// Static facts (topology, memory size) are read again this often.
const REDISCOVERY: Duration = Duration::from_secs(30);

/// What is kept current of one source of GPUs.
pub struct Kept {
    /// Its GPUs and their health.
    pub state: State,
    /// The GPUs that it does not offer.
    pub left_out: ProfileLeftOut,
    /// Met while there are GPUs.
    pub found: Condition,
    /// Says which GPUs are held, where the state does not know of pods.
    pub held: Option<Held>,
}

/// Keeps GPUs and their health current.
pub async fn follow_health(
    driver: GuardedBackend,
    enforcers: Enforcers,
    kept: Kept,
    period: Duration,
    token: CancellationToken,
) {
    let Kept { state, left_out, found, held } = kept;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut discovered: Option<Instant> = None;
    let mut changes = Changes::default();
    let follow = async {
        loop {
            ticks.tick().await;
            let before = discovered;
            let due = discovered.is_none_or(|at| at.elapsed() >= REDISCOVERY);
            let result = if due { Ok(None) } else { driver.ask("health", |b| b.health()).await.map(Some) };
            let result = match result {
                Ok(Some(health)) if same(&state.cards(), &health) => {
                    state.health(Ok(health));
                    state.isolation(|host| enforcers.of_shares(host));
                    state.retire();
                    Ok(())
                }
                Ok(_) => driver.ask("discover", facts(enforcers.clone(), left_out.clone())).await.map(
                    |(devices, out)| {
                        discovered = Some(Instant::now());
                        state.discovered_but(devices, &out);
                    },
                ),
                Err(error) => Err(error),
            };
            if let Some(held) = held.as_ref().filter(|_| discovered != before && state.cards().any_gone())
                && let Some(held) = held.of(&state.cards()).await
            {
                state.retire_all_but(&held);
            }
            found.set(result.is_ok() && state.cards().hosts().next().is_some());
            if let Err(error) = &result {
                discovered = None;
                state.health(Err(error));
            }
            changes.tell(&state, result.err());
        }
    };
    // also while the driver does not answer
    token.run_until_cancelled(follow).await;
}

/// Whether the driver names the GPUs that are known: the facts of a new one are needed before it can be listed, and of one
/// that is gone it is to be known whether its GPU was divided otherwise.
fn same(cards: &Cards, health: &BTreeMap<DeviceId, Health>) -> bool {
    let mut well = cards.hosts().map(|host| &host.device).filter(|device| device.health == Health::Healthy);
    health.keys().all(|id| cards.get(id).is_some()) && well.all(|device| health.contains_key(&device.id))
}

/// The GPUs, each with how its shares are enforced, which the driver may be asked for as well, and the names of those
/// that are left out. These are told where the driver does not answer, too.
fn facts(
    enforcers: Enforcers,
    left_out: ProfileLeftOut,
) -> impl FnOnce(&dyn Backend) -> Result<(Vec<HostDevice>, BTreeSet<String>), BackendError> + Send {
    move |backend| {
        let found = backend.discover();
        let remarks = backend.remarks();
        let out = remarks.iter().filter(|remark| remark.left_out).map(|remark| remark.subject.clone()).collect();
        left_out.set(remarks);
        let mut devices = found?;
        devices.iter_mut().for_each(|host| host.device.isolation = enforcers.of_shares(host));
        Ok((devices, out))
    }
}

/// Logs changes, not states.
#[derive(Default)]
struct Changes {
    error: Option<String>,
    health: BTreeMap<DeviceId, Health>,
}

impl Changes {
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
                let (gpu, index, model) = (&device.id, device.index, &device.model);
                if device.health == Health::Healthy {
                    tracing::info!(%gpu, index, %model, health, "GPU");
                } else {
                    tracing::warn!(%gpu, index, %model, health, "GPU");
                }
            }
        }
    }
}

/// Keeps measurements current.
pub async fn follow_usage(
    driver: GuardedBackend,
    state: State,
    period: Duration,
    proc_root: PathBuf,
    token: CancellationToken,
) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let follow = async {
        loop {
            ticks.tick().await;
            let proc_root = proc_root.clone();
            let sample = driver.ask("usage", move |backend| {
                let usage = backend.usage()?;
                let owners = usage.processes.iter().map(|process| match process.owner {
                    Some(_) => None,
                    None => cgroup::owner(&proc_root, process.pid),
                });
                let owners = owners.collect();
                Ok(Sample::new(usage, owners))
            });
            let sample = sample.await.unwrap_or_else(|error| {
                tracing::debug!(%error, "no usage sample");
                Sample::default()
            });
            state.set_sample(sample);
        }
    };
    token.run_until_cancelled(follow).await;
}
