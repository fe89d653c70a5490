//! What GPUs and containers use, as the plugins of the nodes measure it.

use std::collections::BTreeMap;

use serde::Serialize;

/// What is measured of one GPU. A field is null where the driver does not report it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct GpuUse {
    /// Thousandths of the time in which the GPU was busy.
    pub compute: Option<u64>,
    pub memory_mib: Option<u64>,
    pub temperature_celsius: Option<f64>,
    pub power_watts: Option<f64>,
}

/// What a container uses of one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ContainerUse {
    /// In thousandths of the GPU.
    pub compute: Option<u64>,
    pub memory_mib: Option<u64>,
}

/// A node whose GPUs are not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unmeasured {
    pub node: String,
    /// A sentence without a full stop.
    pub why: String,
}

/// What was measured, and of which nodes nothing was.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// By node and the GPU's UUID.
    pub gpus: BTreeMap<(String, String), GpuUse>,
    /// By namespace, pod, container and the GPU's UUID.
    pub containers: BTreeMap<(String, String, String, String), ContainerUse>,
    /// By node.
    pub unknown: BTreeMap<String, String>,
    /// For every other node without a GPU that is measured.
    pub reason: String,
}

impl Usage {
    /// Nothing is known, for this reason.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }

    pub(super) fn gpu(&self, node: &str, uuid: &str) -> Option<GpuUse> {
        self.gpus.get(&(node.to_owned(), uuid.to_owned())).copied()
    }

    pub(super) fn container(&self, pod: (&str, &str), container: &str, uuid: &str) -> Option<ContainerUse> {
        if self.containers.is_empty() {
            return None;
        }
        let (namespace, pod) = pod;
        self.containers.get(&(namespace.to_owned(), pod.to_owned(), container.to_owned(), uuid.to_owned())).copied()
    }

    pub(super) fn unmeasured<'a>(&self, nodes: impl Iterator<Item = &'a str>) -> Vec<Unmeasured> {
        let measured = |node: &str| {
            let first = self.gpus.range((node.to_owned(), String::new())..).next();
            first.is_some_and(|((own, _), _)| own == node)
        };
        let why = |node: &str| self.unknown.get(node).unwrap_or(&self.reason).clone();
        nodes
            .filter(|node| !measured(node))
            .map(|node| Unmeasured { node: node.to_owned(), why: why(node) })
            .collect()
    }
}
