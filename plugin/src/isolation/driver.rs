//! The rung `driver`: a hard limit of the driver on the container's own control group (drivers from 615 on). A breach is
//! CUDA's out-of-memory error, whatever the program is linked to.
//!
//! The group is made when the container starts and its id is known a moment later, so the limit follows the start; what
//! is below (the limiter) holds from the first instruction. A limit ends with its group. One whose container is over but
//! whose group is still there is lifted, so that nothing holds for whoever gets the group's name next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kerf::ids::DeviceId;
use kerf::isolation::Isolation;
use kerf_nvml::{MemoryLimits, Nvml, NvmlError, UNLIMITED};
use tokio_util::sync::CancellationToken;

use super::folder::Folders;
use crate::cgroup;
use crate::claim::view::PodView;
use crate::state::State;

/// How soon a limit follows the start of a container that kubelet has reported.
const PERIOD: Duration = Duration::from_millis(500);

/// A limit: on whose group, on which card.
pub type Place = (PathBuf, DeviceId);

/// The driver's limits.
#[derive(Clone, Debug)]
pub struct Driver {
    functions: MemoryLimits,
    root: PathBuf,
    /// Cards that were asked about.
    able: Arc<Mutex<BTreeMap<DeviceId, bool>>>,
}

impl Driver {
    /// With NVIDIA's management library, and control groups below `root`.
    ///
    /// # Errors
    /// [`NvmlError`]: this driver has no such limits.
    pub fn new(library: Option<&Path>, root: PathBuf) -> Result<Self, NvmlError> {
        Ok(Self { functions: Nvml::load(library)?.memory_limits()?, root, able: Arc::default() })
    }

    /// Whether a card can be limited.
    pub fn limits(&self, device: &DeviceId) -> bool {
        let mut able = self.able.lock().unwrap_or_else(PoisonError::into_inner);
        *able.entry(device.clone()).or_insert_with(|| match self.functions.get(device.as_str(), &self.root) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(gpu = %device, %error, "the driver does not limit control groups on this card");
                false
            }
        })
    }

    /// Keeps limits on every container that was given this rung, until the token is cancelled. They stay then.
    pub async fn follow(self, state: State, folders: Folders, token: CancellationToken) {
        let mut held = BTreeMap::new();
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            let (pods, driver, known) = (state.claims(|claims| claims.view()), self.clone(), folders.clone());
            let before = std::mem::take(&mut held);
            let kept =
                tokio::task::spawn_blocking(move || driver.keep(before, &wanted(&pods, &known, &driver.root)));
            held = kept.await.unwrap_or_default();
        }
    }

    /// Sets what is wanted and not held, lifts what is held and not wanted. What fails is tried again.
    pub fn keep(&self, mut held: BTreeMap<Place, u64>, wanted: &BTreeMap<Place, u64>) -> BTreeMap<Place, u64> {
        for (place, bytes) in
            wanted.iter().filter(|(place, bytes)| held.get(*place) != Some(bytes)).collect::<Vec<_>>()
        {
            let (group, device) = place;
            match self.functions.set(device.as_str(), group, *bytes) {
                Ok(()) => {
                    tracing::info!(group = %group.display(), gpu = %device, bytes, "memory limit set in the driver");
                    held.insert(place.clone(), *bytes);
                }
                Err(error) => {
                    tracing::warn!(group = %group.display(), gpu = %device, %error, "no limit in the driver")
                }
            }
        }
        held.retain(|place, _| {
            let (group, device) = place;
            let over = !wanted.contains_key(place);
            // a group that is gone has taken its limit along
            if over && group.is_dir() {
                return self.functions.set(device.as_str(), group, UNLIMITED).is_err();
            }
            !over
        });
        held
    }
}

/// The limits that containers of this rung need: those whose group is there.
pub fn wanted(pods: &[PodView], folders: &Folders, root: &Path) -> BTreeMap<Place, u64> {
    let mut wanted = BTreeMap::new();
    for view in pods {
        let names: BTreeMap<_, _> = view.pod.runtime_ids.iter().map(|(id, name)| (name, id)).collect();
        for container in view.containers.iter().filter(|container| container.grant.is_share()) {
            let level = folders.of(&container.core).map(|folder| folder.level);
            let id = names.get(&container.grant.container).filter(|_| level == Some(Isolation::Driver));
            let Some(group) = id.and_then(|id| cgroup::group(root, view.pod.uid.as_str(), id)) else { continue };
            for slice in &container.grant.slices {
                wanted.insert((group.clone(), slice.device.clone()), slice.share.memory.bytes());
            }
        }
    }
    wanted
}
