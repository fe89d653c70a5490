//! A cluster as `kubectl get nodes,pods -A -o json` prints it, as ledgers.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kerf::annotation::{Keys, Record};
use kerf::device::Device;
use kerf::ids::NodeName;
use kerf::k8s;
use kerf::ledger::{Held, NodeLedger};
use kerf::placement::shape::{HostAmount, Shape};
use kerf::placement::survey::{Sighting, Survey};
use kerf::replay::{CardKind, Machine, Pod as ReplayPod, Stay};
use kerf::units::Mib;
use serde_json::Value;

/// More than any cluster's snapshot: a bound on what is read into memory.
const MAX_BYTES: u64 = 2 << 30;

/// The text of a file, or of standard input for `-`.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let name = path.display();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text).context("standard input")
    } else {
        let file = std::fs::File::open(path).with_context(|| name.to_string())?;
        file.take(MAX_BYTES).read_to_string(&mut text).with_context(|| name.to_string())
    };
    ensure!((read? as u64) < MAX_BYTES, "{name}: larger than {} GiB", MAX_BYTES >> 30);
    Ok(text)
}

/// Every node with cards as an empty machine, and every pod, so that the cluster's past can be replayed: pods come when
/// they were created, and those that have ended leave when their last container did.
pub fn workload(path: &Path, keys: &Keys) -> anyhow::Result<(Vec<Machine>, Vec<ReplayPod>)> {
    let name = path.display();
    let (mut machines, mut pods) = (Vec::new(), Vec::new());
    each(path, |item, at| {
        match item {
            Item::Node(node) => machines.extend(machine(&node, keys)),
            Item::Pod(pod) => {
                let request = k8s::request(&pod, keys).with_context(at)?;
                let amount = k8s::requested(&pod);
                let metadata = &pod.metadata;
                let label = format!(
                    "{}/{}",
                    metadata.namespace.as_deref().unwrap_or_default(),
                    metadata.name.as_deref().unwrap_or_default()
                );
                let shape = Shape::of(request.as_ref(), amount.cpu, amount.memory);
                pods.push(ReplayPod { name: label.into(), shape, stay: stay(&pod) });
            }
        }
        Ok(())
    })?;
    ensure!(!machines.is_empty(), "{name}: holds no node with GPUs");
    machines.sort_by(|a, b| a.name.cmp(&b.name));
    pods.sort_by(|a: &ReplayPod, b| {
        let key = |pod: &ReplayPod| (pod.stay.map(|stay| stay.from), pod.name.clone());
        key(a).cmp(&key(b))
    });
    Ok((machines, pods))
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

/// A node that does not say what it has is taken to have enough of it.
const UNKNOWN: HostAmount = HostAmount { cpu: 1 << 40, memory: Mib(1 << 40), pods: 1 << 20 };

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

/// Every node's ledger, with the pods that are bound and have not ended, and the survey that an extender would have
/// after seeing the same objects.
pub fn cluster(path: &Path, keys: &Keys) -> anyhow::Result<(BTreeMap<NodeName, NodeLedger>, Survey)> {
    let mut ledgers: BTreeMap<NodeName, NodeLedger> = BTreeMap::new();
    let mut survey = Survey::default();
    each(path, |item, _| {
        match item {
            Item::Node(node) => {
                if let Some(view) = k8s::node(&node, keys) {
                    survey.allocatable(&view.name, k8s::allocatable(&node));
                    ledgers.entry(view.name).or_default().set_inventory(view.inventory.as_ref().ok());
                }
            }
            Item::Pod(pod) => {
                let Some(view) = k8s::pod(&pod, keys).filter(|view| !view.ended) else { return Ok(()) };
                let amount = k8s::requested(&pod);
                let request = view.request.as_ref().ok().and_then(Option::as_deref);
                let shape = Shape::of(request, amount.cpu, amount.memory);
                let resident = k8s::resident(&pod);
                survey.seen(&view.uid, &Sighting { shape: &shape, node: view.node.as_ref(), resident });
                if let (Some(node), Ok(Some(request))) = (view.node, &view.request) {
                    let held = match view.record {
                        Record::Placed(placement) => Held::Plan(placement.plan),
                        Record::Absent | Record::Unreadable(_) => Held::Unreadable,
                    };
                    let ledger = ledgers.entry(node).or_default();
                    ledger.observe(&view.uid, &view.pod, request, held, view.confirmed, 0);
                }
            }
        }
        Ok(())
    })?;
    ensure!(!ledgers.is_empty(), "{}: holds no node", path.display());
    for (name, ledger) in &ledgers {
        survey.cards(name, ledger);
    }
    Ok((ledgers, survey))
}

/// What a snapshot holds.
enum Item {
    Node(Box<Node>),
    Pod(Box<Pod>),
}

/// Calls `visit` with each node and pod, and with words for where it stands.
fn each(path: &Path, mut visit: impl FnMut(Item, &dyn Fn() -> String) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let name = path.display();
    let text = read(path)?;
    let list: Value = serde_json::from_str(&text).with_context(|| format!("{name}: no JSON"))?;
    let Some(items) = list["items"].as_array() else {
        bail!("{name}: no list; expected what `kubectl get nodes,pods --all-namespaces --output json` prints");
    };
    for (number, item) in items.iter().enumerate() {
        let at = || format!("{name}: item {number}, {} {}", item["kind"], item["metadata"]["name"]);
        let item = match item["kind"].as_str() {
            Some("Node") => Item::Node(serde_json::from_value(item.clone()).with_context(at)?),
            Some("Pod") => Item::Pod(serde_json::from_value(item.clone()).with_context(at)?),
            _ => continue,
        };
        visit(item, &at)?;
    }
    Ok(())
}
