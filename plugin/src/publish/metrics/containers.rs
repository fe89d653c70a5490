//! One series for each container and GPU, and the same under gpu-manager's four names.

use kerf::ids::NodeName;
use kerf::plan::Grant;
use kerf::units::Mib;
use prometheus::GaugeVec;

use crate::allocation::view::PodView;
use crate::publish::metrics::gauge::{Family, float, gauge};
use crate::state::breach::{Breaches, LimiterFlags};
use crate::state::occupancy::{self, ContainerUsage};
use crate::state::sample::Sample;

const LABELS: [&str; 6] = ["node", "namespace", "pod", "container", "gpu", "index"];
/// gpu-manager's labels, without the one that differs from metric to metric.
const OLD_LABELS: [&str; 4] = ["pod_name", "namespace", "node", "container_name"];

pub(super) fn gauges(pods: &[PodView], sample: &Sample, node: &NodeName) -> prometheus::Result<Family> {
    let of = |name: &str, help: &str| gauge(&format!("kerf_plugin_container_{name}"), help, &LABELS);
    let old = |name: &str, help: &str, last: &str| {
        let labels: Vec<&str> = OLD_LABELS.into_iter().chain([last]).collect();
        gauge(name, help, &labels)
    };
    let core = of("core_granted_ratio", "Part of the GPU's compute that is allocated to the container.")?;
    let limit = of("core_limit_ratio", "Part of the GPU's compute that the container may use at most.")?;
    let memory = of("memory_granted_bytes", "Memory of the GPU that is allocated to the container.")?;
    let busy = of("utilization_ratio", "Part of the GPU's compute that the container uses.")?;
    let bytes = of("memory_used_bytes", "Memory of the GPU that the container uses.")?;
    let isolation = gauge(
        "kerf_plugin_container_isolation",
        "1 for the isolation that enforces the container's share of the GPU.",
        &[&LABELS[..], &["isolation"]].concat(),
    )?;
    let old_busy = old("container_gpu_utilization", "gpu-manager's name: percent of a GPU in use.", "gpu")?;
    let old_bytes = old("container_gpu_memory_total", "gpu-manager's name: MiB in use.", "gpu_memory")?;
    let old_core = old("container_request_gpu_utilization", "gpu-manager's name: GPUs requested.", "req_of_gpu")?;
    let old_memory =
        old("container_request_gpu_memory", "gpu-manager's name: MiB requested.", "req_of_gpu_memory")?;
    let used = occupancy::used(pods, sample);
    for view in pods {
        let reference = &view.pod.reference;
        for container in view.containers.iter().filter(|container| container.held()) {
            let grant = &container.grant;
            let name = grant.container.as_str();
            let old_labels = [&*reference.name, &*reference.namespace, node.as_str(), name];
            let old_with =
                |last: &str| old_labels.map(str::to_owned).into_iter().chain([last.to_owned()]).collect::<Vec<_>>();
            let (mut sum, mut cards, mut mib) = (ContainerUsage::default(), 0.0, 0);
            for (device, share) in grant.gpus.amounts() {
                let index = device.index.to_string();
                let labels =
                    [node.as_str(), &*reference.namespace, &*reference.name, name, device.id.as_str(), &index];
                let ceiling = view.limit.filter(|_| grant.gpus.is_share()).unwrap_or(share.compute);
                core.with_label_values(&labels).set(share.compute.ratio());
                // shares by count have no limit, and no part of the memory
                if !matches!(grant.gpus, Grant::Counted { .. }) {
                    limit.with_label_values(&labels).set(ceiling.ratio());
                    memory.with_label_values(&labels).set(float(share.memory.bytes()));
                }
                if let Some(level) = container.level {
                    let labels = [&labels[..], &[level.as_str()]].concat();
                    isolation.with_label_values(&labels).set(1.0);
                }
                let key = (reference.clone(), grant.container.clone(), device.id.clone());
                let now = used.get(&key).cloned().unwrap_or_default();
                busy.with_label_values(&labels).set(f64::from(now.utilization) / 100.0);
                bytes.with_label_values(&labels).set(float(now.memory));
                let card = old_with(&format!("gpu{index}"));
                old_busy.with_label_values(&card).set(f64::from(now.utilization));
                old_bytes.with_label_values(&card).set(float(now.memory / Mib(1).bytes()));
                sum.utilization = sum.utilization.saturating_add(now.utilization);
                sum.memory = sum.memory.saturating_add(now.memory);
                cards += share.compute.ratio();
                mib += share.memory.0;
            }
            let total = old_with("total");
            old_busy.with_label_values(&total).set(f64::from(sum.utilization));
            old_bytes.with_label_values(&total).set(float(sum.memory / Mib(1).bytes()));
            old_core.with_label_values(&total).set(cards);
            old_memory.with_label_values(&total).set(float(mib));
        }
    }
    Ok(vec![core, limit, memory, busy, bytes, isolation, old_busy, old_bytes, old_core, old_memory])
}

/// Containers that break their limits now.
pub(super) fn breaches(breaches: &Breaches, node: &NodeName) -> prometheus::Result<GaugeVec> {
    let labels = [&LABELS[..], &["kind"]].concat();
    let gauge = gauge("kerf_plugin_container_breach", "1 while the container breaks its limits.", &labels)?;
    for (subject, kind) in breaches.keys() {
        let index = subject.index.to_string();
        let (namespace, pod, container) = (&*subject.pod.namespace, &*subject.pod.name, subject.container.as_str());
        let labels = [node.as_str(), namespace, pod, container, subject.device.as_str(), &index, kind.as_str()];
        gauge.with_label_values(&labels).set(1.0);
    }
    Ok(gauge)
}

/// Only flags with a name, so a container cannot make more series than there are names.
pub(super) fn flags(pods: &[PodView], flags: &LimiterFlags, node: &NodeName) -> prometheus::Result<GaugeVec> {
    let gauge = gauge(
        "kerf_plugin_container_limiter_flag",
        "1 where the limiter in the container says that it found this problem; the container can write that itself.",
        &["node", "namespace", "pod", "container", "flag"],
    )?;
    for view in pods {
        let reference = &view.pod.reference;
        for container in view.containers.iter().filter(|container| container.held()) {
            let names = flags.get(&view.key(container)).into_iter().flat_map(|flags| flags.names());
            for name in names {
                let (namespace, pod) = (&*reference.namespace, &*reference.name);
                let labels = [node.as_str(), namespace, pod, container.grant.container.as_str(), name];
                gauge.with_label_values(&labels).set(1.0);
            }
        }
    }
    Ok(gauge)
}
