//! Isolation `limiter`: kerf's library in the container. [`kerf_limiter_contract`], which both share, says which
//! file goes where.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kerf::plan::ContainerGrant;
use kerf::units::Milli;
use kerf_limiter_contract::limits::{DeviceLimits, Limits};
use kerf_limiter_contract::state::{self, Snapshot};
use kerf_limiter_contract::{allowance, path};

use crate::base::{exposed, files};
use crate::isolation::demand::{Demand, IsolationError, at};
use crate::isolation::folder::{Folder, hash, make};
use crate::offer::hand_over::{ContainerEdits, Mount};

/// In a container's runtime directory.
const STATE: &str = "state";
/// In a container's directory, and in the library's as earlier versions gave it to containers that still run.
const PRELOAD: &str = "ld.so.preload";

/// How the names of the library's copies begin.
const COPIES: &str = "libkerf_limiter-";

/// The library, where the host has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limiter {
    /// As this process sees it.
    source: PathBuf,
    /// On the host.
    directory: PathBuf,
    library: PathBuf,
    preload: PathBuf,
}

impl Limiter {
    /// Copies the library from where this process sees it to the host's `directory`. The copy's name contains a
    /// hash of its content, so that running containers keep the library that they have.
    ///
    /// # Errors
    /// [`IsolationError`]: there is no library, or it cannot be copied.
    pub fn install(source: &Path, directory: &Path) -> Result<Self, IsolationError> {
        let content = fs::read(source).map_err(at(source))?;
        let target = directory.join("lib");
        fs::create_dir_all(&target).map_err(at(&target))?;
        let name = format!("{COPIES}{:016x}.so", hash(content.iter().copied()));
        let (library, preload) = (target.join(name), target.join(PRELOAD));
        if fs::metadata(&library).map(|found| found.len()).ok() != Some(content.len() as u64) {
            files::replace(&library, &content, 0o644).map_err(at(&library))?;
        }
        // a copy that was not finished by a previous run may be closed to containers' users
        fs::set_permissions(&library, fs::Permissions::from_mode(0o644)).map_err(at(&library))?;
        // containers of earlier versions have this one
        write_preload(&preload)?;
        Ok(Self { source: source.to_owned(), directory: directory.to_owned(), library, preload })
    }

    /// Copies the library again, where the host has lost what containers are about to load: a container runtime
    /// would create an empty directory there, and the container would run without limits.
    ///
    /// # Errors
    /// [`IsolationError`]
    pub fn reinstall(&self) -> Result<(), IsolationError> {
        if self.library.is_file() && self.preload.is_file() {
            return Ok(());
        }
        tracing::warn!(library = %self.library.display(), "the limiter library was missing; copied again");
        Self::install(&self.source, &self.directory)?;
        fs::metadata(&self.library).map(drop).map_err(at(&self.library))
    }

    /// Writes the container's limits, and mounts them with the library.
    ///
    /// # Errors
    /// [`IsolationError`]
    pub fn provide(&self, demand: &Demand<'_>, folder: &Folder) -> Result<ContainerEdits, IsolationError> {
        self.reinstall()?;
        let (directory, state) = write(demand, folder)?;
        let mount = |host: &Path, container: &str, read_only| Mount {
            host: host.to_owned(),
            container: container.into(),
            read_only,
        };
        let mounts = vec![
            mount(&directory, path::HOST_DIRECTORY, true),
            mount(&state, path::STATE, false),
            mount(&self.library, path::LIBRARY, true),
            mount(&folder.path.join(PRELOAD), path::PRELOAD, true),
        ];
        Ok(ContainerEdits { mounts, ..ContainerEdits::default() })
    }
}

/// Writes the files of a container: the directory that it sees, and the file that its processes share.
fn write(demand: &Demand<'_>, folder: &Folder) -> Result<(PathBuf, PathBuf), IsolationError> {
    let limits = limits(demand.grant, demand.limit)?;
    let directory = folder.seen();
    fs::create_dir_all(&directory).map_err(at(&directory))?;
    for (name, content) in [(path::LIMITS, limits.render().into_bytes()), (path::ALLOWANCE, allowance::blank())] {
        let file = folder.shown(name);
        files::replace(&file, &content, 0o644).map_err(at(&file))?;
    }
    preload(folder)?;
    Ok((directory, restore(folder)?))
}

/// Every container has a file of its own: a lease that one holds on it delays no other's programs.
fn preload(folder: &Folder) -> Result<(), IsolationError> {
    write_preload(&folder.path.join(PRELOAD))
}

fn write_preload(file: &Path) -> Result<(), IsolationError> {
    let content = path::preload();
    if exposed::has(file, content.as_bytes()) {
        return Ok(());
    }
    files::replace(file, content.as_bytes(), 0o644).map_err(at(file))
}

/// Brings the existing files of a container up to date, before it starts.
///
/// # Errors
/// [`IsolationError`]
pub fn refresh(demand: &Demand<'_>, folder: &Folder) -> Result<(), IsolationError> {
    let content = limits(demand.grant, demand.limit)?.render();
    let (file, allowance) = (folder.shown(path::LIMITS), folder.shown(path::ALLOWANCE));
    let whole =
        fs::metadata(allowance).is_ok_and(|found| found.is_file() && found.len() == allowance::BYTES as u64);
    if whole && exposed::has(&file, content.as_bytes()) {
        preload(folder)?;
        restore(folder).map(drop)
    } else {
        tracing::info!(file = %file.display(), "limits written again: they were lost, or another pod of the same shape was served");
        write(demand, folder).map(drop)
    }
}

/// The content of the limits file.
///
/// # Errors
/// [`IsolationError::Limits`]
pub fn limits(grant: &ContainerGrant, limit: Option<Milli>) -> Result<Limits, IsolationError> {
    let percent = |share: Milli| u8::try_from(share.to_core_units()).unwrap_or(100);
    let devices = grant.gpus.amounts().map(|(device, share)| {
        let core = share.compute;
        DeviceLimits {
            uuid: device.id.to_string(),
            memory: share.memory.bytes(),
            core: percent(core),
            ceiling: percent(limit.unwrap_or(core).max(core)),
            context: 0,
        }
    });
    Limits::new(devices.collect()).map_err(|error| IsolationError::Limits(error.to_string()))
}

/// Creates the file that the container's processes share, where it is missing: a restart of the machine removes it,
/// and kubelet asks before each start of a container.
///
/// # Errors
/// [`IsolationError`]
pub fn restore(folder: &Folder) -> Result<PathBuf, IsolationError> {
    let file = folder.run.join(STATE);
    if !file.is_file() {
        make(&folder.run)?;
        // only a complete file gets the name that is mounted; any user that the container's programs run as may
        // write it
        let written = files::replace_with(&file, 0o666, |fresh| {
            fresh.write_all(&state::blank())?;
            fresh.set_len(state::BYTES as u64)
        });
        written.map_err(at(&file))?;
    }
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
    let state = match exposed::cut(&folder.run.join(STATE), state::BYTES as u64) {
        Ok(false) => None,
        Ok(true) => Some(format!("{} was longer than {} bytes, and was cut", path::STATE, state::BYTES)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocation::Key;
    use crate::device::ids::Ids;
    use crate::isolation::folder::Folders;
    use kerf::isolation::Isolation;
    use kerf::plan::{DeviceRef, Grant};
    use kerf::request::ContainerKind;
    use kerf::units::Share;

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
        fs::set_permissions(&limiter.library, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Limiter::install(&source, &state).unwrap(), limiter);
        assert_eq!(fs::metadata(&limiter.library).unwrap().permissions().mode() & 0o777, 0o644);
        let (key, core, grant) =
            (Key { pod: "u".into(), container: "main".into() }, Ids::default(), grant("GPU-0"));
        let demand = Demand { key: &key, core: &core, grant: &grant, limit: None };
        let folder = Folders::empty(&state, &run).create(&demand, Isolation::Limiter, true).unwrap();
        assert!(!folder.shown(path::LIMITS).exists());
        limiter.provide(&demand, &folder).unwrap();
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
        refresh(&Demand { limit: Some(Milli(800)), ..demand }, &folder).unwrap();
        assert_eq!(ceiling(), (31, 80));
        assert!(snapshot(&folder).unwrap().processes.is_empty());
        allow(&folder, 400_000, 7_000_000_000).unwrap();
        let bytes = fs::read(folder.shown(path::ALLOWANCE)).unwrap();
        let entry = u64::from_ne_bytes(bytes[allowance::offset(0)..][..8].try_into().unwrap());
        assert_eq!(allowance::read(entry, 7_000_000_000), Some(400_000));
    }

    #[test]
    fn limits_that_nobody_can_keep_are_refused_by_name() {
        assert!(limits(&grant("GPU 0"), None).unwrap_err().to_string().contains("device is out of range"));
    }
}
