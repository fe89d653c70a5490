//! Which container may use how much of a GPU's time now. The host sees how much each container gets of its GPU, and
//! how much its neighbours leave idle; [`arbiter`] decides, and each container's limiter reads the decision
//! ([`kerf_limiter_contract::allowance`]).

use std::collections::BTreeMap;
use std::path::PathBuf;

use kerf::ids::DeviceId;
use kerf::plan::Grant;
use kerf::units::Milli;
use kerf_limiter_contract::arbiter::{self, Tenant};
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

use crate::allocation::view::PodView;
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
    while let Some(Ok(())) = token.run_until_cancelled(samples.changed()).await {
        let sample = samples.borrow_and_update().clone();
        let (pods, folders) = (state.allocations(|allocations| allocations.view()), folders.clone());
        let decided = tokio::task::spawn_blocking(move || {
            let next = decide(&pods, &sample, &folders, &last);
            for (folder, allowance) in &next.1 {
                if let Err(error) = limiter::allow(folder, *allowance, now()) {
                    tracing::debug!(%error, "allowance not written");
                }
            }
            next.0
        });
        last = decided.await.unwrap_or_default();
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

type Decided = (BTreeMap<PathBuf, Last>, Vec<(Folder, u32)>);

/// What each container with a limiter may use from now on.
fn decide(pods: &[PodView], sample: &Sample, folders: &Folders, last: &BTreeMap<PathBuf, Last>) -> Decided {
    let used = occupancy::used(pods, sample);
    let mut cards: BTreeMap<&DeviceId, Vec<(Folder, u64, Tenant)>> = BTreeMap::new();
    let folders = folders.of(pods.iter().flat_map(PodView::holders));
    for view in pods {
        for holder in view.holders() {
            let Some(folder) = folders.get(&holder.key()).filter(|folder| folder.limiter) else {
                continue;
            };
            let Grant::Share { device, share } = &holder.grant.gpus else { continue };
            let place = (view.pod.reference.clone(), holder.grant.container.clone(), device.id.clone());
            let before = last.get(&folder.path).copied().unwrap_or_default();
            // a container without a process on the GPU waits for nothing, and its file need not be read
            let now = used.get(&place);
            let percent = now.map_or(0, |now| now.utilization);
            let snapshot = now.and_then(|_| limiter::snapshot(folder).ok()).unwrap_or_default();
            let waited = snapshot.devices.first().map_or(before.waited, |device| device.waited);
            let floor = millionths(share.compute);
            let tenant = Tenant {
                floor,
                ceiling: view.limit.map_or(floor, millionths).max(floor),
                allowance: before.allowance,
                used: percent.min(100).saturating_mul(10_000),
                waited: waited > before.waited,
            };
            cards.entry(&device.id).or_default().push((folder.clone(), waited, tenant));
        }
    }
    let (mut next, mut orders) = (BTreeMap::new(), Vec::new());
    for tenants in cards.into_values() {
        let wishes: Vec<Tenant> = tenants.iter().map(|(_, _, tenant)| *tenant).collect();
        for ((folder, waited, _), allowance) in tenants.into_iter().zip(arbiter::decide(&wishes)) {
            next.insert(folder.path.clone(), Last { allowance, waited });
            orders.push((folder, allowance));
        }
    }
    (next, orders)
}
