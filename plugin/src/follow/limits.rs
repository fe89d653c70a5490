//! Keeps up what holds containers to their shares: the driver's limits, the daemons of the multi-process service,
//! and the directories of containers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use kerf::ids::{DeviceId, PodUid};
use kerf::isolation::Isolation;
use kerf::plan::Grant;
use kerf::units::Share;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::allocation::view::PodView;
use crate::api::{EventText, PodEvents};
use crate::isolation::driver::{self, DriverLimits, Kept, Wanted};
use crate::isolation::folder::Folders;
use crate::isolation::mps::Mps;
use crate::state::State;
use crate::vendor;

/// How soon a limit in the driver follows the start of a container, once kubelet has reported it.
const DRIVER_PERIOD: Duration = Duration::from_millis(500);
const MPS_PERIOD: Duration = Duration::from_secs(1);
/// How often directories of ended containers are looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// Removes the directories of ended containers, until the token is cancelled.
pub async fn sweep(folders: Folders, state: State, token: CancellationToken) {
    while token.run_until_cancelled(sleep(SWEEP)).await.is_some() {
        // before the first list of kubelet and of the API server, every directory may be needed
        let Some((pods, strangers)) = state.allocations(|allocations| allocations.in_use()) else { continue };
        let folders = folders.clone();
        let swept = tokio::task::spawn_blocking(move || {
            let known: BTreeSet<&PodUid> = pods.iter().map(|view| &view.pod.uid).collect();
            let held = folders.of(pods.iter().flat_map(PodView::holders));
            let held: BTreeSet<&PathBuf> = held.values().map(|folder| &folder.path).collect();
            folders.sweep(|folder| {
                let stranger = strangers.contains(&folder.core);
                known.contains(&folder.key.pod) || held.contains(&folder.path) || stranger
            });
        });
        let _ = swept.await;
    }
}

/// Keeps limits on every container that was given this isolation, until the token is cancelled. The limits stay
/// then.
pub async fn follow_driver(
    limits: DriverLimits,
    state: State,
    folders: Folders,
    events: PodEvents,
    token: CancellationToken,
) {
    let mut kept = Kept::default();
    while token.run_until_cancelled(sleep(DRIVER_PERIOD)).await.is_some() {
        let (pods, known) = (state.allocations(|allocations| allocations.view()), folders.clone());
        let (limits, mut now) = (limits.clone(), std::mem::take(&mut kept));
        let looked = tokio::task::spawn_blocking(move || {
            let unmet = limits.keep(&mut now, &driver::wanted(&pods, &known, &limits.root));
            let lowered = unmet.into_iter().map(|unmet| (driver::fallen(&known, &unmet.folder), unmet));
            let lowered: Vec<_> = lowered.collect();
            (now, lowered)
        });
        let Ok((now, lowered)) = looked.await else { continue };
        kept = now;
        for (level, Wanted { key, folder, pod, .. }) in lowered {
            state.allocations(|allocations| allocations.enforced(&key, folder.core, level));
            let uid = key.pod;
            let message = format!("the driver does not limit the container's control group; its share has {level}");
            tracing::warn!(%pod, %uid, message, "isolation lowered");
            events.tell(&pod, &uid, EventText::warning("GPUIsolationLowered", message));
        }
    }
}

/// Keeps a daemon for each GPU, until the token is cancelled; then ends the daemons.
pub async fn follow_mps(mps: Mps, state: State, token: CancellationToken) {
    loop {
        let (shares, daemons) = (shares(&state), mps.clone());
        let _ = tokio::task::spawn_blocking(move || daemons.keep(&shares)).await;
        if token.run_until_cancelled(sleep(MPS_PERIOD)).await.is_none() {
            break;
        }
    }
    let _ = tokio::task::spawn_blocking(move || mps.end()).await;
}

/// The largest share of each GPU: in compute with the ceiling for bursts, and in memory. The daemon of a GPU
/// without shares allows all of it.
fn shares(state: &State) -> BTreeMap<DeviceId, Share> {
    let (cards, pods) = (state.cards(), state.allocations(|allocations| allocations.view()));
    let healthy = cards.hosts().filter(|host| {
        host.device.usable()
            && !host.partition()
            && vendor::support(host.origin.vendor).enforced_by.contains(&Isolation::Mps)
    });
    let mut shares: BTreeMap<DeviceId, Option<Share>> =
        healthy.map(|host| (host.device.id.clone(), None)).collect();
    for view in &pods {
        for container in &view.containers {
            let Grant::Share { device, share } = &container.grant.gpus else { continue };
            let compute = view.limit.unwrap_or(share.compute).max(share.compute);
            let share = Share { compute, ..*share };
            if let Some(most) = shares.get_mut(&device.id) {
                *most = Some(most.map_or(share, |most| most.max(share)));
            }
        }
    }
    let all = |device: &DeviceId| cards.get(device).map(|host| host.device.capacity()).unwrap_or_default();
    shares.into_iter().map(|(device, share)| (device.clone(), share.unwrap_or_else(|| all(&device)))).collect()
}
