//! Pods that may be kerf's plugins, which say what GPUs and containers use.

use k8s_openapi::api::core::v1::Pod;
use kerf::k8s;

/// The name of the plugin's port for metrics.
const PORT: &str = "metrics";

/// A pod of a DaemonSet that serves metrics. Whether it is kerf's, its namespace says: only an administrator runs pods
/// there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    pub namespace: String,
    pub name: String,
    pub node: String,
    pub port: i32,
}

impl Plugin {
    /// `None` for other pods, and for those that do not run.
    pub fn of(pod: &Pod) -> Option<Self> {
        let (spec, metadata) = (pod.spec.as_ref()?, &pod.metadata);
        let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        if !runs || !k8s::resident(pod) {
            return None;
        }
        let mut ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
        let port = ports.find(|port| port.name.as_deref() == Some(PORT))?;
        Some(Self {
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
            node: spec.node_name.clone()?,
            port: port.container_port,
        })
    }
}
