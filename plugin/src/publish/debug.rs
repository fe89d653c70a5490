//! `/debug/state`: everything the plugin holds to be true, as JSON.

use kerf::plan::{DeviceRef, Grant};
use kerf::units::Share;
use serde_json::{Value, json};

use crate::allocation::view::{ContainerView, PodView};
use crate::allocation::{Allocations, Decision, Key, RunnerUp, State as ClaimState};
use crate::state::State;
use crate::state::breach::LimiterFlags;
use crate::state::decisions::Decided;

pub fn state(state: &State) -> Value {
    let (cards, flags) = (state.roster(), state.limiter_flags());
    let (pods, call, allocated) = state.allocations(|allocations| {
        let allocated: Vec<_> = cards.hosts().map(|host| allocations.allocated(&host.device.id)).collect();
        (allocations.view(), call(allocations), allocated)
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
    json!({
        "devices": devices, "pods": pods.iter().map(|view| pod(view, &flags)).collect::<Vec<_>>(), "call": call,
        "decisions": state.decisions().iter().map(|decided| decision(decided, &pods)).collect::<Vec<_>>(),
    })
}

/// What the next decision rests on besides the pods.
fn call(allocations: &Allocations) -> Value {
    let list = &allocations.kubelet;
    json!({
        "calls": list.calls(), "lists": list.questions(), "kubelet_heard": list.heard(),
        "listed_now": list.during_call(), "incomplete_pod": allocations.open(),
    })
}

/// Of pods that are gone only the uid is known.
fn decision(decided: &Decided, pods: &[PodView]) -> Value {
    let container = |key: &Key| {
        let pod = pods.iter().find(|view| view.pod.uid == key.pod).map(|view| &view.pod.reference);
        json!({
            "namespace": pod.map(|pod| &pod.namespace), "name": pod.map(|pod| &pod.name), "uid": key.pod,
            "container": key.container,
        })
    };
    let mut shown =
        json!({ "time": decided.at.to_string(), "resource": decided.resource.as_str(), "ids": decided.units });
    match &decided.outcome {
        Err(code) => shown["refused"] = json!(code),
        Ok((key, Decision { evidence, candidates, runners_up })) => {
            shown["container"] = container(key);
            shown["evidence"] = json!(evidence.to_string());
            shown["candidates"] = json!(candidates);
            let runner_up = |one: &RunnerUp| {
                let mut shown = container(&one.key);
                shown["behind_in"] = json!(one.behind_in);
                shown
            };
            shown["runners_up"] = runners_up.iter().map(runner_up).collect();
        }
    }
    shown
}

fn pod(view: &PodView, flags: &LimiterFlags) -> Value {
    let with_flags = |one: &ContainerView| {
        let mut shown = container(one);
        let held = flags.get(&view.key(one)).filter(|_| one.held());
        shown["limiter_flags"] = json!(held.map(|flags| flags.names().collect::<Vec<_>>()));
        shown
    };
    json!({
        "namespace": view.pod.reference.namespace, "name": view.pod.reference.name, "uid": view.pod.uid,
        "placed": !view.containers.is_empty(), "recorded": view.pod.record.is_some(),
        "assigned": view.pod.confirmed, "exchanged": view.exchanged, "answer_lost": view.answer_lost, "limit": view.limit,
        "containers": view.containers.iter().map(with_flags).collect::<Vec<_>>(),
    })
}

fn container(view: &ContainerView) -> Value {
    let counts: Vec<u32> = match &view.grant.gpus {
        Grant::Share { .. } | Grant::Whole(_) => Vec::new(),
        Grant::Counted { devices, .. } => devices.iter().map(|one| one.count).collect(),
    };
    let slice = |(at, (device, share)): (usize, (&DeviceRef, Share))| {
        let count = counts.get(at).copied().unwrap_or(1);
        json!({ "gpu": device.id, "index": device.index, "share": share, "count": count })
    };
    let state = match view.state {
        None => "waiting",
        Some(ClaimState::Assumed | ClaimState::PodListed) => "claimed",
        Some(ClaimState::Confirmed | ClaimState::Unlisted) => "confirmed",
        Some(ClaimState::Released) => "released",
    };
    let slices: Vec<Value> = view.grant.gpus.amounts().enumerate().map(slice).collect();
    json!({
        "name": view.grant.container, "kind": view.grant.kind.as_str(), "state": state,
        "claim": view.state.map(|state| json!({ "state": state, "call": view.call })),
        "whole": view.grant.gpus.is_whole(), "isolation": view.level.map(|level| level.as_str()), "slices": slices,
        "core_ids": view.core.cards(), "memory_ids": view.memory.cards(),
        "counted_ids": view.counted.cards(),
    })
}
