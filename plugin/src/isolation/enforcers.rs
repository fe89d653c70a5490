//! The kinds of isolation that this node has, the strongest first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kerf::isolation::Isolation;
use kerf::plan::ContainerGrant;
use kerf::units::Mib;

use crate::allocation::view::PodView;
use crate::device::backend::HostDevice;
use crate::device::ids::Ids;
use crate::isolation::demand::{Demand, IsolationError};
use crate::isolation::driver::DriverLimits;
use crate::isolation::folder::{Folder, Folders};
use crate::isolation::limiter::{self, Limiter};
use crate::isolation::mps::Mps;
use crate::offer::hand_over::ContainerEdits;
use crate::vendor;

/// Which kinds of isolation may be used, and what they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Those that may be used.
    pub kinds: BTreeSet<Isolation>,
    /// Holds the library and containers' limits; the same path on the host.
    pub state_dir: PathBuf,
    /// Holds containers' shared state; the same path on the host. Its content is lost when the machine restarts.
    pub run_dir: PathBuf,
    /// The limiter's library, as this process sees it.
    pub library: PathBuf,
    /// NVIDIA's `nvidia-cuda-mps-control`; without it there is no `mps`.
    pub mps_control: Option<PathBuf>,
    /// NVIDIA's management library; `None`: as the loader finds it.
    pub nvml: Option<PathBuf>,
    pub cgroup_root: PathBuf,
    /// Counted for each context in a container until what the driver takes for it is measured; 0: never counted.
    pub context: Mib,
}

/// The kinds of isolation that work on this node.
#[derive(Clone, Debug)]
pub struct Enforcers {
    kinds: Arc<BTreeSet<Isolation>>,
    /// Directories of the containers that were given limits.
    pub folders: Folders,
    limiter: Option<Limiter>,
    /// The multi-process service, where it may be used.
    pub mps: Option<Mps>,
    /// The driver's limits, where it has them.
    pub driver: Option<DriverLimits>,
    context: Mib,
}

impl Enforcers {
    /// Finds the kinds that work, and logs why others do not.
    pub fn new(options: Options) -> Self {
        let Options { kinds, state_dir, run_dir, library, mps_control, nvml, cgroup_root, context } = options;
        let allows = |kind| kinds.contains(&kind);
        let told = |kind: Isolation, reason: String| tracing::info!(%kind, reason, "kind of isolation not used");
        let limiter = allows(Isolation::Limiter).then(|| Limiter::install(&library, &state_dir));
        let limiter = limiter.and_then(|found| match found {
            Ok(limiter) => Some(limiter),
            Err(error @ IsolationError::Unusable { .. }) => {
                tracing::warn!(%error, "the limiter cannot be used: no share is enforced by it");
                None
            }
            // a disk that is full or read-only by now: a container without its limits does not start
            Err(error) if library.exists() => {
                tracing::warn!(%error, "the limiter cannot be installed: containers with shares fail until it can");
                Some(Limiter::later(&library, &state_dir))
            }
            Err(error) => {
                told(Isolation::Limiter, error.to_string());
                None
            }
        });
        let mps = mps_control.filter(|_| allows(Isolation::Mps)).map(|program| Mps::new(program, &run_dir));
        let driver = allows(Isolation::Driver).then(|| DriverLimits::new(nvml.as_deref(), cgroup_root));
        let driver = driver.and_then(|found| found.map_err(|e| told(Isolation::Driver, e.to_string())).ok());
        let folders = Folders::open(&state_dir, &run_dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "limits of running containers cannot be read");
            Folders::empty(&state_dir, &run_dir)
        });
        Self { kinds: Arc::new(kinds), folders, limiter, mps, driver, context }
    }

    pub fn none() -> Self {
        let nowhere = Path::new("");
        let folders = Folders::empty(nowhere, nowhere);
        Self { kinds: Arc::default(), folders, limiter: None, mps: None, driver: None, context: Mib(0) }
    }

    pub fn of_shares(&self, host: &HostDevice) -> Isolation {
        self.of_share(host, None)
    }

    /// How the share of a container that says it runs as `user` would be enforced.
    fn of_share(&self, host: &HostDevice, user: Option<u32>) -> Isolation {
        let known = vendor::support(host.origin.vendor).enforced_by;
        let (id, divided) = (&host.device.id, !host.partition());
        let works = |kind: &Isolation| match kind {
            Isolation::Driver => divided && self.driver.as_ref().is_some_and(|driver| driver.limits(id)),
            Isolation::Mps => {
                divided && self.mps.as_ref().is_some_and(|mps| mps.serves(id) && mps.serves_user(user))
            }
            Isolation::Limiter => self.limiter.is_some(),
            Isolation::None | Isolation::Mig => false,
        };
        let mut kinds = [Isolation::Driver, Isolation::Mps, Isolation::Limiter].into_iter();
        kinds.find(|kind| works(kind) && self.kinds.contains(kind) && known.contains(kind)).unwrap_or_default()
    }

    /// The isolation of a container's grant on these GPUs, for the user it says it runs as: the weakest of its
    /// GPUs. `None`: it has whole GPUs, which are not partitioned or shared.
    pub fn level<'a>(
        &self,
        grant: &ContainerGrant,
        hosts: impl IntoIterator<Item = &'a HostDevice>,
        user: Option<u32>,
    ) -> Option<Isolation> {
        let levels = hosts.into_iter().map(|host| match (grant.gpus.is_whole(), host.partition()) {
            (false, _) => Some(self.of_share(host, user)),
            (true, true) => Some(Isolation::Mig),
            (true, false) => None,
        });
        levels.flatten().min().or(grant.gpus.is_share().then_some(Isolation::None))
    }

    /// A container with these ids of core is about to start. Its state is laid anew, and files that a restart of the
    /// machine removed are created again. By now it is known which pod the container really belongs to, so the limits are those in
    /// `pods`. An init container and those after it may have the same ids, and nothing tells which of them starts:
    /// each has a directory of its own, so all are prepared. Containers with the same ids never run at the same time:
    /// kubelet lets a container have those of an init container that has ended, and gives those of a sidecar to none.
    ///
    /// # Errors
    /// [`IsolationError`]; the container must not start then.
    pub fn starts(&self, core: &Ids, pods: &[PodView]) -> Result<(), IsolationError> {
        let mut left: BTreeMap<PathBuf, Folder> =
            self.folders.all().into_iter().filter(|f| f.core == *core).map(|f| (f.path.clone(), f)).collect();
        if let Some(limiter) = self.limiter.as_ref().filter(|_| left.values().any(|folder| folder.limiter)) {
            limiter.reinstall()?;
        }
        let holders = || pods.iter().flat_map(|view| view.holders().map(|holder| (holder, view.limit)));
        let holders = || holders().filter(|(holder, _)| holder.core == core);
        let folders = self.folders.of(holders().map(|(holder, _)| holder));
        for (holder, limit) in holders() {
            let key = holder.key();
            let Some(folder) = folders.get(&key) else {
                self.found_lost(&Demand { key: &key, core, grant: holder.grant, limit }, pods)?;
                continue;
            };
            left.remove(&folder.path);
            if folder.limiter {
                self.folders.keep(folder)?;
                limiter::refresh(&Demand { key: &key, core, grant: holder.grant, limit }, folder, self.context)?;
            }
        }
        // an init container that was served before this process began is known to kubelet alone
        left.values().filter(|folder| folder.limiter).try_for_each(|folder| limiter::fresh(folder).map(drop))
    }

    /// A container without a directory is about to start. Where its pod's record names the limiter, a previous run
    /// of the plugin made a directory for it, which was lost since.
    fn found_lost(&self, demand: &Demand<'_>, pods: &[PodView]) -> Result<(), IsolationError> {
        let Some(limiter) = self.limiter.as_ref().filter(|_| demand.grant.gpus.is_share()) else { return Ok(()) };
        let pod = pods.iter().find(|view| view.pod.uid == demand.key.pod);
        let level = pod.and_then(|view| view.pod.isolated.as_ref()?.get(&demand.key.container).copied());
        if level == Some(Isolation::Limiter) {
            let folder = self.folder(demand, Isolation::Limiter)?;
            tracing::warn!(path = %folder.path.display(), "limits of a container were lost; written again");
            limiter.provide(demand, &folder, self.context)?;
        }
        Ok(())
    }

    /// These ids of core were just given to a container of `pod`: directories of other containers with some of
    /// these ids are over where `ends` says so.
    pub fn given(&self, core: &Ids, ends: impl Fn(&Folder) -> bool) {
        let over = self.folders.all().into_iter().filter(|folder| folder.core.intersects(core) && ends(folder));
        over.for_each(|folder| self.folders.remove(&folder));
    }

    /// Finds or makes the directory of a container on GPUs of `level`.
    ///
    /// # Errors
    /// [`IsolationError`]
    pub fn folder(&self, demand: &Demand<'_>, level: Isolation) -> Result<Folder, IsolationError> {
        self.folders.create(demand, level, level > Isolation::None && self.limiter.is_some())
    }

    /// Prepares everything that enforces the share of a container on GPUs of `level`.
    ///
    /// # Errors
    /// [`IsolationError`]; the container must not start then.
    pub fn provide(&self, demand: &Demand<'_>, level: Isolation) -> Result<ContainerEdits, IsolationError> {
        if demand.grant.gpus.is_whole() {
            return Ok(ContainerEdits::default());
        }
        let mut provision = ContainerEdits::default();
        if level > Isolation::None {
            let folder = self.folder(demand, level)?;
            if let Some(limiter) = &self.limiter {
                provision = provision.and(limiter.provide(demand, &folder, self.context)?);
            }
        }
        if level == Isolation::Mps
            && let Some(mps) = &self.mps
        {
            provision = provision.and(mps.provide(demand));
        }
        // the driver's limit waits for the control group, which is created when the container starts
        Ok(provision)
    }
}
