//! A directory for each container that was given limits: `<state>/containers/<pod uid>_<container>_<ids>`, and one of
//! the same name below the runtime directory for what ends with the machine.
//!
//! kubelet mounts what Allocate answered for as long as the pod lives, also after a restart of the machine, and never
//! asks again; and the pod that an answer was for may turn out to be another one. So a directory is named for the pod
//! that was assumed, its name never changes, and it is found by kubelet's ids of core: whoever holds these has it. It
//! ends when neither the pod nor a holder of the ids is known.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kerf::ids::PodUid;
use kerf::isolation::Isolation;
use serde::{Deserialize, Serialize};

use super::{Demand, IsolationError, at};
use crate::ids::Ids;

/// Younger ones are left alone: their pod may not be known yet.
const GRACE: Duration = Duration::from_secs(60);
const GRANT: &str = "grant.json";
/// Longer than any that is written.
const MAX_BYTES: u64 = 64 << 10;

/// One container's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// On the host and here.
    pub path: PathBuf,
    /// The same below the runtime directory.
    pub run: PathBuf,
    /// What enforces the share.
    pub level: Isolation,
    /// The pod that was assumed.
    pub pod: PodUid,
    /// Its container.
    pub container: String,
    /// kubelet's ids of core.
    pub core: Ids,
}

/// What is written into it for a later life of this process. Containers do not see it.
#[derive(Serialize, Deserialize)]
struct Wire {
    version: u32,
    pod: String,
    container: String,
    isolation: String,
    core: Vec<String>,
}

/// The directories of all containers. Clones share them.
#[derive(Clone, Debug)]
pub struct Folders {
    root: PathBuf,
    run: PathBuf,
    known: Arc<Mutex<BTreeMap<PathBuf, Folder>>>,
}

impl Folders {
    /// Those below `state` that an earlier life made.
    ///
    /// # Errors
    /// Where the directory is there and cannot be read.
    pub fn open(state: &Path, run: &Path) -> Result<Self, IsolationError> {
        let folders = Self::empty(state, run);
        let entries = match fs::read_dir(&folders.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(folders),
            Err(error) => return Err(at(&folders.root)(error)),
        };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            match folders.read(&path) {
                Ok(folder) => drop(folders.lock().insert(path, folder)),
                // one that was being made when this process ended; its call was never answered
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "limits of a container not understood")
                }
            }
        }
        Ok(folders)
    }

    /// Below `state` and `run`, of which nothing is known.
    pub fn empty(state: &Path, run: &Path) -> Self {
        Self { root: state.join("containers"), run: run.join("containers"), known: Arc::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, Folder>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the directory of a container, or finds it where this was answered before.
    ///
    /// # Errors
    /// [`IsolationError`]
    pub fn create(&self, demand: &Demand<'_>, level: Isolation) -> Result<Folder, IsolationError> {
        let (pod, container) = (demand.key.pod.as_str(), demand.key.container.as_str());
        let plain =
            |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>();
        let bytes = demand.core.iter().flat_map(|id| id.bytes().chain([0]));
        let name = format!("{}_{}_{:016x}", plain(pod), plain(container), hash(bytes));
        let path = self.root.join(name);
        for root in [&self.root, &self.run] {
            // other users of the host have no business with files that containers can write
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(root).map_err(at(root))?;
        }
        fs::create_dir_all(&path).map_err(at(&path))?;
        let folder = Folder {
            run: self.run_of(&path),
            path,
            level,
            pod: demand.key.pod.clone(),
            container: container.to_owned(),
            core: demand.core.clone(),
        };
        self.record(folder.clone())?;
        Ok(folder)
    }

    /// The container of `folder` is held by `level` from now on.
    ///
    /// # Errors
    /// [`IsolationError`]: a later life will believe the old level. This one knows the new one.
    pub fn lower(&self, folder: &Folder, level: Isolation) -> Result<(), IsolationError> {
        let folder = Folder { level, ..folder.clone() };
        self.lock().insert(folder.path.clone(), folder.clone());
        self.record(folder)
    }

    fn record(&self, folder: Folder) -> Result<(), IsolationError> {
        let wire = Wire {
            version: 1,
            pod: folder.pod.as_str().to_owned(),
            container: folder.container.clone(),
            isolation: folder.level.to_string(),
            core: folder.core.iter().map(str::to_owned).collect(),
        };
        replace(&folder.path.join(GRANT), &serde_json::to_vec(&wire).unwrap_or_default())?;
        self.lock().insert(folder.path.clone(), folder);
        Ok(())
    }

    /// The directory of who holds these ids of core.
    pub fn of(&self, core: &Ids) -> Option<Folder> {
        self.lock().values().find(|folder| folder.core == *core).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Folder> {
        self.lock().values().cloned().collect()
    }

    /// Removes those for which `needed` says no, unless they are young.
    pub fn sweep(&self, needed: impl Fn(&Folder) -> bool) {
        for folder in self.all().into_iter().filter(|folder| !needed(folder) && aged(&folder.path)) {
            match fs::remove_dir_all(&folder.path) {
                Ok(()) => {
                    let _ = fs::remove_dir_all(&folder.run);
                    tracing::debug!(path = %folder.path.display(), "limits removed");
                }
                Err(error) => tracing::warn!(path = %folder.path.display(), %error, "limits not removed"),
            }
            self.lock().remove(&folder.path);
        }
    }
}

fn aged(path: &Path) -> bool {
    let made = fs::metadata(path.join(GRANT)).and_then(|metadata| metadata.modified()).ok();
    made.and_then(|made| made.elapsed().ok()).is_none_or(|age| age >= GRACE)
}

impl Folders {
    fn run_of(&self, path: &Path) -> PathBuf {
        path.file_name().map_or_else(PathBuf::new, |name| self.run.join(name))
    }

    fn read(&self, path: &Path) -> Result<Folder, IsolationError> {
        let file = path.join(GRANT);
        if fs::metadata(&file).map_err(at(&file))?.len() > MAX_BYTES {
            return Err(IsolationError::Limits("too long".to_owned()));
        }
        let text = fs::read(&file).map_err(at(&file))?;
        let wire: Wire =
            serde_json::from_slice(&text).map_err(|error| IsolationError::Limits(error.to_string()))?;
        let level = wire.isolation.parse().map_err(|_| IsolationError::Limits(wire.isolation))?;
        Ok(Folder {
            run: self.run_of(path),
            path: path.to_owned(),
            level,
            pod: wire.pod.as_str().into(),
            container: wire.container,
            core: Ids::new(wire.core),
        })
    }
}

/// Writes a file as a whole: a reader sees the old content or the new one.
///
/// # Errors
/// [`IsolationError`]
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), IsolationError> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, content).map_err(at(&fresh))?;
    fs::rename(&fresh, path).map_err(at(path))
}

/// FNV-1a: short, and the same in every build. What is hashed is kubelet's and ours, so nobody gains by a collision.
pub(super) fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Key;
    use kerf::plan::{Form, Grant};
    use kerf::request::ContainerKind;

    #[test]
    fn a_directory_is_found_by_ids_in_a_later_life_and_ends_when_nobody_needs_it() {
        let (state, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let key = Key { pod: "u".into(), container: "main".into() };
        let kind = ContainerKind::App;
        let grant = Grant { container: "main".into(), kind, position: 0, form: Form::Share, slices: Vec::new() };
        let core = Ids::new(["GPU-0::1".to_owned(), "GPU-0::0".to_owned()]);
        let demand = Demand { key: &key, core: &core, grant: &grant, limit: None };
        let made = Folders::open(state.path(), run.path()).unwrap().create(&demand, Isolation::Limiter).unwrap();
        // a directory that was being made, and one of somebody's
        fs::create_dir(state.path().join("containers/half")).unwrap();
        let folders = Folders::open(state.path(), run.path()).unwrap();
        assert_eq!(folders.all(), vec![made.clone()]);
        assert_eq!(folders.of(&core), Some(made.clone()));
        assert_eq!(folders.create(&demand, Isolation::Limiter).unwrap(), made, "answered again");
        folders.sweep(|_| false);
        assert!(made.path.is_dir(), "too young");
        let old = std::time::SystemTime::now() - GRACE;
        fs::File::open(made.path.join(GRANT)).unwrap().set_modified(old).unwrap();
        folders.sweep(|folder| folder.core == core);
        assert!(made.path.is_dir(), "needed");
        folders.sweep(|_| false);
        assert!(!made.path.exists() && folders.of(&core).is_none());
    }
}
