//! What each container uses on each GPU: the last measurement, by container. Pure.

use std::collections::BTreeMap;

use kerf::ids::{ContainerName, DeviceId, PodRef};

use crate::allocation::view::PodView;
use crate::state::sample::Sample;

/// What all processes of one container together use on one GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// GPU memory in bytes.
    pub memory: u64,
    /// Compute, in percent of the GPU.
    pub utilization: u32,
    /// Pids in the host's PID namespace, and the GPU memory of each in bytes, where the driver tells.
    pub processes: Vec<(u32, Option<u64>)>,
}

/// A container on a GPU.
pub type ContainerOnGpu = (PodRef, ContainerName, DeviceId);

pub fn used(pods: &[PodView], sample: &Sample) -> BTreeMap<ContainerOnGpu, ContainerUsage> {
    let mut names = BTreeMap::new();
    for pod in pods {
        for (id, container) in &pod.pod.runtime_ids {
            names.insert(id.as_str(), (&pod.pod.reference, container));
        }
    }
    let mut used: BTreeMap<_, ContainerUsage> = BTreeMap::new();
    for (process, owner) in sample.usage.processes.iter().zip(&sample.owners) {
        let by_group = || {
            let (pod, container) = names.get(owner.as_ref()?.container.as_str())?;
            Some(((*pod).clone(), (*container).clone()))
        };
        let Some((pod, container)) = process.owner.clone().or_else(by_group) else { continue };
        let entry = used.entry((pod, container, process.device.clone())).or_default();
        entry.memory = entry.memory.saturating_add(process.memory.unwrap_or_default());
        entry.utilization = entry.utilization.saturating_add(process.utilization.unwrap_or_default());
        entry.processes.push((process.pid, process.memory));
    }
    used
}
