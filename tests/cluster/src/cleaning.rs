//! Ends a cluster's processes, containers and control groups: only those that are provably its own, in an order in
//! which nothing is restarted.
//!
//! There are three kinds of proof: the process was recorded with its start time; it is in the mount namespace of a
//! node, which a recorded process still holds; its control group carries the id of a container of a node.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::process::Signal;

use crate::identity::Identity;

/// Prefix of the names of processes that hold a namespace: they are the proof for others, so they end last.
pub const HOLDER: &str = "holder";
/// Below a node's directory: the bundles of its containers, one directory for each, named by the id.
pub const BUNDLES: &str = "run-containerd/io.containerd.runtime.v2.task/k8s.io";

const PATIENCE: Duration = Duration::from_secs(20);

/// Ends everything. `nodes` and `processes` return the current state; `foreign` is the result of [`foreign`] at the
/// start.
///
/// # Errors
/// Where something still exists after a while.
pub fn end_all(
    nodes: impl Fn() -> Vec<PathBuf>,
    processes: impl Fn() -> Vec<(String, Identity)>,
    foreign: bool,
) -> anyhow::Result<()> {
    let mut known = BTreeSet::new();
    let until = Instant::now() + PATIENCE;
    loop {
        // a new one may just have been made
        known.extend(nodes().iter().flat_map(|node| containers(node)));
        let (holders, others): (Vec<_>, Vec<_>) =
            processes().into_iter().partition(|(name, _)| name.starts_with(HOLDER));
        let mut left: Vec<Identity> = others.iter().map(|(_, identity)| *identity).collect();
        left.extend(inside(&holders));
        left.extend(grouped(&known));
        if left.is_empty() {
            holders.iter().for_each(|(_, holder)| holder.signal(Signal::KILL));
            if holders.is_empty() {
                break;
            }
        }
        // a stopped process ends by KILL as well
        left.iter().for_each(|process| process.signal(Signal::KILL));
        ensure!(Instant::now() < until, "processes do not end: {left:?} {holders:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    remove_groups(foreign, known);
    Ok(())
}

/// Ids of the containers that a node has, or had when its containerd was killed.
fn containers(node: &Path) -> Vec<String> {
    let entries = fs::read_dir(node.join(BUNDLES)).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|id| id.len() == 64).collect()
}

fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, entry.path()))
    })
}

/// Processes in the mount namespaces of the holders, without the holders.
fn inside(holders: &[(String, Identity)]) -> Vec<Identity> {
    let space = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = space(std::process::id());
    let spaces: Vec<PathBuf> = holders
        .iter()
        .filter_map(|(_, holder)| space(holder.pid))
        .filter(|space| Some(space) != own.as_ref())
        .collect();
    let is_holder = |pid: u32| holders.iter().any(|(_, holder)| holder.pid == pid);
    processes()
        .filter(|(pid, _)| !is_holder(*pid) && space(*pid).is_some_and(|space| spaces.contains(&space)))
        .filter_map(|(pid, _)| Identity::of(pid))
        .filter(|identity| identity.alive())
        .collect()
}

/// Processes in the control groups of the containers.
fn grouped(containers: &BTreeSet<String>) -> Vec<Identity> {
    if containers.is_empty() {
        return Vec::new();
    }
    let ours = |text: &str| text.split(['/', '\n']).any(|part| containers.contains(part));
    processes()
        .filter(|(_, path)| fs::read_to_string(path.join("cgroup")).is_ok_and(|text| ours(&text)))
        .filter_map(|(pid, _)| Identity::of(pid))
        .filter(|identity| identity.alive())
        .collect()
}

/// The directories in which containerd puts the control groups of all containers, in each hierarchy.
fn groups() -> impl Iterator<Item = PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join("k8s.io"))
}

/// Whether another containerd has been used on this machine.
pub fn foreign() -> bool {
    groups().any(|group| group.exists())
}

/// Removes the control groups of the containers, and the parent if no other group is in it. A containerd that is killed
/// may forget a container whose group still exists: without another containerd before us these groups are ours, too.
/// Only a group without processes can be removed.
fn remove_groups(foreign: bool, mut containers: BTreeSet<String>) {
    for above in groups() {
        if !foreign {
            let entries = fs::read_dir(&above).into_iter().flatten().flatten();
            let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            containers.extend(directories.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        }
        for id in &containers {
            // a group can be removed once its processes are gone, which takes a moment
            let until = Instant::now() + Duration::from_secs(1);
            while above.join(id).exists() && fs::remove_dir(above.join(id)).is_err() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = fs::remove_dir(above);
    }
}
