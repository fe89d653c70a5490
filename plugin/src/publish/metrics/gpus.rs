//! One series for each GPU.

use std::collections::BTreeSet;

use kerf::device::Health;
use kerf::ids::{DeviceId, NodeName};
use kerf::units::Share;

use crate::device::backend::{HostDevice, Usage};
use crate::publish::metrics::gauge::{Family, float, gauge};

const LABELS: [&str; 4] = ["node", "gpu", "index", "model"];

/// `allocated` is in the order of the GPUs.
pub(super) fn gauges<'a>(
    cards: impl Iterator<Item = &'a HostDevice>,
    allocated: &[Share],
    cordoned: &BTreeSet<DeviceId>,
    usage: &Usage,
    node: &NodeName,
) -> prometheus::Result<Family> {
    let of = |name: &str, help: &str| gauge(&format!("kerf_plugin_gpu_{name}"), help, &LABELS);
    let healthy = of("healthy", "1 where the GPU is healthy.")?;
    let out = of("cordoned", "1 where the Node's annotation gpu-cordon names the GPU.")?;
    let total = of("memory_total_bytes", "All memory of the GPU.")?;
    let core = of("allocated_core_ratio", "Part of the GPU's compute that is allocated to pods.")?;
    let memory = of("allocated_memory_bytes", "Memory of the GPU that is allocated to pods.")?;
    let utilization = of("utilization_ratio", "Part of the time in which the GPU was busy.")?;
    let used = of("memory_used_bytes", "Memory of the GPU in use.")?;
    let temperature = of("temperature_celsius", "Temperature of the GPU.")?;
    let power = of("power_watts", "Power that the GPU draws.")?;
    for (host, share) in cards.zip(allocated) {
        let device = &host.device;
        let index = device.index.to_string();
        let labels = [node.as_str(), device.id.as_str(), &index, &device.model];
        healthy.with_label_values(&labels).set(f64::from(u8::from(device.health == Health::Healthy)));
        out.with_label_values(&labels).set(f64::from(u8::from(cordoned.contains(&device.id))));
        core.with_label_values(&labels).set(share.compute.ratio());
        memory.with_label_values(&labels).set(float(share.memory.bytes()));
        let now = usage.gpus.get(&device.id).copied().unwrap_or_default();
        let bytes = now.memory_total.unwrap_or_else(|| device.memory.bytes());
        total.with_label_values(&labels).set(float(bytes));
        if let Some(percent) = now.utilization {
            utilization.with_label_values(&labels).set(f64::from(percent) / 100.0);
        }
        if let Some(bytes) = now.memory_used {
            used.with_label_values(&labels).set(float(bytes));
        }
        if let Some(celsius) = now.temperature {
            temperature.with_label_values(&labels).set(f64::from(celsius));
        }
        if let Some(milliwatts) = now.power {
            power.with_label_values(&labels).set(f64::from(milliwatts) / 1000.0);
        }
    }
    Ok(vec![healthy, out, total, core, memory, utilization, used, temperature, power])
}
