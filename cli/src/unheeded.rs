//! What a pod asks of kube-scheduler that `kerf plan` does not look at.

use k8s_openapi::api::core::v1::Pod;

/// The schedulers that call the extender: kerf's own, and the cluster's in the other ways to install it.
const CALLING: [&str; 3] = ["", "default-scheduler", "kerf-scheduler"];

/// Sentences about what is left out.
pub fn unheeded(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let affinity = spec.affinity.as_ref();
    let claims = spec.volumes.iter().flatten().any(|volume| volume.persistent_volume_claim.is_some());
    let ports = |container: &k8s_openapi::api::core::v1::Container| {
        container.ports.iter().flatten().any(|port| port.host_port.is_some())
    };
    let used = [
        ("spec.affinity.nodeAffinity", affinity.is_some_and(|own| own.node_affinity.is_some())),
        ("spec.affinity.podAffinity", affinity.is_some_and(|own| own.pod_affinity.is_some())),
        ("spec.affinity.podAntiAffinity", affinity.is_some_and(|own| own.pod_anti_affinity.is_some())),
        (
            "spec.topologySpreadConstraints",
            spec.topology_spread_constraints.as_ref().is_some_and(|own| !own.is_empty()),
        ),
        ("volume claims", claims),
        ("host ports", spec.containers.iter().any(ports)),
        ("spec.schedulingGates", spec.scheduling_gates.as_ref().is_some_and(|own| !own.is_empty())),
    ];
    let used: Vec<&str> = used.into_iter().filter(|(_, used)| *used).map(|(what, _)| what).collect();
    let mut said = Vec::new();
    if !used.is_empty() {
        said.push(format!("not looked at, but by kube-scheduler: {}", used.join(", ")));
    }
    let scheduler = spec.scheduler_name.as_deref().unwrap_or_default();
    if !CALLING.contains(&scheduler) {
        said.push(format!("spec.schedulerName is {scheduler}: this holds if that scheduler calls kerf's extender"));
    }
    // a pod of the cluster has it once it is bound
    if pod.metadata.uid.is_none() && spec.node_name.as_deref().is_some_and(|name| !name.is_empty()) {
        said.push("spec.nodeName is not looked at: a new pod that names its node is refused".to_owned());
    }
    said
}
