//! Polls the driver: which GPUs there are, their health, their usage.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kerf::device::Health;
use kerf::ids::DeviceId;
use kerf_runtime::readiness::Condition;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::base::cgroup;
use crate::device::backend::{Backend, BackendError, HostDevice};
use crate::follow::guarded::GuardedBackend;
use crate::isolation::enforcers::Enforcers;
use crate::state::State;
use crate::state::sample::Sample;

/// Static facts (topology, memory size) are read again this often.
const REDISCOVERY: Duration = Duration::from_secs(30);

/// Keeps GPUs and their health current. `found` is met while there are GPUs.
pub async fn follow_health(
    driver: GuardedBackend,
    enforcers: Enforcers,
    state: State,
    period: Duration,
    found: Condition,
    token: CancellationToken,
) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut discovered: Option<Instant> = None;
    let mut changes = Changes::default();
    let follow = async {
        loop {
            ticks.tick().await;
            let due = discovered.is_none_or(|at| at.elapsed() >= REDISCOVERY);
            let result = if due { Ok(None) } else { driver.ask("health", |b| b.health()).await.map(Some) };
            let result = match result {
                // a new GPU: its facts are needed before it can be listed
                Ok(Some(health)) if health.keys().all(|id| state.cards().get(id).is_some()) => {
                    state.health(Ok(health));
                    state.isolation(|host| enforcers.of_shares(host));
                    Ok(())
                }
                Ok(_) => driver.ask("discover", facts(enforcers.clone())).await.map(|devices| {
                    discovered = Some(Instant::now());
                    state.discovered(devices);
                }),
                Err(error) => Err(error),
            };
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

/// The GPUs, each with how its shares are enforced, which the driver may be asked for as well.
fn facts(enforcers: Enforcers) -> impl FnOnce(&dyn Backend) -> Result<Vec<HostDevice>, BackendError> + Send {
    move |backend| {
        let mut devices = backend.discover()?;
        devices.iter_mut().for_each(|host| host.device.isolation = enforcers.of_shares(host));
        Ok(devices)
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
                tracing::info!(gpu = %device.id, index = device.index, model = %device.model, health, "GPU");
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
