//! `/debug/state`: everything the plugin believes, as JSON.

use serde_json::{Value, json};

use crate::allocation::view::{ContainerView, PodView};
use crate::state::State;

/// The state now.
pub fn state(state: &State) -> Value {
    let cards = state.roster();
    let (pods, allocated) = state.allocations(|allocations| {
        let allocated: Vec<_> = cards.hosts().map(|host| allocations.allocated(&host.device.id)).collect();
        (allocations.view(), allocated)
    });
    let devices: Vec<Value> = cards
        .hosts()
        .zip(allocated)
        .map(|(host, share)| {
            let device = &host.device;
            json!({
                "uuid": device.id, "index": device.index, "model": device.model, "pci": host.pci,
                "memory_mib": device.memory, "numa": device.numa, "health": device.health.as_str(), "isolation": device.isolation.as_str(),
                "allocated": share, "offers": device.offers,
                "nodes": host.nodes.iter().chain(&host.control_nodes).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "devices": devices, "pods": pods.iter().map(pod).collect::<Vec<_>>() })
}

fn pod(view: &PodView) -> Value {
    json!({
        "namespace": view.pod.reference.namespace, "name": view.pod.reference.name, "uid": view.pod.uid,
        "placed": !view.containers.is_empty(), "recorded": view.pod.record.is_some(),
        "assigned": view.pod.confirmed, "exchanged": view.exchanged, "limit": view.limit,
        "containers": view.containers.iter().map(container).collect::<Vec<_>>(),
    })
}

fn container(view: &ContainerView) -> Value {
    let slices: Vec<Value> = view
        .grant
        .slices
        .iter()
        .map(|slice| {
            json!({ "gpu": slice.device, "index": slice.index, "share": slice.share, "count": slice.count })
        })
        .collect();
    json!({
        "name": view.grant.container, "kind": view.grant.kind.as_str(), "state": view.state.as_str(),
        "whole": view.grant.is_whole(), "isolation": view.level.map(|level| level.as_str()), "slices": slices,
        "core_ids": view.core.cards(), "memory_ids": view.memory.cards(),
        "counted_ids": view.counted.cards(),
    })
}
