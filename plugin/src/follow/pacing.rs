//! Which container may use how much of a GPU's time now. The host sees how much each container gets of its GPU, and
//! how much its neighbours leave idle; [`arbiter`] decides, and each container's limiter reads the decision
//! ([`kerf_limiter_contract::allowance`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kerf::ids::DeviceId;
use kerf::plan::Grant;
use kerf::units::Milli;
use kerf_limiter_contract::arbiter;
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

use crate::allocation::view::PodView;
use crate::follow::in_time::InTime;
use crate::follow::said;
use crate::isolation::folder::{Folder, Folders};
use crate::isolation::limiter;
use crate::state::State;
use crate::state::occupancy;
use crate::state::sample::Sample;

/// The last decision for a container, and how long it had waited by then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Last {
    allowance: u32,
    waited: u64,
}

/// Decides with each measurement until the token is cancelled.
pub async fn follow(state: State, folders: Folders, token: CancellationToken) {
    let mut samples = state.watch_samples();
    let mut last = BTreeMap::new();
    let (mut asked, mut told) = (InTime::default(), InTime::default());
    while let Some(Ok(())) = token.run_until_cancelled(samples.changed()).await {
        let sample = samples.borrow_and_update().clone();
        let pods = state.allocations(|allocations| allocations.view());
        let (tenants, questions) = tenants(&pods, &sample, &folders);
        let waited = asked.ask(questions).await;
        let decided = decide(tenants, &waited, &last);
        last = decided.iter().map(|(folder, last)| (folder.path.clone(), *last)).collect();
        let orders = decided.into_iter().map(|(folder, last)| (folder.path.clone(), move || allow(&folder, last)));
        told.ask(orders.collect()).await;
    }
}

fn allow(folder: &Folder, Last { allowance, .. }: Last) {
    if let Err(error) = limiter::allow(folder, allowance, now()) {
        tracing::debug!(%error, "allowance not written");
    }
}

/// Nanoseconds of the clock that limiters use as well.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or_default())
}

fn millionths(share: Milli) -> u32 {
    share.0.saturating_mul(1000)
}

/// A container with a limiter, and what is known of it without its files.
struct Tenant {
    folder: Folder,
    device: DeviceId,
    floor: u32,
    ceiling: u32,
    /// In percent.
    used: u32,
}

/// How long a container has waited by now; `None`: its file cannot be read.
type Waited = Option<u64>;

/// The containers with a limiter, and the questions of how long those of them have waited that use their GPU: one without
/// a process there waits for nothing, and its file need not be read.
fn tenants(
    pods: &[PodView],
    sample: &Arc<Sample>,
    folders: &Folders,
) -> (Vec<Tenant>, Vec<(PathBuf, impl FnOnce() -> Waited + Send + 'static)>) {
    let used = occupancy::used(pods, sample);
    let folders = folders.of(pods.iter().flat_map(PodView::holders));
    let (mut tenants, mut questions) = (Vec::new(), Vec::new());
    for view in pods {
        for holder in view.holders() {
            let Some(folder) = folders.get(&holder.key()).filter(|folder| folder.limiter) else {
                continue;
            };
            let Grant::Share { device, share } = &holder.grant.gpus else { continue };
            let place = (view.pod.reference.clone(), holder.grant.container.clone(), device.id.clone());
            let now = used.get(&place);
            if now.is_some() {
                let (path, folder, sample) = (folder.path.clone(), folder.clone(), Arc::clone(sample));
                let waited = move || Some(said::after(&sample, &folder)?.devices.first()?.waited);
                questions.push((path, waited));
            }
            let floor = millionths(share.compute);
            tenants.push(Tenant {
                folder: folder.clone(),
                device: device.id.clone(),
                floor,
                ceiling: view.limit.map_or(floor, millionths).max(floor),
                used: now.map_or(0, |now| now.utilization),
            });
        }
    }
    (tenants, questions)
}

/// What each container may use from now on.
fn decide(
    tenants: Vec<Tenant>,
    waited: &BTreeMap<PathBuf, Waited>,
    last: &BTreeMap<PathBuf, Last>,
) -> Vec<(Folder, Last)> {
    let mut cards: BTreeMap<DeviceId, Vec<(Folder, u64, arbiter::Tenant)>> = BTreeMap::new();
    for Tenant { folder, device, floor, ceiling, used } in tenants {
        let before = last.get(&folder.path).copied().unwrap_or_default();
        let waited = waited.get(&folder.path).copied().flatten().unwrap_or(before.waited);
        let tenant = arbiter::Tenant {
            floor,
            ceiling,
            allowance: before.allowance,
            used: used.min(100).saturating_mul(10_000),
            waited: waited > before.waited,
        };
        cards.entry(device).or_default().push((folder, waited, tenant));
    }
    let mut decided = Vec::new();
    for tenants in cards.into_values() {
        let wishes: Vec<arbiter::Tenant> = tenants.iter().map(|(_, _, tenant)| *tenant).collect();
        for ((folder, waited, _), allowance) in tenants.into_iter().zip(arbiter::decide(&wishes)) {
            decided.push((folder, Last { allowance, waited }));
        }
    }
    decided
}
