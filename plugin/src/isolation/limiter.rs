//! Isolation `limiter`: kerf's library in the container. [`kerf_limiter_contract`], which both share, says which
//! file goes where.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::{fmt, fs};

use kerf::isolation::Isolation;
use kerf::plan::ContainerGrant;
use kerf::units::{Mib, Milli};
use kerf_limiter_contract::limits::{DeviceLimits, Limits};
use kerf_limiter_contract::state::{self, ProcessSnapshot, Snapshot};
use kerf_limiter_contract::{allowance, overhead, path};
use serde::Serialize;

use crate::base::{exposed, files};
use crate::isolation::demand::{Demand, IsolationError, at};
use crate::isolation::folder::{Folder, hash, make};
use crate::isolation::usable;
use crate::offer::hand_over::{ContainerEdits, Mount};

/// What contexts and the driver's own memory are taken to need until they are measured. On data centre GPUs a context
/// alone is some 250 to 600 MiB.
pub const CONTEXT: Mib = Mib(400);
/// In a container's runtime directory.
const STATE: &str = "state";
/// In a container's directory, and in the library's as earlier versions gave it to containers that still run.
const PRELOAD: &str = "ld.so.preload";

/// How the names of the library's copies begin.
const COPIES: &str = "libkerf_limiter-";

/// The library, where this process has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limiter {
    /// As this process sees it.
    source: PathBuf,
    /// On the host.
    directory: PathBuf,
    /// The copy on the host, once one could be made. Clones share it.
    library: Arc<OnceLock<PathBuf>>,
}

impl Limiter {
    /// Copies the library from where this process sees it to the host's `directory`. The copy's name contains a
    /// hash of its content, so that running containers keep the library that they have.
    ///
    /// # Errors
    /// [`IsolationError`]: there is no library, it cannot be copied, or containers could not load the copy.
    pub fn install(source: &Path, directory: &Path) -> Result<Self, IsolationError> {
        let library = Arc::new(Self::copy(source, directory)?.into());
        Ok(Self { library, ..Self::later(source, directory) })
    }

    fn copy(source: &Path, directory: &Path) -> Result<PathBuf, IsolationError> {
        let content = fs::read(source).map_err(at(source))?;
        let target = directory.join("lib");
        fs::create_dir_all(&target).map_err(at(&target))?;
        usable::executable(&target)?;
        let library = target.join(name_of(&content));
        // a copy may have been cut or damaged since, when the machine lost power for one
        files::update(&library, &content, 0o644).map_err(at(&library))?;
        // a copy that was not finished by a previous run may be closed to containers' users
        open_to_all(&library).map_err(at(&library))?;
        usable::label(&library)?;
        // containers of earlier versions have this one
        write_preload(&target.join(PRELOAD))?;
        Ok(library)
    }

    /// The library that cannot be copied now: it is tried again for each container, none of which starts without it, until
    /// it is there.
    pub fn later(source: &Path, directory: &Path) -> Self {
        Self { source: source.to_owned(), directory: directory.to_owned(), library: Arc::default() }
    }

    /// Copies the library where the host has no copy, has lost it or has damaged what containers are about to load. In
    /// place of a missing one a container runtime would create an empty directory, and the loader passes over one that
    /// it cannot map: the container would run without limits. Returns the copy.
    ///
    /// # Errors
    /// [`IsolationError`]
    pub fn reinstall(&self) -> Result<PathBuf, IsolationError> {
        if let Some(library) = self.library.get() {
            let preload = self.directory.join("lib").join(PRELOAD);
            if exposed::has(&preload, path::preload().as_bytes()) && is_whole(library) {
                return Ok(library.clone());
            }
            tracing::warn!(library = %library.display(), "the limiter library was missing or damaged; copied again");
        }
        let installed = Self::copy(&self.source, &self.directory)?;
        // the copy that this process began with, also where its own file is another one by now
        let library = self.library.get_or_init(|| installed);
        fs::metadata(library).map_err(at(library))?;
        Ok(library.clone())
    }

    /// Writes the container's limits, and mounts them with the library.
    ///
    /// # Errors
    /// [`IsolationError`]
    pub fn provide(
        &self,
        demand: &Demand<'_>,
        folder: &Folder,
        context: Mib,
    ) -> Result<ContainerEdits, IsolationError> {
        let library = self.reinstall()?;
        let (directory, state) = write(demand, folder, context)?;
        let mount = |host: &Path, container: &str, read_only| Mount {
            host: host.to_owned(),
            container: container.into(),
            read_only,
        };
        let mounts = vec![
            mount(&directory, path::HOST_DIRECTORY, true),
            mount(&state, path::STATE, false),
            mount(&library, path::LIBRARY, true),
            mount(&folder.path.join(PRELOAD), path::PRELOAD, true),
        ];
        Ok(ContainerEdits { mounts, ..ContainerEdits::default() })
    }
}

/// Copies of the library that containers have or are about to get.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copies {
    directory: PathBuf,
    found: usize,
    /// Why containers cannot load them.
    pub faults: Vec<String>,
}

impl fmt::Display for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = self.directory.display();
        match (self.found, self.faults.is_empty()) {
            (0, _) => write!(f, "no library in {directory}: does the plugin run?"),
            (_, true) => write!(f, "containers can load its library in {directory}"),
            (_, false) => write!(f, "containers cannot load its library in {directory}"),
        }
    }
}

/// Looks at the copies of the library in the host's `directory`; nothing is changed.
pub fn inspect(directory: &Path) -> Copies {
    let directory = directory.join("lib");
    let mut copies = Copies { directory: directory.clone(), ..Copies::default() };
    let Ok(entries) = fs::read_dir(&directory) else { return copies };
    copies.faults.extend(usable::executable(&directory).err().map(|fault| fault.to_string()));
    for file in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // others are copies that were never finished
        let library = name.starts_with(COPIES);
        copies.found += usize::from(library);
        if library && !is_whole(&file) {
            copies.faults.push(format!("{}: cut or damaged", file.display()));
        }
        if !name.starts_with('.') {
            copies.faults.extend(usable::readable(&file).err().map(|fault| fault.to_string()));
        }
    }
    copies.faults.sort();
    copies
}

/// The name of the library's copy, by which its content is known.
fn name_of(content: &[u8]) -> String {
    format!("{COPIES}{:016x}.so", hash(content.iter().copied()))
}

/// Whether a copy of the library has the content that it is named for.
fn is_whole(library: &Path) -> bool {
    let mut content = Vec::new();
    let read = exposed::read(library).and_then(|mut file| file.read_to_end(&mut content));
    read.is_ok() && library.ends_with(name_of(&content))
}

/// Writes the files of a container: the directory that it sees, and the file that its processes share.
fn write(demand: &Demand<'_>, folder: &Folder, context: Mib) -> Result<(PathBuf, PathBuf), IsolationError> {
    let limits = limits(demand.grant, demand.limit, folder.level, context)?;
    let directory = folder.seen();
    fs::create_dir_all(&directory).map_err(at(&directory))?;
    for (name, content) in [(path::LIMITS, limits.render().into_bytes()), (path::ALLOWANCE, allowance::blank())] {
        let file = folder.shown(name);
        files::replace(&file, &content, 0o644).map_err(at(&file))?;
        usable::label(&file)?;
    }
    usable::label(&directory)?;
    preload(folder)?;
    Ok((directory, fresh(folder)?))
}

/// Leaves a file that is open to all as it is: its file system may be read-only by now.
fn open_to_all(file: &Path) -> std::io::Result<()> {
    const MODE: u32 = 0o644;
    if fs::metadata(file)?.permissions().mode() & 0o777 == MODE {
        return Ok(());
    }
    fs::set_permissions(file, fs::Permissions::from_mode(MODE))
}

/// Every container has a file of its own: a lease that one holds on it delays no other's programs.
fn preload(folder: &Folder) -> Result<(), IsolationError> {
    write_preload(&folder.path.join(PRELOAD))
}

fn write_preload(file: &Path) -> Result<(), IsolationError> {
    let written = files::update(file, path::preload().as_bytes(), 0o644).map_err(at(file))?;
    if written { usable::label(file) } else { Ok(()) }
}

/// Brings the existing files of a container up to date, before it starts.
///
/// # Errors
/// [`IsolationError`]
pub fn refresh(demand: &Demand<'_>, folder: &Folder, context: Mib) -> Result<(), IsolationError> {
    let content = limits(demand.grant, demand.limit, folder.level, context)?.render();
    let (file, allowance) = (folder.shown(path::LIMITS), folder.shown(path::ALLOWANCE));
    let whole =
        fs::metadata(allowance).is_ok_and(|found| found.is_file() && found.len() == allowance::BYTES as u64);
    if whole && exposed::has(&file, content.as_bytes()) {
        preload(folder)?;
        fresh(folder).map(drop)
    } else {
        tracing::info!(file = %file.display(), "limits written again: they were lost, or another pod of the same shape was served");
        write(demand, folder, context).map(drop)
    }
}

/// The content of the limits file. `context` is estimated for each context of a process, at most the whole share. Under
/// `mps` the service divides the GPU's multiprocessors, and the limiter's time would be a part of that part: it leaves
/// compute alone.
///
/// # Errors
/// [`IsolationError::Limits`]
pub fn limits(
    grant: &ContainerGrant,
    limit: Option<Milli>,
    level: Isolation,
    context: Mib,
) -> Result<Limits, IsolationError> {
    let percent = |share: Milli| u8::try_from(share.to_core_units()).unwrap_or(100);
    let devices = grant.gpus.amounts().map(|(device, share)| {
        let core = share.compute;
        let (core, ceiling) = match level {
            Isolation::Mps => (100, 100),
            _ => (percent(core), percent(limit.unwrap_or(core).max(core))),
        };
        let (memory, context) = (share.memory.bytes(), context.bytes().min(share.memory.bytes()));
        DeviceLimits { uuid: device.id.to_string(), memory, core, ceiling, context }
    });
    Limits::new(devices.collect()).map_err(|error| IsolationError::Limits(error.to_string()))
}

/// Lays the files that belong to one life of a container, before it starts: none of its processes is alive then, so
/// nobody holds anything, and what an earlier life left counts for nobody. Whoever has the old file open keeps it.
/// kubelet asks before each start.
///
/// # Errors
/// [`IsolationError`]
pub fn fresh(folder: &Folder) -> Result<PathBuf, IsolationError> {
    let lay = |file: &Path, mode, beginning: Vec<u8>, length: usize| {
        let written = files::replace_with(file, mode, |fresh| {
            fresh.write_all(&beginning)?;
            fresh.set_len(length as u64)
        });
        written.map_err(at(file))?;
        usable::label(file)
    };
    let (file, overhead) = (folder.run.join(STATE), folder.shown(path::OVERHEAD));
    make(&folder.run)?;
    fs::create_dir_all(folder.seen()).map_err(at(&folder.seen()))?;
    lay(&overhead, 0o644, overhead::blank(), overhead::BYTES)?;
    // any user that the container's programs run as may write it
    lay(&file, 0o666, state::blank(folder.layout), state::length(folder.layout))?;
    Ok(file)
}

/// The processes as the container's limiter reports them. The tenant can write the file: it is read up to a bound,
/// and may contain anything.
///
/// # Errors
/// Where it cannot be read.
pub fn snapshot(folder: &Folder) -> Result<Snapshot, IsolationError> {
    let file = folder.run.join(STATE);
    let opened = exposed::read(&file).map_err(at(&file))?;
    Snapshot::read(opened).map_err(|error| IsolationError::Limits(error.to_string()))
}

/// Looks at the files that the container has, and cuts the one that it can write to its length. Returns what is wrong, in
/// words. That one is missing is none of the container's doing: it cannot remove what is mounted.
pub fn fault(folder: &Folder) -> Option<String> {
    let words = |file: &str, error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => None,
        std::io::ErrorKind::WouldBlock => Some(format!("a process holds a lease on {file}")),
        _ => Some(format!("{file}: {error}")),
    };
    let length = state::length(folder.layout);
    let state = match exposed::cut(&folder.run.join(STATE), length as u64) {
        Ok(false) => None,
        Ok(true) => Some(format!("{} was longer than {length} bytes, and was cut", path::STATE)),
        Err(error) => words(path::STATE, &error),
    };
    let allowance = || words(path::ALLOWANCE, &exposed::write(&folder.shown(path::ALLOWANCE)).err()?);
    state.or_else(allowance)
}

/// Where on the host a container's files may be that it sees at this place; several where versions differ.
pub fn given(folder: &Folder, place: &str) -> Vec<PathBuf> {
    let library = folder.path.ancestors().nth(2).map(|state| state.join("lib")).unwrap_or_default();
    match place {
        path::HOST_DIRECTORY => vec![folder.seen()],
        path::STATE => vec![folder.run.join(STATE)],
        path::PRELOAD => vec![folder.path.join(PRELOAD), library.join(PRELOAD)],
        path::LIBRARY => {
            let files = fs::read_dir(library).into_iter().flatten().filter_map(Result::ok);
            let copies = files.filter(|file| file.file_name().to_string_lossy().starts_with(COPIES));
            copies.map(|file| file.path()).collect()
        }
        _ => Vec::new(),
    }
}

/// Lets the container use this part of its GPU's time from `now` on.
///
/// # Errors
/// [`IsolationError`]
pub fn allow(folder: &Folder, millionths: u32, now: u64) -> Result<(), IsolationError> {
    let file = folder.shown(path::ALLOWANCE);
    let opened = exposed::write(&file).map_err(at(&file))?;
    let entry = allowance::entry(millionths, now).to_ne_bytes();
    // a share is of one GPU, so of the first
    opened.write_all_at(&entry, allowance::offset(0) as u64).map_err(at(&file))
}

/// Tells the process with this entry by how many bytes more, or fewer, than it estimated the driver takes for it.
///
/// # Errors
/// [`IsolationError`]
pub fn measured(folder: &Folder, process: &ProcessSnapshot, difference: i64) -> Result<(), IsolationError> {
    let file = folder.shown(path::OVERHEAD);
    let opened = exposed::write(&file).map_err(at(&file))?;
    let put = |word: [u8; 8], offset: usize| opened.write_all_at(&word, offset as u64).map_err(at(&file));
    // a share is of one GPU, so of the first
    put(difference.to_ne_bytes(), overhead::offset(0, process.slot))?;
    put(process.owner.to_ne_bytes(), overhead::owner_offset(0, process.slot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocation::Key;
    use crate::device::ids::Ids;
    use crate::isolation::folder::Folders;
    use kerf::plan::{ContainerGrant, DeviceRef, Grant};
    use kerf::request::ContainerKind;
    use kerf::units::Share;
    use std::os::unix::fs::MetadataExt;

    fn grant(id: &str) -> ContainerGrant {
        let device = DeviceRef { id: id.into(), index: 0 };
        let gpus = Grant::Share { device, share: Share::new(305, 256) };
        ContainerGrant { container: "main".into(), kind: ContainerKind::App, position: 0, gpus }
    }

    #[test]
    fn a_start_brings_the_files_of_a_container_up_to_date() {
        let root = tempfile::tempdir().unwrap();
        let (state, run, source) = (root.path().join("lib"), root.path().join("run"), root.path().join("library"));
        fs::write(&source, "a library").unwrap();
        let limiter = Limiter::install(&source, &state).unwrap();
        let library = limiter.library.get().unwrap().clone();
        fs::set_permissions(&library, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Limiter::install(&source, &state).unwrap(), limiter);
        assert_eq!(fs::metadata(&library).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(inspect(&state).faults, Vec::<String>::new());
        // as long as before, which a lost block of a disk may be
        fs::write(&library, [0; 9]).unwrap();
        assert_eq!(inspect(&state).faults, [format!("{}: cut or damaged", library.display())]);
        limiter.reinstall().unwrap();
        assert_eq!(fs::read(&library).unwrap(), b"a library");
        fs::write(&library, [0; 9]).unwrap();
        assert_eq!(Limiter::install(&source, &state).unwrap(), limiter);
        assert_eq!(fs::read(&library).unwrap(), b"a library");
        let (key, core, grant) =
            (Key { pod: "u".into(), container: "main".into() }, Ids::default(), grant("GPU-0"));
        let demand = Demand { key: &key, core: &core, grant: &grant, limit: None };
        let folder = Folders::empty(&state, &run).create(&demand, Isolation::Limiter, true).unwrap();
        assert!(!folder.shown(path::LIMITS).exists());
        limiter.provide(&demand, &folder, CONTEXT).unwrap();
        assert!(folder.shown(path::LIMITS).exists());
        let ceiling = || {
            let limits = Limits::parse(&fs::read(folder.shown(path::LIMITS)).unwrap()).unwrap();
            (limits.devices()[0].core, limits.devices()[0].ceiling)
        };
        // half a percent of a GPU is not a whole percent: the share is rounded up
        assert_eq!(ceiling(), (31, 31));
        let state = folder.run.join(STATE);
        fs::write(&state, "written by a tenant").unwrap();
        assert!(snapshot(&folder).is_err());
        fs::remove_file(&state).unwrap();
        // kubelet had served a pod of the same shape with another ceiling
        refresh(&Demand { limit: Some(Milli(800)), ..demand }, &folder, CONTEXT).unwrap();
        assert_eq!(ceiling(), (31, 80));
        assert!(snapshot(&folder).unwrap().processes.is_empty());
        allow(&folder, 400_000, 7_000_000_000).unwrap();
        let bytes = fs::read(folder.shown(path::ALLOWANCE)).unwrap();
        let entry = u64::from_ne_bytes(bytes[allowance::offset(0)..][..8].try_into().unwrap());
        assert_eq!(allowance::read(entry, 7_000_000_000), Some(400_000));
    }

    /// On a file system that is read-only or full, what is there must do.
    #[test]
    fn what_is_installed_is_not_written_again() {
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join("library");
        fs::write(&source, "a library").unwrap();
        let changed = |file: &Path| {
            let found = fs::metadata(file).unwrap();
            (found.ino(), found.ctime(), found.ctime_nsec())
        };
        let library = Limiter::install(&source, root.path()).unwrap().library.get().unwrap().clone();
        let files = [root.path().join("lib").join(PRELOAD), library];
        let before = files.each_ref().map(|file| changed(file));
        let (witness, newest) = (root.path().join("witness"), before.map(|(_, s, n)| (s, n)).into_iter().max());
        // the clock of the file system has moved on
        while {
            fs::write(&witness, "").unwrap();
            let (_, s, n) = changed(&witness);
            Some((s, n)) <= newest
        } {}
        Limiter::install(&source, root.path()).unwrap();
        assert_eq!(files.each_ref().map(|file| changed(file)), before);
    }

    #[test]
    fn a_library_that_cannot_be_copied_is_tried_for_each_container() {
        let root = tempfile::tempdir().unwrap();
        let (source, lib) = (root.path().join("library"), root.path().join("lib"));
        fs::write(&source, "a library").unwrap();
        fs::write(&lib, "in the way").unwrap();
        let limiter = Limiter::later(&source, root.path());
        assert!(limiter.reinstall().is_err());
        fs::remove_file(&lib).unwrap();
        let library = limiter.clone().reinstall().unwrap();
        assert!(is_whole(&library));
        // it is there: another one, as of another version, does not take its place for containers of this run
        fs::write(&source, "another library").unwrap();
        assert_eq!(limiter.reinstall().unwrap(), library);
    }

    /// What a life of a container left in the file, killed or not, is not there in the next one.
    #[test]
    fn each_life_of_a_container_has_a_state_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let (state, run, source) = (root.path().join("lib"), root.path().join("run"), root.path().join("library"));
        fs::write(&source, "a library").unwrap();
        let limiter = Limiter::install(&source, &state).unwrap();
        let (key, core, grant) =
            (Key { pod: "u".into(), container: "main".into() }, Ids::default(), grant("GPU-0"));
        let demand = Demand { key: &key, core: &core, grant: &grant, limit: None };
        let folders = Folders::empty(&state, &run);
        let folder = folders.create(&demand, Isolation::Limiter, true).unwrap();
        limiter.provide(&demand, &folder, CONTEXT).unwrap();
        let file = folder.run.join(STATE);
        let old = fs::OpenOptions::new().write(true).open(&file).unwrap();
        let entry = std::mem::offset_of!(state::State, processes) as u64;
        old.write_all_at(&7_u64.to_ne_bytes(), entry).unwrap();
        assert_eq!(snapshot(&folder).unwrap().processes.len(), 1);
        refresh(&demand, &folder, CONTEXT).unwrap();
        assert_eq!(snapshot(&folder).unwrap().processes, []);
        // what is left of the old life does not reach the new one
        old.write_all_at(&7_u64.to_ne_bytes(), entry).unwrap();
        assert_eq!(snapshot(&folder).unwrap().processes, []);
        // a container from before this version has the library of that time
        let mut old = folder;
        old.layout = state::FIRST_VERSION;
        refresh(&demand, &old, CONTEXT).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().len(), state::FIRST_BYTES as u64);
        assert_eq!(snapshot(&old).unwrap().processes, []);
    }

    #[test]
    fn contexts_are_estimated_at_no_more_than_the_share() {
        let of = |context| limits(&grant("GPU-0"), None, Isolation::Limiter, context).unwrap().devices()[0].context;
        assert_eq!((of(Mib(0)), of(Mib(100)), of(CONTEXT)), (0, 100 << 20, 256 << 20));
    }

    #[test]
    fn limits_that_nobody_can_keep_are_refused_by_name() {
        let refused = limits(&grant("GPU 0"), None, Isolation::Limiter, CONTEXT).unwrap_err();
        assert!(refused.to_string().contains("device is out of range"));
    }

    #[test]
    fn compute_is_limited_once() {
        let of = |level| {
            let limits = limits(&grant("GPU-0"), Some(Milli(800)), level, CONTEXT).unwrap();
            (limits.devices()[0].memory, limits.devices()[0].core, limits.devices()[0].ceiling)
        };
        // the driver limits memory only
        assert_eq!([of(Isolation::Limiter), of(Isolation::Driver)], [(256 << 20, 31, 80); 2]);
        assert_eq!(of(Isolation::Mps), (256 << 20, 100, 100));
    }
}
