//! A directory for each container that was given limits: `<state>/containers/<pod uid>_<container>_<ids>`, and one
//! of the same name below the runtime directory for files that need not outlive a restart of the machine.
//!
//! kubelet mounts what Allocate answered for as long as the pod lives, also after a restart of the machine, and
//! never asks again; and the pod that an answer was for may turn out to be another one. So a directory is named for
//! the container that was assumed, its name never changes, and it is found by pod, container and kubelet's ids of
//! core together ([`Folders::of`]). The ids alone do not identify it: an app container has those of the pod's init
//! container where both ask for the same amount, and the next pod of that size on the GPU gets those of the last
//! one. Only where the assumed container no longer holds the ids does their present holder have the directory.
//!
//! A directory ends when its ids are given to another pod and kubelet lists no container with them, or when neither
//! its pod nor a holder is known.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::Hasher;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fnv::FnvHasher;
use kerf::isolation::Isolation;
use kerf::plan::ContainerGrant;
use kerf_limiter_contract::{path as contract, state};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::allocation::Key;
use crate::allocation::view::Holder;
use crate::base::files;
use crate::device::ids::Ids;
use crate::isolation::demand::{Demand, IsolationError, at};

/// Younger directories are kept: their pod may not be known yet.
const GRACE: Duration = Duration::from_secs(60);
const GRANT: &str = "grant.json";
/// In a container's directory: the part that the container sees as [`contract::HOST_DIRECTORY`].
const SEEN: &str = "etc";
/// Longer than any file that is written.
const MAX_BYTES: u64 = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// The same on the host and in this process.
    pub path: PathBuf,
    /// Its counterpart below the runtime directory.
    pub run: PathBuf,
    pub level: Isolation,
    /// Whether its container was given the limiter, even if the files are lost since.
    pub limiter: bool,
    /// The layout of the state file that the container's library knows.
    pub layout: u32,
    /// The container that was assumed.
    pub key: Key,
    /// The container's place in its pod, which is the same in every pod of one shape.
    place: String,
    pub core: Ids,
    /// Later directories have greater numbers, also after a restart of the plugin.
    serial: u64,
}

impl Folder {
    /// On the host: the directory that the container sees as [`contract::HOST_DIRECTORY`].
    pub fn seen(&self) -> PathBuf {
        self.path.join(SEEN)
    }

    /// On the host: the file that the container sees as `file`, one in [`contract::HOST_DIRECTORY`].
    pub fn shown(&self, file: &str) -> PathBuf {
        seen_in(&self.path, file)
    }
}

fn seen_in(folder: &Path, file: &str) -> PathBuf {
    let seen = folder.join(SEEN);
    Path::new(file).file_name().map_or_else(|| seen.clone(), |name| seen.join(name))
}

/// Written into the directory for the plugin's next run. Containers do not see it.
#[derive(Serialize, Deserialize)]
struct Wire {
    version: u32,
    pod: String,
    container: String,
    isolation: String,
    core: Vec<String>,
    #[serde(default)]
    place: String,
    #[serde(default)]
    serial: u64,
    /// Not written by earlier versions.
    #[serde(default)]
    limiter: Option<bool>,
    /// As above.
    #[serde(default)]
    layout: Option<u32>,
}

/// The directories of all containers. Clones share them.
#[derive(Clone, Debug)]
pub struct Folders {
    root: PathBuf,
    run: PathBuf,
    known: Arc<Mutex<BTreeMap<PathBuf, Folder>>>,
}

impl Folders {
    /// Reads the directories below `state` that a previous run of the plugin made.
    ///
    /// # Errors
    /// Where the directory exists and cannot be read.
    pub fn open(state: &Path, run: &Path) -> Result<Self, IsolationError> {
        let folders = Self::empty(state, run);
        let entries = match fs::read_dir(&folders.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(folders),
            Err(error) => return Err(at(&folders.root)(error)),
        };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            match folders.read(&path) {
                Ok(folder) => drop(folders.known.lock().insert(path, folder)),
                // a directory that was incomplete when the plugin ended; its call was never answered
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "limits of a container not understood")
                }
            }
        }
        Ok(folders)
    }

    /// Below `state` and `run`, without reading what is there.
    pub fn empty(state: &Path, run: &Path) -> Self {
        Self { root: state.join("containers"), run: run.join("containers"), known: Arc::default() }
    }

    /// Makes the directory of a container, or finds it where the call was answered before. `limiter`: the container
    /// is given the limiter.
    ///
    /// # Errors
    /// [`IsolationError`]
    pub fn create(&self, demand: &Demand<'_>, level: Isolation, limiter: bool) -> Result<Folder, IsolationError> {
        let (pod, container) = (demand.key.pod.as_str(), demand.key.container.as_str());
        let plain =
            |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>();
        // the remaining parts of two names may be equal
        let bytes = [container].into_iter().chain(demand.core.iter()).flat_map(|text| text.bytes().chain([0]));
        let name = format!("{}_{}_{:016x}", plain(pod), plain(container), hash(bytes));
        let path = self.root.join(name);
        let run = self.run_of(&path);
        make(&path)?;
        if let Some(root) = run.parent() {
            private(root)?;
        }
        let serial = {
            let known = self.known.lock();
            let last = known.values().map(|folder| folder.serial).max();
            let next = || last.map_or(0, |last| last.saturating_add(1));
            known.get(&path).map_or_else(next, |folder| folder.serial)
        };
        let folder = Folder {
            path,
            run,
            level,
            limiter,
            layout: state::VERSION,
            key: demand.key.clone(),
            place: place(demand.grant),
            core: demand.core.clone(),
            serial,
        };
        self.record(folder.clone())?;
        Ok(folder)
    }

    /// `level` enforces the share of `folder`'s container from now on.
    ///
    /// # Errors
    /// [`IsolationError`]: the plugin will take the old level for true after a restart. Until then it knows the new
    /// one.
    pub fn lower(&self, folder: &Folder, level: Isolation) -> Result<(), IsolationError> {
        let folder = Folder { level, ..folder.clone() };
        self.known.lock().insert(folder.path.clone(), folder.clone());
        self.record(folder)
    }

    /// Creates a known directory again where it was lost.
    ///
    /// # Errors
    /// [`IsolationError`]
    pub fn keep(&self, folder: &Folder) -> Result<(), IsolationError> {
        if folder.path.join(GRANT).is_file() {
            return Ok(());
        }
        tracing::warn!(path = %folder.path.display(), "limits of a container were lost; written again");
        make(&folder.path)?;
        self.record(folder.clone())
    }

    fn record(&self, folder: Folder) -> Result<(), IsolationError> {
        let wire = Wire {
            version: 1,
            pod: folder.key.pod.to_string(),
            container: folder.key.container.to_string(),
            isolation: folder.level.to_string(),
            core: folder.core.iter().map(str::to_owned).collect(),
            place: folder.place.clone(),
            serial: folder.serial,
            limiter: Some(folder.limiter),
            layout: Some(folder.layout),
        };
        let file = folder.path.join(GRANT);
        files::replace(&file, &serde_json::to_vec(&wire).unwrap_or_default(), 0o644).map_err(at(&file))?;
        self.known.lock().insert(folder.path.clone(), folder);
        Ok(())
    }

    /// The directory of each of these containers that has one. `holders` are all containers that hold these ids, or
    /// all that hold any: a directory that was made for one of them is not taken for another's.
    pub fn of<'a>(&self, holders: impl IntoIterator<Item = Holder<'a>>) -> BTreeMap<Key, Folder> {
        // the newest last
        let known = self.all();
        let mut found = BTreeMap::new();
        let mut taken = BTreeSet::new();
        let mut others = Vec::new();
        for holder in holders.into_iter().filter(|holder| holder.grant.gpus.is_share()) {
            let own = |folder: &&Folder| {
                let key = &folder.key;
                folder.core == *holder.core && key.pod == *holder.pod && key.container == holder.grant.container
            };
            match known.iter().rfind(own) {
                Some(folder) => {
                    taken.insert(&folder.path);
                    found.insert(holder.key(), folder.clone());
                }
                None => others.push(holder),
            }
        }
        for holder in others {
            let place = place(holder.grant);
            let left = known.iter().filter(|f| f.core == *holder.core && !taken.contains(&f.path));
            if let Some(folder) = left.max_by_key(|folder| (folder.place == place, folder.serial)) {
                taken.insert(&folder.path);
                found.insert(holder.key(), folder.clone());
            }
        }
        found
    }

    /// In the order in which they were made.
    pub fn all(&self) -> Vec<Folder> {
        let mut all: Vec<Folder> = self.known.lock().values().cloned().collect();
        all.sort_by_key(|folder| folder.serial);
        all
    }

    pub fn remove(&self, folder: &Folder) {
        match fs::remove_dir_all(&folder.path) {
            Ok(()) => {
                let _ = fs::remove_dir_all(&folder.run);
                tracing::debug!(path = %folder.path.display(), "limits removed");
            }
            Err(error) => tracing::warn!(path = %folder.path.display(), %error, "limits not removed"),
        }
        self.known.lock().remove(&folder.path);
    }

    /// Removes those for which `needed` is false, unless they are young.
    pub fn sweep(&self, needed: impl Fn(&Folder) -> bool) {
        for folder in self.all().iter().filter(|folder| !needed(folder) && aged(&folder.path)) {
            self.remove(folder);
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
        let text = files::read_some(&file, MAX_BYTES).map_err(at(&file))?;
        let wire: Wire = serde_json::from_str(&text).map_err(|error| IsolationError::Limits(error.to_string()))?;
        let level = wire.isolation.parse().map_err(|_| IsolationError::Limits(wire.isolation))?;
        Ok(Folder {
            run: self.run_of(path),
            path: path.to_owned(),
            level,
            limiter: wire.limiter.unwrap_or_else(|| seen_in(path, contract::LIMITS).is_file()),
            layout: wire.layout.unwrap_or(state::FIRST_VERSION),
            key: Key { pod: wire.pod.as_str().into(), container: wire.container.as_str().into() },
            place: wire.place,
            core: Ids::new(wire.core),
            serial: wire.serial,
        })
    }
}

/// A container's place in its pod: pods of one shape change places as a whole, and their containers' names differ.
fn place(grant: &ContainerGrant) -> String {
    format!("{} {}", grant.kind.as_str(), grant.position)
}

/// Makes the directory of one container.
///
/// # Errors
/// [`IsolationError`]
pub(super) fn make(path: &Path) -> Result<(), IsolationError> {
    path.parent().map_or(Ok(()), private)?;
    fs::create_dir_all(path).map_err(at(path))
}

/// Makes the directory of all containers, closed to other users of the host, since containers can write files in
/// it.
fn private(root: &Path) -> Result<(), IsolationError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(at(root))
}

/// The same in every build (FNV-1a). kubelet and kerf alone choose what is hashed, so collisions cannot be
/// provoked.
pub(super) fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let mut hasher = FnvHasher::default();
    bytes.into_iter().for_each(|byte| hasher.write_u8(byte));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kerf::ids::PodUid;
    use kerf::plan::{DeviceRef, Grant};
    use kerf::request::ContainerKind;
    use kerf::units::Share;

    struct Host {
        state: tempfile::TempDir,
        run: tempfile::TempDir,
    }

    fn grant(container: &str, kind: ContainerKind, position: u32) -> ContainerGrant {
        let device = DeviceRef { id: "GPU-0".into(), index: 0 };
        let gpus = Grant::Share { device, share: Share::new(300, 256) };
        ContainerGrant { container: container.into(), kind, position, gpus }
    }

    fn ids(units: std::ops::Range<u32>) -> Ids {
        Ids::new(units.map(|k| format!("GPU-0::{k}")))
    }

    impl Host {
        fn new() -> Self {
            Self { state: tempfile::tempdir().unwrap(), run: tempfile::tempdir().unwrap() }
        }

        fn open(&self) -> Folders {
            Folders::open(self.state.path(), self.run.path()).unwrap()
        }
    }

    fn made(folders: &Folders, pod: &str, grant: &ContainerGrant, core: &Ids) -> Folder {
        let key = Key { pod: pod.into(), container: grant.container.clone() };
        folders.create(&Demand { key: &key, core, grant, limit: None }, Isolation::Limiter, false).unwrap()
    }

    /// The paths of these containers' directories.
    fn found(folders: &Folders, holders: &[(&str, &ContainerGrant)], core: &Ids) -> Vec<Option<PathBuf>> {
        let pods: Vec<PodUid> = holders.iter().map(|(pod, _)| (*pod).into()).collect();
        let holders: Vec<Holder<'_>> =
            pods.iter().zip(holders).map(|(pod, (_, grant))| Holder { pod, grant, core }).collect();
        let of = folders.of(holders.iter().copied());
        holders.iter().map(|holder| of.get(&holder.key()).map(|folder| folder.path.clone())).collect()
    }

    #[test]
    fn a_directory_is_found_in_a_later_life_and_ends_when_nobody_needs_it() {
        let host = Host::new();
        let (main, core) = (grant("main", ContainerKind::App, 0), ids(0..2));
        let own = made(&host.open(), "u", &main, &core);
        // an incomplete directory, and one of another program
        fs::create_dir(host.state.path().join("containers/half")).unwrap();
        let folders = host.open();
        assert_eq!(folders.all(), vec![own.clone()]);
        assert_eq!(found(&folders, &[("u", &main)], &core), [Some(own.path.clone())]);
        assert_eq!(made(&folders, "u", &main, &core), own, "answered again");
        folders.sweep(|_| false);
        assert!(own.path.is_dir(), "too young");
        let old = std::time::SystemTime::now() - GRACE;
        fs::File::open(own.path.join(GRANT)).unwrap().set_modified(old).unwrap();
        folders.sweep(|folder| folder.core == core);
        assert!(own.path.is_dir(), "needed");
        folders.sweep(|_| false);
        assert!(!own.path.exists() && folders.all().is_empty());
    }

    /// Opening a pipe that nobody writes would never end.
    #[test]
    fn what_is_no_file_is_passed_over() {
        let host = Host::new();
        let own = made(&host.open(), "u", &grant("main", ContainerKind::App, 0), &ids(0..2));
        let other = host.state.path().join("containers/x");
        fs::create_dir(&other).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(other.join(GRANT)).status().unwrap().success());
        assert_eq!(host.open().all(), [own]);
    }

    /// Whatever the order of names and of uids, in this run of the plugin and in a later one.
    #[test]
    fn containers_with_equal_ids_have_each_their_own() {
        let core = ids(0..30);
        for names in [["main", "main-init"], ["main-init", "main"], ["main", "main_x"], ["main_x", "mainx"]] {
            for pods in [["a", "a"], ["a", "b"], ["b", "a"]] {
                let host = Host::new();
                let folders = host.open();
                let first = grant(names[0], ContainerKind::Init, 0);
                let second = grant(names[1], ContainerKind::App, 0);
                let paths = [(pods[0], &first), (pods[1], &second)]
                    .map(|(pod, grant)| Some(made(&folders, pod, grant, &core).path));
                assert_ne!(paths[0], paths[1]);
                for folders in [folders, host.open()] {
                    let both = [(pods[0], &first), (pods[1], &second)];
                    assert_eq!(found(&folders, &both, &core), paths, "{names:?} {pods:?}");
                    assert_eq!(found(&folders, &both[1..], &core), paths[1..], "{names:?} {pods:?}");
                }
            }
        }
    }

    /// Pods of one shape have changed places after they were served: each container of the one holds what was made
    /// for its counterpart in the other, whatever their names.
    #[test]
    fn who_was_served_in_anothers_place_has_what_was_made_for_that_one() {
        let host = Host::new();
        let core = ids(0..30);
        let folders = host.open();
        // a directory that an earlier pod left is not newer
        made(&folders, "z", &grant("work", ContainerKind::App, 0), &core);
        let init = made(&folders, "a", &grant("prepare", ContainerKind::Init, 0), &core);
        let app = made(&folders, "a", &grant("main", ContainerKind::App, 0), &core);
        let (first, second) = (grant("load", ContainerKind::Init, 0), grant("work", ContainerKind::App, 0));
        for folders in [folders, host.open()] {
            let expected = [Some(app.path.clone()), Some(init.path.clone())];
            assert_eq!(found(&folders, &[("b", &second), ("b", &first)], &core), expected);
        }
    }

    #[test]
    fn what_was_made_for_another_that_holds_it_is_not_taken() {
        let host = Host::new();
        let (core, folders) = (ids(0..30), host.open());
        let main = grant("main", ContainerKind::App, 0);
        let own = made(&folders, "a", &main, &core);
        assert_eq!(found(&folders, &[("a", &main), ("b", &main)], &core), [Some(own.path.clone()), None]);
        assert_eq!(found(&folders, &[("b", &main), ("a", &main)], &core), [None, Some(own.path)]);
        assert_eq!(found(&folders, &[("a", &main)], &ids(0..29)), [None], "other ids");
    }

    /// Directories and libraries of earlier versions are found by their names.
    #[test]
    fn hashes_are_those_of_earlier_versions() {
        let known = [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)];
        for (text, expected) in known {
            assert_eq!(hash(text.bytes()), expected, "{text}");
        }
    }
}
