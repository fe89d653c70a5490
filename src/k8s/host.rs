//! CPU and memory of nodes, and what pods take of them: kube-scheduler counts these, and policies look at them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::annotation::Keys;
use crate::placement::shape::HostAmount;
use crate::request::ContainerKind;
use crate::tally::{Amount, Tally};
use crate::units::{Mib, parse_thousandths};

type Amounts = BTreeMap<String, Quantity>;

/// `status.allocatable`; `None` where it lacks CPU or memory.
pub fn allocatable(node: &Node) -> Option<HostAmount> {
    let amounts = node.status.as_ref()?.allocatable.as_ref()?;
    Some(HostAmount {
        cpu: amount(amounts, "cpu")?,
        memory: Mib((amount(amounts, "memory")? / 1000) >> 20),
        pods: amount(amounts, "pods").map_or(u64::MAX, |pods| pods / 1000),
    })
}

/// What kube-scheduler counts for a pod: the larger of what its long-running containers request together and what
/// each init container requests beside the sidecars before it, or in its place what the pod as a whole requests of a
/// resource; and the pod's overhead.
pub fn requested(pod: &Pod) -> HostAmount {
    let Some(spec) = &pod.spec else { return HostAmount { pods: 1, ..HostAmount::default() } };
    let add = |tally: Tally<HostAmount>, (kind, container)| tally.with(kind, of(container));
    let mut total = kinds(spec).fold(Tally::default(), add).peak();
    if let Some(whole) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        let own = amounts(whole);
        total.cpu = if whole.contains_key("cpu") { own.cpu } else { total.cpu };
        total.memory = if whole.contains_key("memory") { own.memory } else { total.memory };
    }
    let overhead = spec.overhead.as_ref().map(amounts).unwrap_or_default();
    HostAmount { pods: 1, ..total.plus(overhead) }
}

/// A pod's containers in kubelet's order, with their kinds.
pub(super) fn kinds(spec: &PodSpec) -> impl Iterator<Item = (ContainerKind, &Container)> {
    let inits = spec.init_containers.iter().flatten().map(|container| {
        let restarts = container.restart_policy.as_deref() == Some("Always");
        (if restarts { ContainerKind::Sidecar } else { ContainerKind::Init }, container)
    });
    inits.chain(spec.containers.iter().map(|container| (ContainerKind::App, container)))
}

/// Whether the pod belongs to its node and no scheduler chose the node: a pod of a DaemonSet, or a static pod of
/// kubelet.
pub fn resident(pod: &Pod) -> bool {
    let owners = pod.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.controller == Some(true) && matches!(&*owner.kind, "DaemonSet" | "Node"))
}

fn of(container: &Container) -> HostAmount {
    container.resources.as_ref().and_then(|resources| resources.requests.as_ref()).map(amounts).unwrap_or_default()
}

fn amounts(requests: &Amounts) -> HostAmount {
    let bytes = amount(requests, "memory").unwrap_or_default().div_ceil(1000);
    HostAmount { cpu: amount(requests, "cpu").unwrap_or_default(), memory: Mib(bytes.div_ceil(1 << 20)), pods: 0 }
}

fn amount(amounts: &Amounts, name: &str) -> Option<u64> {
    parse_thousandths(&amounts.get(name)?.0)
}

/// Whether of all that other pods take, only CPU, memory and cards decide where the pod may be: it asks for no other
/// resource, no host port, no attached volume, and has no pod (anti-)affinity or topology spread.
pub fn asks_for_host_and_cards_alone(pod: &Pod, keys: &Keys) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let known = |name: &String| {
        let name = name.as_str();
        matches!(name, "cpu" | "memory")
            || name == keys.core
            || name == keys.memory
            || keys.share_resources.contains(name)
    };
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let plain = |container: &Container| {
        let resources = container.resources.as_ref();
        let amounts = resources.into_iter().flat_map(|of| of.limits.iter().chain(&of.requests).flatten());
        let ports = container.ports.iter().flatten();
        amounts.into_iter().all(|(name, _)| known(name)) && ports.into_iter().all(|port| port.host_port.is_none())
    };
    let beside = spec
        .affinity
        .as_ref()
        .is_some_and(|affinity| affinity.pod_affinity.is_some() || affinity.pod_anti_affinity.is_some());
    let attached = |volume: &Volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
    containers.all(plain)
        && !beside
        && !spec.host_network.unwrap_or_default()
        && spec.topology_spread_constraints.iter().flatten().next().is_none()
        && spec.resource_claims.iter().flatten().next().is_none()
        && !spec.volumes.iter().flatten().any(attached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of_spec(mut spec: Value, whole: Value) -> (u64, u64) {
        let container = |cpu: &str, memory: &str| json!({ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": memory } } });
        spec["containers"] = json!([container("1", "1Gi"), container("500m", "1Gi")]);
        spec["initContainers"] = json!([container("2", "256Mi")]);
        spec["resources"] = whole;
        let pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let amount = requested(&pod);
        (amount.cpu, amount.memory.0)
    }

    #[test]
    fn what_the_pod_requests_as_a_whole_stands_in_place_of_its_containers() {
        assert_eq!(of_spec(json!({}), Value::Null), (2000, 2048));
        assert_eq!(of_spec(json!({}), json!({ "limits": { "cpu": "8" } })), (2000, 2048));
        assert_eq!(of_spec(json!({}), json!({ "requests": { "cpu": "4" } })), (4000, 2048));
        assert_eq!(of_spec(json!({}), json!({ "requests": { "memory": "8Gi" } })), (2000, 8192));
        let overhead = json!({ "overhead": { "cpu": "250m" } });
        assert_eq!(of_spec(overhead, json!({ "requests": { "cpu": "3", "memory": "3Gi" } })), (3250, 3072));
    }
}
