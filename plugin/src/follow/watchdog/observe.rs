//! What the host sees of each container with a share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kerf::isolation::Isolation;
use kerf::units::Milli;
use kerf_limiter_contract::process::Stat;

use crate::allocation::Key;
use crate::allocation::view::PodView;
use crate::base::mounts::Mounts;
use crate::follow::in_time::InTime;
use crate::follow::said;
use crate::isolation::folder::{Folder, Folders};
use crate::isolation::{in_place, limiter};
use crate::state::breach::{Observation, Subject};
use crate::state::occupancy::{self, ContainerUsage};
use crate::state::sample::Sample;

/// What was found of the limiter in one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    unlimited: usize,
    hidden: BTreeSet<&'static str>,
    fault: Option<String>,
}

#[derive(Debug)]
pub struct Observer {
    folders: Folders,
    proc_root: PathBuf,
    asked: InTime<PathBuf>,
}

impl Observer {
    pub fn new(folders: Folders, proc_root: PathBuf) -> Self {
        Self { folders, proc_root, asked: InTime::default() }
    }

    /// Every container with a share that has the limiter, or processes on its GPU.
    pub async fn observe(&mut self, pods: &[PodView], sample: &Arc<Sample>) -> Vec<Observation> {
        let used = occupancy::used(pods, sample);
        let folders = self.folders.of(pods.iter().flat_map(PodView::holders));
        let shares = shares(pods, &used, &folders);
        let own = Mounts::of(Path::new("/proc/self")).unwrap_or_default();
        let questions = shares.iter().filter_map(|share| {
            let folder = share.folder.filter(|folder| folder.limiter)?.clone();
            let pids: Vec<u32> = share.usage.processes.iter().map(|(pid, _)| *pid).collect();
            let (own, proc_root, sample) = (own.clone(), self.proc_root.clone(), Arc::clone(sample));
            Some((folder.path.clone(), move || look(&folder, &sample, &pids, &own, &proc_root)))
        });
        let mut found = self.asked.ask(questions.collect()).await;
        shares.into_iter().map(|share| share.observation(&mut found)).collect()
    }
}

/// A container's share of one GPU.
struct ShareOf<'a> {
    subject: Subject,
    memory: u64,
    ceiling: Milli,
    /// `None`: nothing was made for it.
    folder: Option<&'a Folder>,
    usage: ContainerUsage,
}

fn shares<'a>(
    pods: &[PodView],
    used: &BTreeMap<occupancy::ContainerOnGpu, ContainerUsage>,
    folders: &'a BTreeMap<Key, Folder>,
) -> Vec<ShareOf<'a>> {
    let mut shares = Vec::new();
    for view in pods {
        for container in view.containers.iter().filter(|container| container.grant.gpus.is_share()) {
            let name = &container.grant.container;
            let folder = folders.get(&Key { pod: view.pod.uid.clone(), container: name.clone() });
            for (device, share) in container.grant.gpus.amounts() {
                let place = (view.pod.reference.clone(), name.clone(), device.id.clone());
                let usage = used.get(&place).cloned();
                if usage.is_none() && folder.is_none() {
                    continue;
                }
                let (index, (pod, container, device)) = (device.index, place);
                shares.push(ShareOf {
                    subject: Subject { uid: view.pod.uid.clone(), pod, container, device, index },
                    memory: share.memory.bytes(),
                    ceiling: view.limit.unwrap_or(share.compute).max(share.compute),
                    folder,
                    usage: usage.unwrap_or_default(),
                });
            }
        }
    }
    shares
}

impl ShareOf<'_> {
    fn observation(self, found: &mut BTreeMap<PathBuf, Found>) -> Observation {
        let Self { subject, memory, ceiling, folder, usage } = self;
        let limiter = folder.filter(|folder| folder.limiter);
        let late = || Found { fault: Some("they could not be read in time".to_owned()), ..Found::default() };
        let found = limiter.map(|folder| found.remove(&folder.path).unwrap_or_else(late)).unwrap_or_default();
        let held = folder.is_some_and(|folder| folder.limiter || folder.level == Isolation::Mps);
        Observation {
            share: Some(memory),
            used: usage.memory,
            processes: usage.processes.iter().map(|(_, memory)| memory.unwrap_or_default()).collect(),
            unlimited: found.unlimited,
            hidden: found.hidden,
            fault: found.fault,
            ceiling: held.then(|| ceiling.to_core_units()),
            utilization: usage.utilization,
            ..Observation::new(subject)
        }
    }
}

/// Looks at the container's files, and at its processes on the GPU. A process is believed to have the limiter where the
/// limiter has registered it, which the container could have written itself, and the host finds the limiter's files
/// where the process would load them; and where the host can read what the process has loaded, if the library is part
/// of that.
fn look(folder: &Folder, sample: &Sample, pids: &[u32], own: &Mounts, proc_root: &Path) -> Found {
    let mut found = Found { fault: limiter::fault(folder), ..Found::default() };
    if pids.is_empty() {
        return found;
    }
    // a file that was just cut may have been read before
    let said = if found.fault.is_some() { said::now(folder).map(Arc::new) } else { said::after(sample, folder) };
    let known: BTreeSet<(u32, u32)> =
        said.iter().flat_map(|said| &said.processes).map(|process| (process.pid, process.start)).collect();
    for pid in pids {
        let process = proc_root.join(pid.to_string());
        let Some(identity) = identity(&process) else { continue };
        let in_place = in_place::look(folder, own, &process);
        let mapped = in_place.as_ref().and_then(|in_place| in_place.mapped);
        if !known.contains(&identity) || mapped == Some(false) {
            found.unlimited += 1;
        }
        found.hidden.extend(in_place.into_iter().flat_map(|in_place| in_place.hidden));
    }
    found
}

/// How the process with this directory appears in its own PID namespace: its pid there, and the low half of its start
/// time in ticks. `None` where it is gone.
pub(in crate::follow) fn identity(process: &Path) -> Option<(u32, u32)> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?;
    let start = Stat::of(process)?.start & u64::from(u32::MAX);
    Some((inner.parse().ok()?, u32::try_from(start).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_own_pid_and_start() {
        let proc = tempfile::tempdir().unwrap();
        let own = proc.path().join("4711");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("status"), "Name:\tx\nNSpid:\t4711\t7\n").unwrap();
        let fields: Vec<String> = (3..=52).map(|field| (field * 100).to_string()).collect();
        std::fs::write(own.join("stat"), format!("4711 (a) b) {}", fields.join(" "))).unwrap();
        assert_eq!(identity(&own), Some((7, 2200)));
        assert_eq!(identity(&proc.path().join("1")), None);
    }
}
