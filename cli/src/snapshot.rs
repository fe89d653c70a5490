//! A snapshot of a cluster, as `kubectl get nodes,pods -A -o json` prints it: as ledgers, and as a workload.

mod past;
mod reading;
mod replicas;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kerf::annotation::{Keys, Record};
use kerf::ids::NodeName;
use kerf::k8s::{self, Taints};
use kerf::ledger::NodeLedger;
use kerf::placement::advise::UNBOUND_RECORD_MS;
use kerf::placement::shape::Shape;
use kerf::placement::survey::{Sighting, Survey};
use kerf::plan::Placement;
use kerf::request::PodRequest;
use kerf::units::Timestamp;

pub use past::workload;
pub use reading::{Item, each, pod};
use replicas::Replicas;

/// A cluster has pods always, those of its control plane and of kerf at least.
const NO_PODS: &str =
    "the snapshot has no pods, so every GPU looks free: take it by kubectl get nodes,pods --all-namespaces";

/// What an extender would know after it had seen the same objects.
pub struct Cluster {
    pub nodes: BTreeMap<NodeName, Node>,
    /// With all pods.
    pub survey: Survey,
    /// The schedulers of kerf, and which is in use.
    pub replicas: Replicas,
    /// Annotations and resources that nodes have under other resource domains.
    others: BTreeSet<String>,
    /// Whether the snapshot has pods.
    has_pods: bool,
}

#[derive(Default)]
pub struct Node {
    /// With pods that are bound and have not ended, and unbound pods whose record is for this node.
    pub ledger: NodeLedger,
    pub taints: Taints,
    pub labels: BTreeMap<String, String>,
    /// Whether containers fail on it because of the node itself.
    pub failing: bool,
}

impl Cluster {
    /// What the snapshot as a whole lacks: GPUs, with an explanation if there is one, or pods.
    pub fn note(&self, keys: &Keys) -> Option<String> {
        let others: Vec<&str> = self.others.iter().map(String::as_str).collect();
        let none = self.nodes.values().all(|node| node.ledger.cards().is_empty());
        let say =
            || format!("no GPUs under {}; the nodes have {}: see --domain", keys.domain, others.join(" and "));
        if none && !others.is_empty() {
            return Some(say());
        }
        (!self.has_pods).then(|| NO_PODS.to_owned())
    }
}

/// Pods by uid. A snapshot may be written by hand, cleaned, or combined from several, and each of its pods counts.
#[derive(Default)]
struct Identities(BTreeMap<String, String>);

impl Identities {
    /// A pod without a uid, or with that of another pod, gets `namespace/name` as its uid.
    fn complete(&mut self, metadata: &mut ObjectMeta) -> anyhow::Result<()> {
        let name = metadata.name.as_deref().filter(|name| !name.is_empty()).context("a pod without a name")?;
        let own = format!("{}/{name}", metadata.namespace.as_deref().unwrap_or_default());
        let uid = metadata.uid.take().filter(|uid| !uid.is_empty()).unwrap_or_else(|| own.clone());
        let owner = self.0.entry(uid.clone()).or_insert_with(|| own.clone());
        metadata.uid = Some(if *owner == own { uid } else { own });
        Ok(())
    }
}

/// Reads a snapshot.
pub fn cluster(path: &Path, keys: &Keys) -> anyhow::Result<Cluster> {
    let mut nodes: BTreeMap<NodeName, Node> = BTreeMap::new();
    let mut promised = Vec::new();
    let mut survey = Survey::default();
    let mut others = BTreeSet::new();
    let mut identities = Identities::default();
    let mut replicas = Replicas::default();
    let mut has_pods = false;
    each(path, |item, at| {
        match item {
            Item::Node(node) => {
                others.extend(k8s::offered_elsewhere(&node, keys).map(str::to_owned));
                if let Some(view) = k8s::node(&node, keys) {
                    survey.allocatable(&view.name, k8s::allocatable(&node));
                    let known = nodes.entry(view.name.clone()).or_default();
                    view.tell(&mut known.ledger);
                    known.labels = node.metadata.labels.clone().unwrap_or_default();
                    (known.taints, known.failing) = (Taints::of(&node), k8s::failing(&node));
                }
            }
            Item::Lease(lease) => replicas.lease(&lease),
            Item::Pod(mut pod) => {
                has_pods = true;
                identities.complete(&mut pod.metadata).with_context(|| at.to_owned())?;
                replicas.pod(&pod);
                let Some(view) = k8s::pod(&pod, keys).filter(|view| !view.ended) else { return Ok(()) };
                let amount = k8s::requested(&pod);
                let shape = Shape::of(view.demand(), amount.cpu, amount.memory);
                let resident = k8s::resident(&pod);
                survey.seen(&view.uid, &Sighting { shape: &shape, node: view.node.as_ref(), resident });
                if let (Some(node), Some(_)) = (&view.node, k8s::held_elsewhere(&pod, keys)) {
                    nodes.entry(node.clone()).or_default().ledger.foreign_begins(&view.uid);
                }
                match (view.holding, view.request, view.record) {
                    (Some(holding), ..) => {
                        let pod = PodRequest::new(&view.uid, &view.pod, &holding.request);
                        let ledger = &mut nodes.entry(holding.node.clone()).or_default().ledger;
                        ledger.observe(&pod, holding.held(), view.confirmed, 0);
                    }
                    (None, Ok(Some(request)), Record::Placed(placement))
                        if view.node.is_none() && is_recent(&placement) =>
                    {
                        promised.push((PodRequest { uid: view.uid, name: view.pod, request }, placement));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    })?;
    ensure!(!nodes.is_empty(), "{}: holds no node", path.display());
    for (pod, placement) in promised {
        if let Some(node) = nodes.get_mut(&placement.node) {
            node.ledger.reserve(&pod, placement.plan, Timestamp::default(), 0);
        }
    }
    for (name, node) in &nodes {
        survey.cards(name, &node.ledger);
    }
    Ok(Cluster { nodes, survey, replicas, others, has_pods })
}

/// Whether the GPUs of an unbound pod's record are kept for it. A record from the future was written before the time of
/// day was set back.
fn is_recent(placement: &Placement) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = now.saturating_sub(Duration::from_nanos(placement.time));
    age < Duration::from_millis(UNBOUND_RECORD_MS)
}
