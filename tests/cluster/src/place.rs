//! The run directory: all files of one cluster are in it, and everything outside (processes, groups, addresses, kernel
//! settings) is recorded in it or carries its name, so that the next run can remove what a crashed one left.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::address;
use crate::cleaning;
use crate::identity::Identity;

/// Kernel settings that kubelet, a network plugin or this crate changes.
const SYSCTLS: [&str; 8] = [
    INOTIFY,
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/ipv4/ip_forward",
];

/// Every node watches dozens of files, and other programs of the user may, too: the usual 128 do not suffice.
const INOTIFY: &str = "fs/inotify/max_user_instances";
const INOTIFY_INSTANCES: u32 = 2048;

/// A file that exists where [`cleaning::foreign`] was true at the start.
const FOREIGN: &str = "foreign-containerd";

/// The parent of all run directories.
pub fn base() -> PathBuf {
    std::env::var_os("KERF_CLUSTER_DIR").map_or_else(|| "/var/tmp/kerf-cluster".into(), PathBuf::from)
}

/// The run directory of one cluster.
#[derive(Debug)]
pub struct Place {
    root: PathBuf,
}

impl Place {
    /// A new directory, owned by this process. Saves the settings that will change.
    ///
    /// # Errors
    /// Where directories cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let me = Identity::of(std::process::id()).context("this process is not in /proc")?;
        let root = base().join(format!("k{}", me.pid));
        fs::create_dir_all(base())?;
        ensure!(!root.exists(), "{} is in the way: run `kerf-cluster down`", root.display());
        fs::create_dir(&root)?;
        let place = Self { root };
        fs::write(place.root.join("owner"), me.to_string())?;
        if cleaning::foreign() {
            place.write(FOREIGN, "")?;
        }
        let saved: Vec<String> = SYSCTLS
            .iter()
            .filter_map(|name| Some(format!("{name} {}", fs::read_to_string(sysctl(name)).ok()?.trim())))
            .collect();
        fs::write(place.root.join("sysctls"), saved.join("\n"))?;
        let instances: u32 = fs::read_to_string(sysctl(INOTIFY))?.trim().parse()?;
        if instances < INOTIFY_INSTANCES {
            fs::write(sysctl(INOTIFY), INOTIFY_INSTANCES.to_string()).context(INOTIFY)?;
        }
        Ok(place)
    }

    /// Directories whose owner is gone.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn abandoned() -> anyhow::Result<Vec<Self>> {
        let gone = |place: &Self| place.owner().is_none_or(|owner| !owner.alive());
        Ok(Self::all()?.into_iter().filter(gone).collect())
    }

    /// Directories of all runs.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        let entries = match fs::read_dir(base()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| base().display().to_string())?,
        };
        entries.map(|entry| Ok(Self { root: entry?.path() })).collect()
    }

    /// The process that started the cluster, where that is recorded.
    pub fn owner(&self) -> Option<Identity> {
        fs::read_to_string(self.root.join("owner")).ok()?.parse().ok()
    }

    /// The path of the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A directory in it, which is made if missing.
    ///
    /// # Errors
    /// Those of the system.
    pub fn dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Writes a file in it; returns its path.
    ///
    /// # Errors
    /// Those of the system.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Records a process. The name determines when it is ended: see [`cleaning`].
    ///
    /// # Errors
    /// Where the process is gone already.
    pub fn record(&self, name: &str, pid: u32) -> anyhow::Result<()> {
        let Some(identity) = Identity::of(pid) else { bail!("{name} ended at once: see its log") };
        self.write(&format!("processes/{name}"), identity.to_string()).map(drop)
    }

    /// The recorded processes that still live.
    pub fn processes(&self) -> Vec<(String, Identity)> {
        let entries = fs::read_dir(self.path("processes")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let identity: Identity = fs::read_to_string(entry.path()).ok()?.parse().ok()?;
                Some((entry.file_name().to_string_lossy().into_owned(), identity))
            })
            .filter(|(_, identity)| identity.alive())
            .collect()
    }

    /// Makes a directory outside, as a mount point; it is removed at the end.
    ///
    /// # Errors
    /// Those of the system.
    pub fn mount_point(&self, path: &str) -> anyhow::Result<()> {
        let mut missing: Vec<&Path> = Path::new(path).ancestors().take_while(|path| !path.exists()).collect();
        missing.reverse();
        let mut made = self.made();
        for path in missing {
            made.push(path.display().to_string());
            self.write("made", made.join("\n"))?;
            fs::create_dir(path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// Adds an address to this machine's loopback interface, if it is not there; it is removed at the end.
    ///
    /// # Errors
    /// Those of the system.
    pub fn add_address(&self, address: Ipv4Addr) -> anyhow::Result<bool> {
        address::add(address, &self.name())
    }

    /// The name of the directory, which no other run has at the same time.
    fn name(&self) -> String {
        self.root.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn made(&self) -> Vec<String> {
        fs::read_to_string(self.path("made")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Directories of the cluster's nodes.
    pub fn nodes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("nodes")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// Ends everything that belongs to this cluster and removes it. With `keep`, its logs are copied there.
    ///
    /// # Errors
    /// Names what could not be removed.
    pub fn clear(&self, keep: Option<&Path>) -> anyhow::Result<()> {
        cleaning::end_all(|| self.nodes(), || self.processes(), self.path(FOREIGN).exists())?;
        for line in fs::read_to_string(self.path("sysctls")).unwrap_or_default().lines() {
            let Some((name, value)) = line.split_once(' ') else { continue };
            if fs::read_to_string(sysctl(name)).is_ok_and(|now| now.trim() != value) {
                fs::write(sysctl(name), value).with_context(|| name.to_owned())?;
            }
        }
        address::remove(&self.name())?;
        // only empty directories are removed, and others may use them by now
        self.made().iter().rev().for_each(|path| drop(fs::remove_dir(path)));
        if let Some(target) = keep {
            copy_logs(&self.path("logs"), target)?;
            for node in self.nodes() {
                copy_pods_logs(&node, target)?;
            }
        }
        fs::remove_dir_all(&self.root).with_context(|| self.root.display().to_string())?;
        let _ = fs::remove_dir(base());
        Ok(())
    }
}

fn sysctl(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// The logs of kerf's own pods on a node, as `NODE-POD-CONTAINER-NUMBER.log`.
fn copy_pods_logs(node: &Path, to: &Path) -> anyhow::Result<()> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for pod in entries(&node.join("log/pods")) {
        // namespace, name, uid
        let parts = name(&pod);
        let Some((own, _)) = parts.strip_prefix("kerf-system_").and_then(|rest| rest.rsplit_once('_')) else {
            continue;
        };
        for container in entries(&pod) {
            for log in entries(&container) {
                let file = [&name(node), own, &name(&container), &name(&log)].join("-");
                fs::copy(&log, to.join(file)).with_context(|| log.display().to_string())?;
            }
        }
    }
    Ok(())
}

fn copy_logs(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
