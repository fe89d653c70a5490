//! Measures from the host what containers really use, since nothing inside a container can be trusted. It finds
//! containers that use more GPU memory than their share, and those with a process on a GPU that the limiter does
//! not know.
//!
//! [`Watchdog`] is pure; [`follow`] feeds it each measurement, counts breaches as they begin, and tells the pod's
//! owner by an event.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kerf::units::Mib;
use kerf_limiter_contract::process::Stat;
use kerf_limiter_contract::state::Snapshot;
use tokio_util::sync::CancellationToken;

use crate::allocation::Key;
use crate::allocation::view::PodView;
use crate::api::{About, Cluster, EventQueue, EventText};
use crate::base::counters::Counters;
use crate::isolation::folder::{Folder, Folders};
use crate::isolation::limiter;
use crate::state::State;
use crate::state::breach::{BreachKind, Breaches, Observation, Subject};
use crate::state::occupancy;
use crate::state::sample::Sample;

/// So many measurements in a row make a breach: processes and memory of a single measurement may be of different
/// moments.
const STREAK: u32 = 2;
/// At most so many events wait to be written again after the API server did not take them.
const PENDING: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub kind: BreachKind,
    pub observation: Observation,
}

impl Breach {
    /// For the pod's owner.
    pub fn message(&self) -> String {
        let Observation { subject, share, used, unlimited, .. } = &self.observation;
        let (container, gpu) = (&subject.container, &subject.device);
        match self.kind {
            BreachKind::Memory => format!(
                "container {container:?} uses {} MiB of GPU {gpu}; its share is {} MiB",
                used >> 20,
                share >> 20
            ),
            BreachKind::Unlimited => format!(
                "{unlimited} of the processes of container {container:?} on GPU {gpu} run without kerf's limiter: is the \
                 program static, or not built for glibc?"
            ),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Watchdog {
    margin: u64,
    streaks: BTreeMap<(Subject, BreachKind), u32>,
}

impl Watchdog {
    /// `margin`: memory that each process may use beyond the container's share, since the driver takes it for
    /// itself.
    pub fn new(margin: Mib) -> Self {
        Self { margin: margin.bytes(), streaks: BTreeMap::new() }
    }

    /// Takes a measurement. Returns the breaches that begin with it, and all that go on.
    pub fn look(&mut self, observations: &[Observation]) -> (Vec<Breach>, Breaches) {
        let mut streaks = BTreeMap::new();
        let (mut begun, mut all) = (Vec::new(), Breaches::new());
        for observation in observations {
            let allowed =
                self.margin.saturating_mul(observation.processes as u64).saturating_add(observation.share);
            let memory = (observation.used > allowed).then_some(BreachKind::Memory);
            let unlimited = (observation.unlimited > 0).then_some(BreachKind::Unlimited);
            for kind in [memory, unlimited].into_iter().flatten() {
                let key = (observation.subject.clone(), kind);
                let streak = self.streaks.get(&key).copied().unwrap_or(0).saturating_add(1);
                if streak == STREAK {
                    begun.push(Breach { kind, observation: observation.clone() });
                }
                if streak >= STREAK {
                    all.insert(key.clone(), observation.clone());
                }
                streaks.insert(key, streak);
            }
        }
        self.streaks = streaks;
        (begun, all)
    }
}

/// Every container with a share that has processes on its GPU.
pub fn observe(pods: &[PodView], sample: &Sample, folders: &Folders, proc_root: &Path) -> Vec<Observation> {
    let used = occupancy::used(pods, sample);
    let folders = folders.of(pods.iter().flat_map(PodView::holders));
    let mut observations = Vec::new();
    for view in pods {
        for container in view.containers.iter().filter(|container| container.grant.gpus.is_share()) {
            let key = Key { pod: view.pod.uid.clone(), container: container.grant.container.clone() };
            let folder = folders.get(&key);
            for (device, share) in container.grant.gpus.amounts() {
                let place = (view.pod.reference.clone(), container.grant.container.clone(), device.id.clone());
                let Some(now) = used.get(&place) else { continue };
                let (index, (pod, container, device)) = (device.index, place);
                observations.push(Observation {
                    subject: Subject { uid: view.pod.uid.clone(), pod, container, device, index },
                    share: share.memory.bytes(),
                    used: now.memory,
                    processes: now.processes.len(),
                    unlimited: folder.map_or(0, |folder| unlimited(folder, &now.processes, proc_root)),
                });
            }
        }
    }
    observations
}

/// How many of these processes the container's limiter does not know. All, where the limiter's file cannot be read.
fn unlimited(folder: &Folder, processes: &[(u32, Option<u64>)], proc_root: &Path) -> usize {
    if !folder.limiter {
        return 0;
    }
    let known = limiter::snapshot(folder).inspect_err(|error| {
        tracing::debug!(folder = %folder.run.display(), %error, "the limiter's state cannot be read");
    });
    let known = known.unwrap_or_default();
    processes.iter().filter_map(|(pid, _)| identity(proc_root, *pid)).filter(|own| !knows(&known, *own)).count()
}

fn knows(snapshot: &Snapshot, (pid, start): (u32, u32)) -> bool {
    snapshot.processes.iter().any(|process| (process.pid, process.start) == (pid, start))
}

/// How a process appears in its own PID namespace: its pid there, and the low half of its start time in ticks.
/// `None` where it is gone.
pub(super) fn identity(proc_root: &Path, pid: u32) -> Option<(u32, u32)> {
    let own = proc_root.join(pid.to_string());
    let status = std::fs::read_to_string(own.join("status")).ok()?;
    let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?;
    let start = Stat::of(&own)?.start & u64::from(u32::MAX);
    Some((inner.parse().ok()?, u32::try_from(start).ok()?))
}

/// Checks each measurement until the token is cancelled.
pub async fn follow(
    state: State,
    folders: Folders,
    cluster: Cluster,
    counters: Counters,
    margin: Mib,
    proc_root: PathBuf,
    token: CancellationToken,
) {
    let mut samples = state.watch_samples();
    let mut watchdog = Watchdog::new(margin);
    let mut events = EventQueue::new(PENDING);
    while let Some(Ok(())) = token.run_until_cancelled(samples.changed()).await {
        let sample = samples.borrow_and_update().clone();
        if sample.usage.gpus.is_empty() {
            // the driver does not answer: an empty measurement means nothing
            continue;
        }
        let pods = state.allocations(|allocations| allocations.view());
        let (folders, proc_root) = (folders.clone(), proc_root.clone());
        let observed = tokio::task::spawn_blocking(move || observe(&pods, &sample, &folders, &proc_root));
        let Ok(observations) = observed.await else { continue };
        let (begun, all) = watchdog.look(&observations);
        state.set_breaches(all);
        for breach in begun {
            let (reason, message) = (breach.kind.reason(), breach.message());
            let Subject { pod, uid, .. } = breach.observation.subject;
            counters.breaches.with_label_values(&[breach.kind.as_str()]).inc();
            tracing::warn!(%pod, %uid, message, "breach");
            events.push(About::Pod(pod, uid), EventText::warning(reason, message));
        }
        if let Err(error) = events.send(&cluster).await {
            cluster.failed("event");
            tracing::warn!(%error, "event not written; trying again");
        }
    }
}

#[cfg(test)]
mod tests {
    use kerf::ids::PodRef;

    use super::*;

    fn observation(used: u64, processes: usize, unlimited: usize) -> Observation {
        let subject = Subject {
            uid: "u".into(),
            pod: PodRef::new("ns", "p"),
            container: "main".into(),
            device: "GPU-0".into(),
            index: 0,
        };
        Observation { subject, share: 100 << 20, used: used << 20, processes, unlimited }
    }

    #[test]
    fn a_breach_is_two_measurements_in_a_row_and_begins_once() {
        let mut watchdog = Watchdog::new(Mib(10));
        let mut look = |used| watchdog.look(&[observation(used, 2, 0)]);
        assert_eq!(look(121), (vec![], Breaches::new()));
        assert_eq!(look(120), (vec![], Breaches::new()));
        look(121);
        let (begun, all) = look(130);
        assert_eq!((begun.len(), all.len()), (1, 1));
        assert_eq!(begun[0].message(), r#"container "main" uses 130 MiB of GPU GPU-0; its share is 100 MiB"#);
        let (begun, all) = look(140);
        assert_eq!((begun.len(), all.len()), (0, 1));
        look(0);
        look(121);
        assert_eq!(look(121).0.len(), 1);
    }

    #[test]
    fn a_process_without_the_limiter_is_another_breach() {
        let mut watchdog = Watchdog::new(Mib(0));
        watchdog.look(&[observation(101, 1, 1)]);
        let (begun, _) = watchdog.look(&[observation(101, 1, 1)]);
        let kinds: Vec<BreachKind> = begun.iter().map(|breach| breach.kind).collect();
        assert_eq!(kinds, [BreachKind::Memory, BreachKind::Unlimited]);
        // a container that has no process on the GPU any more is not observed at all
        assert_eq!(watchdog.look(&[]), (vec![], Breaches::new()));
    }

    #[test]
    fn a_process_is_known_by_its_own_pid_and_start() {
        let proc = tempfile::tempdir().unwrap();
        let own = proc.path().join("4711");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("status"), "Name:\tx\nNSpid:\t4711\t7\n").unwrap();
        let fields: Vec<String> = (3..=52).map(|field| (field * 100).to_string()).collect();
        std::fs::write(own.join("stat"), format!("4711 (a) b) {}", fields.join(" "))).unwrap();
        assert_eq!(identity(proc.path(), 4711), Some((7, 2200)));
        assert_eq!(identity(proc.path(), 1), None);
    }
}
