//! A cluster's past, as far as its objects tell it, as a workload to replay.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::ensure;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kerf::annotation::Keys;
use kerf::device::Device;
use kerf::k8s;
use kerf::placement::shape::{Cards, HostAmount, Shape};
use kerf::replay::{CardKind, Machine, Pod as ReplayPod, Stay};
use kerf::terminal;
use kerf::units::Mib;

use crate::source::{Item, Source};

/// For a node without allocatable resources: enough of everything.
const UNKNOWN: HostAmount = HostAmount { cpu: 1 << 40, memory: Mib(1 << 40), pods: 1 << 20 };

/// Every node with cards, with no pods but those of DaemonSets and static ones; and the pods that were placed there or
/// that ask for cards. They come when they were created, and those that have ended leave when their last container
/// ended. Everything else that is left out is reported on standard error.
pub fn workload(source: &Source, keys: &Keys) -> anyhow::Result<(Vec<Machine>, Vec<ReplayPod>)> {
    let (mut machines, mut seen) = (BTreeMap::new(), Vec::new());
    source.each(&mut |item, at| {
        match item {
            Item::Node(node) => {
                machines.extend(machine(&node, keys).map(|machine| (machine.name.clone(), machine)))
            }
            Item::Lease(_) => {}
            Item::Pod(pod) => match k8s::request(&pod, keys) {
                Ok(request) => {
                    let amount = k8s::requested(&pod);
                    let shape = Shape::of(request.as_ref(), amount.cpu, amount.memory);
                    let metadata = &pod.metadata;
                    let part = |part: &Option<String>| part.clone().unwrap_or_default();
                    let name = format!("{}/{}", part(&metadata.namespace), part(&metadata.name));
                    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).map(Arc::<str>::from);
                    let resident = k8s::resident(&pod);
                    seen.push((ReplayPod { name: name.into(), shape, stay: stay(&pod) }, node, resident));
                }
                Err(error) => {
                    terminal::tell(&format!("note: {at}: left out, as kerf refuses it: {error}"));
                }
            },
        }
        Ok(())
    })?;
    ensure!(!machines.is_empty(), "{}: holds no node with GPUs", source.name());
    let mut pods = Vec::new();
    for (pod, node, resident) in seen {
        let machine = node.and_then(|node| machines.get_mut(&node));
        match (pod.shape.cards, machine) {
            // counts as part of the machine
            (Cards::None, Some(machine)) if resident => {
                machine.cpu = machine.cpu.saturating_sub(pod.shape.cpu);
                machine.memory = Mib(machine.memory.0.saturating_sub(pod.shape.memory.0));
            }
            // on a machine without cards, or not bound yet
            (Cards::None, None) => {}
            _ => pods.push(pod),
        }
    }
    ensure!(!pods.is_empty(), "{}: holds no pod that asks for GPUs, and none on a node with GPUs", source.name());
    pods.sort_by_cached_key(|pod| (pod.stay.map(|stay| stay.from), pod.name.clone()));
    Ok((machines.into_values().collect(), pods))
}

fn machine(node: &Node, keys: &Keys) -> Option<Machine> {
    let view = k8s::node(node, keys)?;
    let inventory = view.inventory.ok()?;
    let card = |device: &Device| CardKind { model: device.model.clone(), memory: device.memory };
    let cards: Vec<CardKind> = inventory.devices().iter().filter(|device| device.usable()).map(card).collect();
    let amount = k8s::allocatable(node).unwrap_or(UNKNOWN);
    (!cards.is_empty()).then(|| Machine {
        name: view.name.as_str().into(),
        cpu: amount.cpu,
        memory: amount.memory,
        cards,
    })
}

fn stay(pod: &Pod) -> Option<Stay> {
    let seconds = |time: &Time| u64::try_from(time.0.as_second()).ok();
    let from = seconds(pod.metadata.creation_timestamp.as_ref()?)?;
    let status = pod.status.as_ref();
    let ended = status
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| phase == "Succeeded" || phase == "Failed");
    let last = || {
        let containers = status?.container_statuses.iter().flatten();
        let finished =
            |state: &ContainerStatus| seconds(state.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?);
        containers.filter_map(finished).max()
    };
    Some(Stay { from, until: if ended { last() } else { None } })
}
