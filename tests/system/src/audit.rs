//! Walks everything that knows about placements and compares: the pods' records, kubelet's device ids, the
//! containers' environment, the extender's ledgers. What it finds it says in words.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use kerf::annotation::isolation::{self, Levels};
use kerf::annotation::{Keys, Record};
use kerf::isolation::Isolation;
use kerf::k8s;
use kerf::ledger::Held;
use kerf::plan::{Grant, Placement};
use kerf::request::ContainerKind;
use kerf::units::Share;
use kerf_limiter_contract::limits::Limits;
use kerf_limiter_contract::path;
use kerf_plugin::isolation::limiter::limits;
use kerf_testkit::kubelet::Container;
use serde_json::Value;

use crate::stack::Stack;

/// What an audit found.
#[derive(Debug, Default)]
pub struct Audit {
    /// Pods that are bound and have not ended, with their placements.
    pub placed: BTreeMap<String, Placement>,
    /// Names of pods without a node.
    pub waiting: Vec<String>,
    /// Everything on which two parties do not agree.
    pub disagreements: Vec<String>,
    /// Compute in use on each card.
    pub used: BTreeMap<String, Share>,
}

/// Compares everything; pods must be at rest.
pub fn audit(stack: &Stack) -> anyhow::Result<Audit> {
    let keys = Keys::default();
    let mut audit = Audit::default();
    for pod in stack.api.list("pods")? {
        audit.pod(stack, &keys, &pod)?;
    }
    audit.capacity(stack)?;
    audit.ledgers(stack);
    Ok(audit)
}

impl Audit {
    fn object(&mut self, text: String) {
        self.disagreements.push(text);
    }

    fn pod(&mut self, stack: &Stack, keys: &Keys, object: &Arc<Value>) -> anyhow::Result<()> {
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value((**object).clone())?;
        let Some(view) = k8s::pod(&pod, keys) else { return Ok(()) };
        let name = view.pod.to_string();
        if view.ended {
            return Ok(());
        }
        let Some(node) = view.node else {
            self.waiting.push(name);
            return Ok(());
        };
        let Record::Placed(placement) = view.record else {
            self.object(format!("{name}: bound to {node} without a readable placement: {:?}", view.record));
            return Ok(());
        };
        if placement.node != node {
            self.object(format!("{name}: bound to {node}, placed on {}", placement.node));
        }
        if !view.confirmed {
            self.object(format!("{name}: not confirmed by its node"));
        }
        self.compatible(&name, keys, object, &placement);
        self.isolation(&name, keys, object, &placement);
        let Some(machine) = stack.machines.get(node.as_str()) else {
            self.object(format!("{name}: bound to {node}, which is no machine"));
            return Ok(());
        };
        let held = placement.plan.grants.iter().any(|grant| grant.kind == ContainerKind::Init);
        for grant in &placement.plan.grants {
            match machine.kubelet.container(&view.pod.namespace, &view.pod.name, grant.container.as_str()) {
                Some(container) => {
                    self.container(&name, keys, grant, &container, held);
                    self.limits(&name, &placement, grant, &container);
                }
                None => self.object(format!("{name}/{}: kubelet knows no such container", grant.container)),
            }
        }
        for hold in placement.plan.holds() {
            let used = self.used.entry(format!("{node}/{}", hold.device)).or_default();
            *used = used.saturating_add(hold.share);
        }
        self.placed.insert(name, placement);
        Ok(())
    }

    /// The compatibility record says the same as the placement.
    fn compatible(&mut self, name: &str, keys: &Keys, object: &Value, placement: &Placement) {
        for grant in placement.plan.grants.iter().filter(|grant| grant.kind == ContainerKind::App) {
            let indices: Vec<String> = grant.slices.iter().map(|slice| slice.index.to_string()).collect();
            let key = format!("{}{}", keys.predicate_gpu_idx, grant.position);
            let recorded = object["metadata"]["annotations"].get(&key).and_then(Value::as_str);
            if recorded != Some(&indices.join(",")) {
                self.object(format!("{name}/{}: {key} is {recorded:?}, placed on {indices:?}", grant.container));
            }
        }
    }

    /// The record says what holds each share, and of whole cards nothing. Every machine here has the limiter.
    fn isolation(&mut self, name: &str, keys: &Keys, object: &Value, placement: &Placement) {
        let grants = &placement.plan.grants;
        let lasting = grants.iter().any(|grant| grant.kind != ContainerKind::Init);
        let over = |grant: &&Grant| lasting && grant.kind == ContainerKind::Init;
        let shares = grants.iter().filter(|grant| grant.is_share() && !over(grant));
        let expected: Levels = shares.map(|grant| (grant.container.clone(), Isolation::Limiter)).collect();
        let recorded = object["metadata"]["annotations"].get(&keys.isolated).and_then(Value::as_str);
        let recorded = recorded.and_then(|text| isolation::decode(text).ok()).unwrap_or_default();
        if recorded != expected {
            self.object(format!("{name}: its isolation is recorded as {recorded:?}, expected {expected:?}"));
        }
    }

    /// The limits that the container can read are those of its record.
    fn limits(&mut self, pod: &str, placement: &Placement, grant: &Grant, container: &Container) {
        let name = format!("{pod}/{}", grant.container);
        let mount = container.mounts.iter().find(|mount| mount.container_path == path::HOST_DIRECTORY);
        let file = mount.map(|mount| Path::new(&mount.host_path).join("limits"));
        let found = file.map(|file| {
            let text = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            Limits::parse(&text).map_err(|error| error.to_string())
        });
        let expected =
            (grant.is_share()).then(|| limits(grant, placement.limit).map_err(|error| error.to_string()));
        if found != expected {
            self.object(format!("{name}: may use {found:?}, recorded {expected:?}"));
        }
    }

    /// kubelet's ids and the container's environment name the placed cards. After an ordinary init container
    /// kubelet reuses that one's ids at random: then the placed cards need only be among them.
    fn container(&mut self, pod: &str, keys: &Keys, grant: &Grant, container: &Container, reused: bool) {
        let name = format!("{pod}/{}", grant.container);
        let placed: BTreeSet<&str> = grant.devices().map(|id| id.as_str()).collect();
        for resource in [&keys.core, &keys.memory] {
            let cards: BTreeSet<&str> = container
                .resources
                .get(resource)
                .into_iter()
                .flatten()
                .map(|id| id.split_once("::").map_or(id.as_str(), |(card, _)| card))
                .collect();
            // memory need not be named with whole cards, and a few units cannot name each of several
            let apart = grant.is_whole() && resource == &keys.memory && cards.is_subset(&placed);
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

    /// No card holds more than it has.
    fn capacity(&mut self, stack: &Stack) -> anyhow::Result<()> {
        let keys = Keys::default();
        for object in stack.api.list("nodes")? {
            let node: k8s_openapi::api::core::v1::Node = serde_json::from_value((*object).clone())?;
            let Some(view) = k8s::node(&node, &keys) else { continue };
            for device in view.inventory.iter().flat_map(|inventory| inventory.devices()) {
                let card = format!("{}/{}", view.name, device.id);
                let used = self.used.get(&card).copied().unwrap_or_default();
                if !used.fits_in(device.capacity()) {
                    self.object(format!("{card}: over-committed, {used:?} of {:?}", device.capacity()));
                }
            }
        }
        Ok(())
    }

    /// The extender counts exactly what the records say.
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
