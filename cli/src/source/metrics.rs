//! What a plugin's metrics say of its node's GPUs and their containers, in Prometheus' text format.

use std::collections::BTreeMap;

use crate::view::{ContainerUse, GpuUse, Usage};

/// Lines of one answer that are looked at: more than 64 GPUs with 1,000 containers have.
const MOST_LINES: usize = 100_000;

/// Adds what the plugin of a node says.
pub fn add(usage: &mut Usage, node: &str, text: &str) {
    for line in text.lines().take(MOST_LINES) {
        let Some((name, labels, value)) = series(line) else { continue };
        let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
        if let Some(change) = of_gpu(name) {
            change(usage.gpus.entry((node.to_owned(), label("gpu"))).or_default(), value);
        } else if let Some(change) = of_container(name) {
            let key = (label("namespace"), label("pod"), label("container"), label("gpu"));
            change(usage.containers.entry(key).or_default(), value);
        }
    }
}

fn of_gpu(name: &str) -> Option<fn(&mut GpuUse, f64)> {
    Some(match name.strip_prefix("kerf_plugin_gpu_")? {
        "utilization_ratio" => |own, value| own.compute = Some(thousandths(value)),
        "memory_used_bytes" => |own, value| own.memory_mib = Some(mib(value)),
        "temperature_celsius" => |own, value| own.temperature_celsius = Some(value),
        "power_watts" => |own, value| own.power_watts = Some(value),
        _ => return None,
    })
}

fn of_container(name: &str) -> Option<fn(&mut ContainerUse, f64)> {
    Some(match name.strip_prefix("kerf_plugin_container_")? {
        "utilization_ratio" => |own, value| own.compute = Some(thousandths(value)),
        "memory_used_bytes" => |own, value| own.memory_mib = Some(mib(value)),
        _ => return None,
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn thousandths(ratio: f64) -> u64 {
    (ratio * 1000.0).round() as u64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn mib(bytes: f64) -> u64 {
    (bytes / f64::from(1 << 20)).round() as u64
}

/// A line's name, labels and value; `None` for comments, and what is no series of kerf's plugin.
fn series(line: &str) -> Option<(&str, BTreeMap<&str, String>, f64)> {
    if !line.starts_with("kerf_plugin_gpu_") && !line.starts_with("kerf_plugin_container_") {
        return None;
    }
    let (name, rest) = line.split_once('{')?;
    let (mut labels, mut rest) = (BTreeMap::new(), rest);
    while !rest.starts_with('}') {
        let (key, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.insert(key, value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    let value = rest.strip_prefix('}')?.split_whitespace().next()?.parse::<f64>().ok()?;
    value.is_finite().then_some((name, labels, value))
}

/// A label's value up to its quotation mark, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            'n' if escaped => value.push('\n'),
            _ if escaped => value.push(c),
            '\\' => {}
            '"' => return Some((value, text.get(at + 1..)?)),
            _ => value.push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP kerf_plugin_gpu_utilization_ratio Part of the time in which the GPU was busy.
kerf_plugin_gpu_utilization_ratio{gpu="GPU-0",index="0",model="a \"b\", {c}\\ d"} 0.42
kerf_plugin_gpu_memory_used_bytes{gpu="GPU-0",index="0",model="x"} 6.291456e+09
kerf_plugin_gpu_temperature_celsius{gpu="GPU-0",index="0",model="x"} 61
kerf_plugin_gpu_power_watts{gpu="GPU-0",index="0",model="x"} NaN
kerf_plugin_container_utilization_ratio{container="main",gpu="GPU-0",index="0",namespace="team",pod="p"} 0.1 1700000000000
kerf_plugin_container_memory_used_bytes{container="main",gpu="GPU-0",index="0",namespace="team",pod="p"} 1048576
kerf_plugin_container_memory_used_bytes{container="main",gpu="GPU-0
kerf_plugin_container_memory_used_bytes{} x
kerf_plugin_registrations_total{resource="core",outcome="ok"} 1
"#;

    #[test]
    fn series_of_gpus_and_containers_are_read() {
        let mut usage = Usage::default();
        add(&mut usage, "node-1", TEXT);
        let gpu = usage.gpus[&("node-1".to_owned(), "GPU-0".to_owned())];
        assert_eq!((gpu.compute, gpu.memory_mib), (Some(420), Some(6000)));
        assert_eq!((gpu.temperature_celsius, gpu.power_watts), (Some(61.0), None));
        let key = ["team", "p", "main", "GPU-0"].map(str::to_owned);
        let [namespace, pod, container, gpu] = key;
        let own = usage.containers[&(namespace, pod, container, gpu)];
        assert_eq!(own, ContainerUse { compute: Some(100), memory_mib: Some(1) });
        assert_eq!((usage.gpus.len(), usage.containers.len()), (1, 1));
    }

    #[test]
    fn escapes_are_read_as_they_are_written() {
        let (_, labels, _) = series(TEXT.lines().nth(1).unwrap()).unwrap();
        assert_eq!(labels["model"], r#"a "b", {c}\ d"#);
        assert_eq!(quoted(r#"a\nb" x"#), Some(("a\nb".to_owned(), " x")));
        assert_eq!(quoted("open"), None);
    }
}
