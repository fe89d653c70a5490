//! Isolation `driver`: a hard limit of the driver on the container's own control group (drivers from 615 on). A
//! breach is CUDA's out-of-memory error, whatever the program is linked to.
//!
//! The group is created when the container starts and its id is known a moment later, so the limit follows the
//! start; until then the limiter enforces the share from the first instruction. A limit ends with its group. Where
//! the container is over but its group remains, the limit is lifted, so that the next user of the group's name is
//! not limited.
//!
//! A driver that reports limits may still not let this process set them. Where it does not, the limiter or nothing
//! enforces the container's share, its record and an event say so, and the GPU no longer has this isolation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kerf::ids::{DeviceId, PodRef};
use kerf::isolation::Isolation;
use kerf_nvml::{MemoryLimits, Nvml, NvmlError, UNLIMITED};

use parking_lot::Mutex;

use crate::allocation::Key;
use crate::allocation::view::PodView;
use crate::base::cgroup;
use crate::isolation::folder::{Folder, Folders};

/// After so many refusals in a row the driver is not asked again: a group may just be ending, or not be set up yet.
const REFUSALS: u32 = 4;

/// The control group that is limited, and on which GPU.
pub type GroupLimit = (PathBuf, DeviceId);

/// The limit of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub bytes: u64,
    pub key: Key,
    pub folder: Folder,
    pub pod: PodRef,
}

#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The limits that are set, in bytes.
    set: BTreeMap<GroupLimit, u64>,
    /// The limits that were refused, and how often in a row.
    refused: BTreeMap<GroupLimit, u32>,
}

#[derive(Clone, Debug)]
pub struct DriverLimits {
    functions: MemoryLimits,
    /// The directory of the control groups.
    pub root: PathBuf,
    /// Whether each GPU can be limited, for those that were asked about.
    able: Arc<Mutex<BTreeMap<DeviceId, bool>>>,
}

impl DriverLimits {
    /// With NVIDIA's management library, and control groups below `root`.
    ///
    /// # Errors
    /// [`NvmlError`]: this driver has no such limits.
    pub fn new(library: Option<&Path>, root: PathBuf) -> Result<Self, NvmlError> {
        Ok(Self { functions: Nvml::load(library)?.memory_limits()?, root, able: Arc::default() })
    }

    /// Whether a GPU can be limited.
    pub fn limits(&self, device: &DeviceId) -> bool {
        let mut able = self.able.lock();
        *able.entry(device.clone()).or_insert_with(|| match self.functions.get(device.as_str(), &self.root) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(gpu = %device, %error, "the driver does not limit control groups on this GPU");
                false
            }
        })
    }

    /// Sets limits that are wanted and not set, and lifts those that are set and not wanted. A failed one is
    /// retried some times; then it is returned, and the GPU is not offered with such limits any more.
    pub fn keep(&self, kept: &mut Kept, wanted: &BTreeMap<GroupLimit, Wanted>) -> Vec<Wanted> {
        let mut unmet = Vec::new();
        kept.refused.retain(|place, _| wanted.contains_key(place));
        for (place, want) in wanted {
            let refusals = kept.refused.get(place).copied().unwrap_or_default();
            if kept.set.get(place) == Some(&want.bytes) || refusals >= REFUSALS {
                continue;
            }
            let (group, device) = place;
            match self.functions.set(device.as_str(), group, want.bytes) {
                Ok(()) => {
                    let bytes = want.bytes;
                    tracing::info!(group = %group.display(), gpu = %device, bytes, "memory limit set in the driver");
                    kept.refused.remove(place);
                    kept.set.insert(place.clone(), bytes);
                }
                // the container has just ended
                Err(_) if !group.is_dir() => {}
                Err(error) => {
                    tracing::warn!(group = %group.display(), gpu = %device, %error, "no limit in the driver");
                    kept.refused.insert(place.clone(), refusals + 1);
                    if refusals + 1 == REFUSALS {
                        self.able.lock().insert(device.clone(), false);
                        unmet.push(want.clone());
                    }
                }
            }
        }
        kept.set.retain(|place, _| {
            let (group, device) = place;
            let over = !wanted.contains_key(place);
            // a group that is gone took its limit with it
            if over && group.is_dir() {
                return self.functions.set(device.as_str(), group, UNLIMITED).is_err();
            }
            !over
        });
        unmet
    }
}

/// The next weaker isolation of the container with this directory, which holds it from now on.
pub fn fallen(folders: &Folders, folder: &Folder) -> Isolation {
    let level = if folder.limiter { Isolation::Limiter } else { Isolation::None };
    if let Err(error) = folders.lower(folder, level) {
        tracing::warn!(%error, "a container's GPUs could not be saved for the next start");
    }
    level
}

/// The limits that containers of this isolation need, where their group exists.
pub fn wanted(pods: &[PodView], folders: &Folders, root: &Path) -> BTreeMap<GroupLimit, Wanted> {
    let mut wanted = BTreeMap::new();
    let folders = folders.of(pods.iter().flat_map(PodView::holders));
    for view in pods {
        let names: BTreeMap<_, _> = view.pod.runtime_ids.iter().map(|(id, name)| (name, id)).collect();
        for holder in view.holders() {
            let key = holder.key();
            let Some(folder) = folders.get(&key).filter(|folder| folder.level == Isolation::Driver) else {
                continue;
            };
            let id = names.get(&holder.grant.container);
            let Some(group) = id.and_then(|id| cgroup::group(root, view.pod.uid.as_str(), id)) else { continue };
            for (device, share) in holder.grant.gpus.amounts() {
                let want = Wanted {
                    bytes: share.memory.bytes(),
                    key: key.clone(),
                    folder: folder.clone(),
                    pod: view.pod.reference.clone(),
                };
                wanted.insert((group.clone(), device.id.clone()), want);
            }
        }
    }
    wanted
}
