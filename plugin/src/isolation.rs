//! How a container is held to its share: the strongest rung of the ladder that this node has for the card.
//!
//! | rung | module | what it enforces |
//! | --- | --- | --- |
//! | `mig` | [`crate::vendor::nvidia::mig`] | a hardware partition, listed as a card of its own; for whole ones |
//! | `driver` | [`driver`] | memory, by the driver, on the container's control group |
//! | `mps` | [`mps`] | memory of each process and compute, by NVIDIA's multi-process service |
//! | `limiter` | [`limiter`] | memory and compute, by a library in the container |
//! | `none` | | nothing |
//!
//! The limiter stands below `driver` and `mps` as well, where it is there: the driver paces no compute, and a process
//! that goes around the service has no other limit. What a container got is written beside its limits ([`folder`]), so
//! that a later life of this process knows it.

pub mod driver;
pub mod folder;
pub mod limiter;
pub mod mps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use kerf::ids::PodUid;
use kerf::isolation::Isolation;
use kerf::plan::Grant;
use kerf::units::Milli;
use tokio_util::sync::CancellationToken;

use crate::allocation::Key;
use crate::allocation::view::PodView;
use crate::device::backend::{HostDevice, Vendor};
use crate::device::ids::Ids;
use crate::state::State;

use crate::isolation::driver::Driver;
use crate::isolation::folder::{Folder, Folders};
use crate::isolation::limiter::Limiter;
use crate::isolation::mps::Mps;

/// Which rungs may be used, and what they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Rungs that may be used.
    pub rungs: BTreeSet<Isolation>,
    /// Where the library and containers' limits are, on the host and here.
    pub state_dir: PathBuf,
    /// Where containers' shared state is, on the host and here: ends with the machine.
    pub run_dir: PathBuf,
    /// The limiter's library, as this process sees it.
    pub library: PathBuf,
    /// NVIDIA's `nvidia-cuda-mps-control`; without it there is no `mps`.
    pub mps_control: Option<PathBuf>,
    /// NVIDIA's management library, where not as the loader finds it.
    pub nvml: Option<PathBuf>,
    /// The host's `/sys/fs/cgroup`.
    pub cgroup_root: PathBuf,
}

/// One container that is about to get a share: what every rung is told.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The container that the call is believed to be for.
    pub key: &'a Key,
    /// kubelet's ids of core.
    pub core: &'a Ids,
    /// What it was given.
    pub grant: &'a Grant,
    /// The ceiling for bursts, where the pod asked for one.
    pub limit: Option<Milli>,
}

/// A file or directory of the host that a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// On the host.
    pub host: PathBuf,
    /// In the container.
    pub container: PathBuf,
    /// Whether the container can only read it.
    pub read_only: bool,
}

/// What a rung adds to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provision {
    /// Environment. Never a limit that the container could lift by changing it.
    pub envs: BTreeMap<String, String>,
    /// Mounts.
    pub mounts: Vec<Mount>,
}

impl Provision {
    fn and(mut self, other: Self) -> Self {
        self.envs.extend(other.envs);
        self.mounts.extend(other.mounts);
        self
    }
}

/// What a container cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// A file that enforcement needs cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Limits that the limiter does not know how to keep.
    #[error("limits cannot be written: {0}")]
    Limits(String),
}

pub(crate) fn at(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> IsolationError {
    let path = path.to_owned();
    move |source| IsolationError::Io { path, source }
}

/// The rungs of this node.
#[derive(Clone, Debug)]
pub struct Ladder {
    rungs: Arc<BTreeSet<Isolation>>,
    folders: Folders,
    limiter: Option<Limiter>,
    mps: Option<Mps>,
    driver: Option<Driver>,
}

impl Ladder {
    /// Finds out what is there, and says in the log why not more.
    pub fn new(options: Options) -> Self {
        let Options { rungs, state_dir, run_dir, library, mps_control, nvml, cgroup_root } = options;
        let allows = |rung| rungs.contains(&rung);
        let told = |rung: Isolation, reason: String| tracing::info!(%rung, reason, "kind of isolation not used");
        let limiter = allows(Isolation::Limiter).then(|| Limiter::install(&library, &state_dir));
        let limiter = limiter.and_then(|found| found.map_err(|e| told(Isolation::Limiter, e.to_string())).ok());
        let mps = mps_control.filter(|_| allows(Isolation::Mps)).map(|program| Mps::new(program, &run_dir));
        let driver = allows(Isolation::Driver).then(|| Driver::new(nvml.as_deref(), cgroup_root));
        let driver = driver.and_then(|found| found.map_err(|e| told(Isolation::Driver, e.to_string())).ok());
        let folders = Folders::open(&state_dir, &run_dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "limits of running containers cannot be read");
            Folders::empty(&state_dir, &run_dir)
        });
        Self { rungs: Arc::new(rungs), folders, limiter, mps, driver }
    }

    /// A ladder without rungs.
    pub fn none() -> Self {
        let nowhere = std::path::Path::new("");
        let folders = Folders::empty(nowhere, nowhere);
        Self { rungs: Arc::default(), folders, limiter: None, mps: None, driver: None }
    }

    /// Folders of the containers that were given limits.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// The multi-process service, where it may be used.
    pub fn mps(&self) -> Option<&Mps> {
        self.mps.as_ref()
    }

    /// The driver's limits, where it has them.
    pub fn driver(&self) -> Option<&Driver> {
        self.driver.as_ref()
    }

    /// How shares of a card are enforced now.
    pub fn of_shares(&self, host: &HostDevice) -> Isolation {
        self.of_share(host, None)
    }

    /// How the share of a container that says it runs as `user` would be enforced.
    fn of_share(&self, host: &HostDevice, user: Option<u32>) -> Isolation {
        // the limiter knows NVIDIA's libraries only; simulated cards are taken for theirs
        let foreign = matches!(host.origin.vendor, Vendor::Amd | Vendor::Intel);
        let rungs = [
            (
                Isolation::Driver,
                !host.partition() && self.driver.as_ref().is_some_and(|d| d.limits(&host.device.id)),
            ),
            (
                Isolation::Mps,
                !host.partition()
                    && self.mps.as_ref().is_some_and(|m| m.serves(&host.device.id) && m.serves_user(user)),
            ),
            (Isolation::Limiter, self.limiter.is_some() && !foreign),
        ];
        let found = rungs.into_iter().find(|(rung, works)| *works && self.rungs.contains(rung));
        found.map_or(Isolation::None, |(rung, _)| rung)
    }

    /// What a container's grant is enforced by, given the cards it is on and the user it says it runs as: the weakest of
    /// them. `None`: it has whole cards that nobody partitions, and shares with nobody.
    pub fn level<'a>(
        &self,
        grant: &Grant,
        hosts: impl IntoIterator<Item = &'a HostDevice>,
        user: Option<u32>,
    ) -> Option<Isolation> {
        let levels = hosts.into_iter().map(|host| match (grant.is_whole(), host.partition()) {
            (false, _) => Some(self.of_share(host, user)),
            (true, true) => Some(Isolation::Mig),
            (true, false) => None,
        });
        levels.flatten().min().or(grant.is_share().then_some(Isolation::None))
    }

    /// A container with these ids of core is about to start. What did not outlive the machine's start is made anew, and by
    /// now it is known which pod it really is: what holds is what `pods` says. An init container and those after it may
    /// have the same ids, and which of them it is nobody says: each has a directory of its own, so all are made ready.
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
                limiter::refresh(&Demand { key: &key, core, grant: holder.grant, limit }, folder)?;
            }
        }
        // an init container that was served before this process began is known to kubelet alone
        left.values().filter(|folder| folder.limiter).try_for_each(|folder| limiter::restore(folder).map(drop))
    }

    /// A container without a directory is about to start. Where its pod's record says that the limiter holds it, an earlier
    /// life gave it one, and it was lost since.
    fn found_lost(&self, demand: &Demand<'_>, pods: &[PodView]) -> Result<(), IsolationError> {
        let Some(limiter) = self.limiter.as_ref().filter(|_| demand.grant.is_share()) else { return Ok(()) };
        let pod = pods.iter().find(|view| view.pod.uid == demand.key.pod);
        let level = pod.and_then(|view| view.pod.isolated.as_ref()?.get(&demand.key.container).copied());
        if level == Some(Isolation::Limiter) {
            let folder = self.folder(demand, Isolation::Limiter)?;
            tracing::warn!(path = %folder.path.display(), "limits of a container were lost; they are written anew");
            limiter.provide(demand, &folder)?;
        }
        Ok(())
    }

    /// These ids of core were just given to a container of `pod`: directories of others that have some of them are over,
    /// but for those that `kept` says are somebody's still.
    pub fn given(&self, core: &Ids, kept: impl Fn(&Folder) -> bool) {
        let over = self.folders.all().into_iter().filter(|folder| folder.core.intersects(core) && !kept(folder));
        over.for_each(|folder| self.folders.remove(&folder));
    }

    /// The directory of a container on cards of `level`.
    ///
    /// # Errors
    /// [`IsolationError`]
    pub fn folder(&self, demand: &Demand<'_>, level: Isolation) -> Result<Folder, IsolationError> {
        self.folders.create(demand, level, level > Isolation::None && self.limiter.is_some())
    }

    /// Prepares everything that enforces the share of a container on cards of `level`.
    ///
    /// # Errors
    /// [`IsolationError`]; the container must not start then.
    pub fn provide(&self, demand: &Demand<'_>, level: Isolation) -> Result<Provision, IsolationError> {
        if demand.grant.is_whole() {
            return Ok(Provision::default());
        }
        let mut provision = Provision::default();
        if level > Isolation::None {
            let folder = self.folder(demand, level)?;
            if let Some(limiter) = &self.limiter {
                provision = provision.and(limiter.provide(demand, &folder)?);
            }
        }
        if level == Isolation::Mps
            && let Some(mps) = &self.mps
        {
            provision = provision.and(mps.provide(demand));
        }
        // the driver's limit waits for the control group, which is made when the container starts
        Ok(provision)
    }
}

/// How often directories of containers that are over are looked for.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(30);

/// Removes the directories of containers that are over, until the token is cancelled.
pub async fn sweep(folders: Folders, state: State, token: CancellationToken) {
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
        // before kubelet and the API server were heard, everything may be needed
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
