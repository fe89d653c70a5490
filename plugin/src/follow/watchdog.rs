//! Measures from the host what containers really use and what holds them, since nothing inside a container can be trusted.
//! It counts breaches as they begin, and tells the pod's owner by an event.
//!
//! [`observe`] and [`foreign`] say what is seen, [`judge`] which of it is a breach.

mod foreign;
mod judge;
pub(super) mod observe;

use std::collections::BTreeMap;
use std::path::PathBuf;

use kerf::ids::DeviceId;
use kerf::units::Mib;
use kerf_limiter_contract::state::Flags;
use tokio_util::sync::CancellationToken;

use crate::allocation::Key;
use crate::api::{About, Cluster, EventQueue, EventText};
use crate::base::cgroup;
use crate::base::counters::Counters;
use crate::follow::watchdog::foreign::Known;
use crate::follow::watchdog::judge::Watchdog;
use crate::follow::watchdog::observe::Observer;
use crate::isolation::folder::Folders;
use crate::state::State;
use crate::state::breach::{BreachKind, Observation, Subject};

/// At most so many events wait to be written again after the API server did not take them.
const PENDING: usize = 64;

/// How the watchdog looks.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory that a process may use beyond its container's share, since the driver takes it for itself.
    pub margin: Mib,
    /// The host's `/proc`.
    pub proc_root: PathBuf,
    /// Whether kerf places all GPUs of this node, so that a pod that asks for none has none.
    pub all_placed: bool,
}

/// Checks each measurement until the token is cancelled.
pub async fn follow(
    state: State,
    folders: Folders,
    cluster: Cluster,
    counters: Counters,
    options: Options,
    token: CancellationToken,
) {
    let Options { margin, proc_root, all_placed } = options;
    let mut samples = state.watch_samples();
    let mut watchdog = Watchdog::new(margin);
    let mut events = EventQueue::new(PENDING);
    // the daemons of the multi-process service are children of this process
    let own = cgroup::owner(&proc_root, std::process::id());
    let mut observer = Observer::new(folders, proc_root);
    // an alert needs the series before the first breach
    for kind in BreachKind::ALL {
        counters.breaches.with_label_values(&[kind.as_str()]);
    }
    while let Some(Ok(())) = token.run_until_cancelled(samples.changed()).await {
        let sample = samples.borrow_and_update().clone();
        if sample.usage.gpus.is_empty() {
            // the driver does not answer: an empty measurement means nothing
            continue;
        }
        let (pods, mut bystanders) =
            state.allocations(|allocations| (allocations.view(), allocations.bystanders()));
        bystanders.retain(|_| all_placed);
        let roster = state.roster();
        let indices: BTreeMap<DeviceId, u32> =
            roster.hosts().map(|host| (host.device.id.clone(), host.device.index)).collect();
        let known = Known { pods: &pods, bystanders: &bystanders, own: own.as_ref(), indices: &indices };
        let mut observations = known.foreign(&sample);
        observations.extend(observer.observe(&pods, &sample).await);
        state.set_limiter_flags(observations.iter().filter_map(flags).collect());
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

fn flags(observation: &Observation) -> Option<(Key, Flags)> {
    let Subject { uid, container, .. } = &observation.subject;
    Some((Key { pod: uid.clone(), container: container.clone() }, observation.flags?))
}
