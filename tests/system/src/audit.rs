//! Compares every source of placements: the pods' records, kubelet's device ids, the containers' environment, the
//! extender's ledgers. Disagreements are reported as texts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use kerf::annotation::Keys;
use kerf::annotation::isolation::{self, Levels};
use kerf::isolation::Isolation;
use kerf::k8s;
use kerf::ledger::Held;
use kerf::plan::{ContainerGrant, Placement};
use kerf::request::ContainerKind;
use kerf_limiter_contract::limits::Limits;
use kerf_limiter_contract::path;
use kerf_plugin::testing::limiter::{CONTEXT, limits};
use kerf_testkit::kubelet::Container;
use serde_json::Value;

pub use crate::records::Audit;
use crate::stack::Stack;

/// Compares all sources; pods must be at rest.
pub fn audit(stack: &Stack) -> anyhow::Result<Audit> {
    let keys = Keys::default();
    let mut audit = Audit::default();
    for pod in stack.api.list("pods")? {
        audit.pod(stack, &keys, &pod)?;
    }
    for object in stack.api.list("nodes")? {
        audit.capacity(&serde_json::from_value((*object).clone())?, &keys);
    }
    audit.ledgers(stack);
    Ok(audit)
}

impl Audit {
    fn pod(&mut self, stack: &Stack, keys: &Keys, object: &Arc<Value>) -> anyhow::Result<()> {
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value((**object).clone())?;
        let Some(view) = k8s::pod(&pod, keys) else { return Ok(()) };
        let (name, reference) = (view.pod.to_string(), view.pod.clone());
        let Some((node, placement)) = self.placement(view) else { return Ok(()) };
        self.compatible(&name, keys, object, &placement);
        self.isolation(&name, keys, object, &placement);
        let Some(machine) = stack.machines.get(node.as_str()) else {
            self.object(format!("{name}: bound to {node}, which is no machine"));
            return Ok(());
        };
        let held = placement.plan.grants.iter().any(|grant| grant.kind == ContainerKind::Init);
        for grant in &placement.plan.grants {
            match machine.kubelet.container(&reference.namespace, &reference.name, grant.container.as_str()) {
                Some(container) => {
                    self.container(&name, keys, grant, &container, held);
                    self.limits(&name, &placement, grant, &container);
                }
                None => self.object(format!("{name}/{}: kubelet knows no such container", grant.container)),
            }
        }
        self.count(name, &node, placement);
        Ok(())
    }

    /// Checks that the compatibility record equals the placement.
    fn compatible(&mut self, name: &str, keys: &Keys, object: &Value, placement: &Placement) {
        for grant in placement.plan.grants.iter().filter(|grant| grant.kind == ContainerKind::App) {
            let indices: Vec<String> = grant.gpus.devices().map(|device| device.index.to_string()).collect();
            let key = format!("{}{}", keys.predicate_gpu_idx, grant.position);
            let recorded = object["metadata"]["annotations"].get(&key).and_then(Value::as_str);
            if recorded != Some(&indices.join(",")) {
                self.object(format!("{name}/{}: {key} is {recorded:?}, placed on {indices:?}", grant.container));
            }
        }
    }

    /// Checks that the record names the isolation of each share, and none for whole GPUs. Every machine here has the
    /// limiter.
    fn isolation(&mut self, name: &str, keys: &Keys, object: &Value, placement: &Placement) {
        let grants = &placement.plan.grants;
        let lasting = grants.iter().any(|grant| grant.kind != ContainerKind::Init);
        let over = |grant: &&ContainerGrant| lasting && grant.kind == ContainerKind::Init;
        let shares = grants.iter().filter(|grant| grant.gpus.is_share() && !over(grant));
        let expected: Levels = shares.map(|grant| (grant.container.clone(), Isolation::Limiter)).collect();
        let recorded = object["metadata"]["annotations"].get(&keys.isolated).and_then(Value::as_str);
        let recorded = recorded.and_then(|text| isolation::decode(text).ok()).unwrap_or_default();
        if recorded != expected {
            self.object(format!("{name}: its isolation is recorded as {recorded:?}, expected {expected:?}"));
        }
    }

    /// Checks that the limits that the container can read are those of its record.
    fn limits(&mut self, pod: &str, placement: &Placement, grant: &ContainerGrant, container: &Container) {
        let name = format!("{pod}/{}", grant.container);
        let mount = container.mounts.iter().find(|mount| mount.container_path == path::HOST_DIRECTORY);
        let file = mount.map(|mount| Path::new(&mount.host_path).join("limits"));
        let found = file.map(|file| {
            let text = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            Limits::parse(&text).map_err(|error| error.to_string())
        });
        let expected = (grant.gpus.is_share()).then(|| {
            limits(grant, placement.limit, Isolation::Limiter, CONTEXT).map_err(|error| error.to_string())
        });
        if found != expected {
            self.object(format!("{name}: may use {found:?}, recorded {expected:?}"));
        }
    }

    /// Checks that kubelet's ids and the container's environment name the placed GPUs. After an ordinary init container
    /// kubelet reuses its ids at random: then the placed GPUs need only be among them.
    fn container(&mut self, pod: &str, keys: &Keys, grant: &ContainerGrant, container: &Container, reused: bool) {
        let name = format!("{pod}/{}", grant.container);
        let placed: BTreeSet<&str> = grant.gpus.ids().map(|id| id.as_str()).collect();
        for resource in [&keys.core, &keys.memory] {
            let cards: BTreeSet<&str> = container
                .resources
                .get(resource)
                .into_iter()
                .flatten()
                .map(|id| id.split_once("::").map_or(id.as_str(), |(card, _)| card))
                .collect();
            // memory is optional with whole GPUs, and a few units cannot name each of several
            let apart = grant.gpus.is_whole() && resource == &keys.memory && cards.is_subset(&placed);
            if cards != placed && !apart && !(reused && placed.is_subset(&cards)) {
                self.object(format!("{name}: kubelet gave {cards:?} of {resource}, placed on {placed:?}"));
            }
        }
        let visible: BTreeSet<&str> =
            container.env.get("NVIDIA_VISIBLE_DEVICES").map(|v| v.split(',').collect()).unwrap_or_default();
        if visible != placed {
            self.object(format!("{name}: the container sees {visible:?}, placed on {placed:?}"));
        }
        for conflict in &container.conflicts {
            self.object(format!("{name}: its resources' answers contradict each other: {conflict:?}"));
        }
    }

    /// Checks that the extender counts exactly what the records contain.
    fn ledgers(&mut self, stack: &Stack) {
        let mut counted = BTreeMap::new();
        for node in stack.extender().cluster().snapshot() {
            for commitment in node.ledger.commitments().values() {
                let Held::Plan(plan) = &commitment.held else {
                    self.object(format!("{}: the extender cannot read its placement", commitment.pod));
                    continue;
                };
                counted.insert(commitment.pod.to_string(), (node.name.clone(), plan.clone()));
            }
        }
        let recorded: BTreeMap<_, _> =
            self.placed.iter().map(|(pod, p)| (pod.clone(), (p.node.clone(), p.plan.clone()))).collect();
        for (pod, placed) in &recorded {
            if counted.get(pod) != Some(placed) {
                let text = format!("{pod}: the extender has {:?}, the record says {placed:?}", counted.get(pod));
                self.object(text);
            }
        }
        for pod in counted.keys().filter(|pod| !recorded.contains_key(*pod)) {
            self.object(format!("{pod}: the extender counts a pod that is not there"));
        }
    }
}
