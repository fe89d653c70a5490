//! The record that gpu-admission wrote and gpu-manager reads: `<D>/predicate-gpu-idx-<i>` (card indices of
//! container `i` of `spec.containers`, joined by commas), `<D>/predicate-node`, `<D>/predicate-time`
//! (nanoseconds). Always written; read where `gpu-placement` is absent. It cannot hold init containers or numbers of
//! counted shares: for pods with either, this record alone is not accepted.

use std::collections::BTreeMap;

use super::keys::Keys;
use super::unreadable::{Unreadable, bounded};
use crate::ids::DeviceId;
use crate::plan::{DeviceRef, Grant, Placement, Plan};
use crate::request::{ContainerKind, ContainerRequest, GpuRequest};
use crate::units::Mib;

/// Without `gpu-assigned`.
pub fn encode(placement: &Placement, keys: &Keys) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([
        (keys.predicate_node.clone(), placement.node.to_string()),
        (keys.predicate_time.clone(), placement.time.to_string()),
    ]);
    for grant in placement.plan.grants.iter().filter(|grant| grant.kind == ContainerKind::App) {
        let indices: Vec<String> = grant.gpus.devices().map(|device| device.index.to_string()).collect();
        annotations.insert(format!("{}{}", keys.predicate_gpu_idx, grant.position), indices.join(","));
    }
    annotations
}

/// Reads the record as a plan for `request`, with cards named by index ([`DeviceId::of_index`]).
/// `Ok(None)` where no container has one.
///
/// # Errors
/// [`Unreadable::Indices`] where a container that needs cards has no readable list of that many indices.
pub fn decode(
    annotations: &BTreeMap<String, String>,
    keys: &Keys,
    request: &GpuRequest,
) -> Result<Option<Placement>, Unreadable> {
    let prefix = keys.predicate_gpu_idx.as_str();
    let any = annotations.range(prefix.to_owned()..).next().is_some_and(|(key, _)| key.starts_with(prefix));
    if !any {
        return Ok(None);
    }
    let grants = request
        .containers
        .iter()
        .map(|container| {
            let text = match container.kind {
                ContainerKind::App => annotations.get(&format!("{prefix}{}", container.position)),
                ContainerKind::Init | ContainerKind::Sidecar => None,
            };
            let gpus = grant(container, bounded(text.ok_or(Unreadable::Indices)?)?)?;
            Ok(container.granted(gpus))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let text = |key: &str| annotations.get(key).map(String::as_str).unwrap_or_default();
    Ok(Some(Placement {
        node: text(&keys.predicate_node).into(),
        time: text(&keys.predicate_time).parse().unwrap_or_default(),
        limit: request.limit,
        plan: Plan { grants },
    }))
}

fn grant(container: &ContainerRequest, text: &str) -> Result<Grant, Unreadable> {
    let device = |index: &str| {
        let index: u32 = index.parse().map_err(|_| Unreadable::Indices)?;
        // this record does not say how much memory the device has; the ledger counts all of it
        Ok((DeviceRef { id: DeviceId::of_index(index), index }, Mib(0)))
    };
    let devices = text.split(',').map(device).collect::<Result<Vec<_>, _>>()?;
    Grant::of(&container.ask, devices).ok_or(Unreadable::Indices)
}
