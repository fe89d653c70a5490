//! What the driver takes of a GPU for each process beyond what the process asked for: contexts, code, graphs. NVML shows
//! what a process has, and its limiter what it asked for; the limiter counts the difference
//! ([`kerf_limiter_contract::overhead`]) instead of its estimate.
//!
//! [`Overheads`] is pure; [`follow`] feeds it each measurement.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kerf_limiter_contract::state::{self, ProcessSnapshot};
use tokio_util::sync::CancellationToken;

use crate::allocation::view::PodView;
use crate::follow::said;
use crate::follow::watchdog::observe::identity;
use crate::isolation::folder::{Folder, Folders};
use crate::isolation::limiter;
use crate::state::State;
use crate::state::occupancy;
use crate::state::sample::Sample;

/// A process with a limiter: the container's directory, and its entry there.
type Place = (PathBuf, usize);

/// What is known of the processes from the last measurement.
#[derive(Clone, Debug, Default)]
pub struct Overheads {
    last: BTreeMap<Place, Known>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    owner: u64,
    changes: u64,
    /// What its limiter was told.
    told: Option<i64>,
}

/// A process in one measurement.
#[derive(Clone, Debug)]
pub struct Observed {
    pub place: Place,
    pub process: ProcessSnapshot,
    /// As NVML shows it, in bytes.
    pub used: u64,
}

impl Overheads {
    /// Takes a measurement; returns, by position in it, the differences that limiters are to be told.
    ///
    /// The driver was asked a moment before the limiters' files were read. So a process counts only if it held the same
    /// all the time since the measurement before, and if it has opened no memory of another process: whom NVML shows that
    /// for is not known. Less than the process itself holds, such as managed memory that is on the host, says nothing.
    pub fn look(&mut self, observed: &[Observed]) -> Vec<(usize, i64)> {
        let mut next = BTreeMap::new();
        let mut tell = Vec::new();
        for (position, Observed { place, process, used }) in observed.iter().enumerate() {
            // a share is of one GPU, so of the first
            let first = |of: &[u64]| of.first().copied().unwrap_or(0);
            let (held, context, changes) = (first(&process.held), first(&process.context), first(&process.changes));
            let before = self.last.get(place).filter(|known| known.owner == process.owner);
            let quiet = before.is_some_and(|known| known.changes == changes);
            let mut told = before.and_then(|known| known.told);
            if quiet && !process.opened && *used >= held.saturating_sub(context) {
                let difference = i64::try_from(i128::from(*used) - i128::from(held)).unwrap_or(0);
                if told != Some(difference) {
                    told = Some(difference);
                    tell.push((position, difference));
                }
            }
            next.insert(place.clone(), Known { owner: process.owner, changes, told });
        }
        self.last = next;
        tell
    }
}

/// Every process that NVML sees on the GPU of a share and that a limiter knows.
fn observe(pods: &[PodView], sample: &Sample, folders: &Folders, proc_root: &Path) -> Vec<(Folder, Observed)> {
    let used = occupancy::used(pods, sample);
    let folders = folders.of(pods.iter().flat_map(PodView::holders));
    let mut observed = Vec::new();
    for view in pods {
        for holder in view.holders().filter(|holder| holder.grant.gpus.is_share()) {
            // the first version's limiter does not ask
            let folder = folders.get(&holder.key()).filter(|f| f.limiter && f.layout != state::FIRST_VERSION);
            let (Some(folder), Some(device)) = (folder, holder.grant.gpus.ids().next()) else { continue };
            let place = (view.pod.reference.clone(), holder.grant.container.clone(), device.clone());
            let Some(now) = used.get(&place) else { continue };
            let Some(snapshot) = said::after(sample, folder) else { continue };
            for (pid, memory) in &now.processes {
                let (Some(own), Some(used)) = (identity(&proc_root.join(pid.to_string())), *memory) else {
                    continue;
                };
                let process = snapshot.processes.iter().find(|process| (process.pid, process.start) == own);
                let Some(process) = process.cloned() else { continue };
                let place = (folder.path.clone(), process.slot);
                observed.push((folder.clone(), Observed { place, process, used }));
            }
        }
    }
    observed
}

/// Tells limiters after each measurement, until the token is cancelled.
pub async fn follow(state: State, folders: Folders, proc_root: PathBuf, token: CancellationToken) {
    let mut samples = state.watch_samples();
    let mut overheads = Overheads::default();
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            changed = samples.changed() => if changed.is_err() { return },
        }
        let sample = samples.borrow_and_update().clone();
        let pods = state.allocations(|allocations| allocations.view());
        let (folders, proc_root, mut known) = (folders.clone(), proc_root.clone(), overheads.clone());
        let told = tokio::task::spawn_blocking(move || {
            let (of, observed): (Vec<_>, Vec<_>) =
                observe(&pods, &sample, &folders, &proc_root).into_iter().unzip();
            for (position, difference) in known.look(&observed) {
                let (Some(folder), Some(observed)) = (of.get(position), observed.get(position)) else { continue };
                if let Err(error) = limiter::measured(folder, &observed.process, difference) {
                    tracing::debug!(%error, "the driver's own memory not told");
                }
            }
            known
        });
        overheads = told.await.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(owner: u64, held: u64, changes: u64, used: u64) -> Observed {
        let process = ProcessSnapshot {
            slot: 3,
            owner,
            pid: 7,
            start: 1,
            seen: 0,
            held: vec![held],
            context: vec![400],
            changes: vec![changes],
            opened: false,
        };
        Observed { place: (PathBuf::from("/a"), 3), process, used }
    }

    #[test]
    fn what_a_process_has_beyond_what_it_asked_for_is_told_when_it_changes() {
        let mut overheads = Overheads::default();
        let mut look = |held, changes, used| overheads.look(&[observed(1, held, changes, used)]);
        assert_eq!(look(1400, 1, 1650), [], "whether it held that when the driver was asked is not known");
        assert_eq!(look(1400, 1, 1650), [(0, 250)]);
        assert_eq!(look(1400, 1, 1650), [], "told");
        assert_eq!(look(1400, 1, 1300), [(0, -100)]);
        // it frees and allocates all the time
        assert_eq!(look(1400, 3, 9000), []);
        assert_eq!(look(2400, 4, 9000), []);
        assert_eq!(look(2400, 4, 2500), [(0, 100)]);
        // managed memory that is not on the GPU
        assert_eq!(look(2400, 4, 1999), []);
        assert_eq!(look(2400, 4, 2000), [(0, -400)]);
    }

    #[test]
    fn another_process_in_the_same_place_begins_anew() {
        let mut overheads = Overheads::default();
        overheads.look(&[observed(1, 400, 1, 600)]);
        assert_eq!(overheads.look(&[observed(2, 400, 1, 700)]), []);
        assert_eq!(overheads.look(&[observed(2, 400, 1, 700)]), [(0, 300)]);
        let shares = |mut one: Observed| {
            one.process.opened = true;
            [one]
        };
        assert_eq!(overheads.look(&shares(observed(2, 400, 1, 900))), []);
    }
}
