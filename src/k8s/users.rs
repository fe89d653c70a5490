//! The users that a pod's containers run as.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::ids::ContainerName;
use crate::request::{Ask, GpuRequest};

/// `securityContext.runAsUser` of each container, or else of the pod, where set. The user of an image is not known.
pub fn users(pod: &Pod) -> BTreeMap<ContainerName, u32> {
    let Some(spec) = &pod.spec else { return BTreeMap::new() };
    let pods = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let users = containers.filter_map(|container| {
        let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
        Some((container.name.as_str().into(), u32::try_from(own.or(pods)?).ok()?))
    });
    users.collect()
}

/// The request of a pod that waits for a node, with the isolation that its shares need there, given the users they run
/// as. The request of a bound pod stays as it was written.
pub(super) fn demanding(request: GpuRequest, pod: &Pod) -> GpuRequest {
    let waits = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref().unwrap_or_default().is_empty());
    let Some(demanded) = request.isolation.filter(|_| waits) else { return request };
    let users = users(pod);
    let shares = request.containers.iter().filter(|container| matches!(container.ask, Ask::Share(_)));
    let needed = shares.map(|container| demanded.needed_by(users.get(&container.name).copied())).max();
    GpuRequest { isolation: Some(needed.unwrap_or(demanded)), ..request }
}
