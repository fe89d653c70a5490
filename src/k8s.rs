//! Kubernetes objects as domain values: translated on arrival, then dropped. No client, no async.

mod bounds;
mod budget;
mod domain;
mod host;
mod lease;
mod misspelt;
mod queued;
mod taints;
mod users;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Node, NodeCondition, Pod, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::annotation::{self, Keys, Record, Unreadable, inventory};
use crate::device::Inventory;
use crate::ids::{NodeName, PodRef, PodUid};
use crate::ledger::{Held, NodeLedger, Standing};
use crate::request::{GpuRequest, RawAnnotations, RawContainer, RequestError};
use crate::unfit::Unfit;
use crate::units::{Timestamp, parse_quantity};

pub use budget::budget;
pub use domain::{held_elsewhere, offered_elsewhere};
pub use host::{allocatable, asks_for_host_and_cards_alone, requested, resident};
pub use lease::lease_holder;
pub use queued::Queued;
pub use taints::{Closed, Taints, tolerations};
pub use users::users;

#[derive(Clone, Debug, PartialEq)]
pub struct PodView {
    pub uid: PodUid,
    pub pod: PodRef,
    pub node: Option<NodeName>,
    /// Phase `Succeeded` or `Failed`: its cards are free. A pod that is being deleted has not ended: its containers may
    /// still run.
    pub ended: bool,
    /// `None` where it asks for no card.
    pub request: Result<Option<Arc<GpuRequest>>, RequestError>,
    /// What it holds on the node it is bound to, even where its request is invalid; `None` where it can hold no card.
    pub holding: Option<Holding>,
    /// [`Record::Absent`] where it asks for no card.
    pub record: Record,
    /// Whether its node has given the containers their cards.
    pub confirmed: bool,
    /// Only of a pod that waits for a node and asks for cards; empty otherwise.
    pub tolerations: Box<[Toleration]>,
}

/// What a bound pod holds of its node's cards: what it counts as, and whether its record is accepted.
///
/// Annotations that a user may write decide nothing here. A pod is counted by its record; where no record is accepted,
/// by its amounts, which it may have on any card; and where even those cannot be read, as all that it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub node: NodeName,
    /// What it counts as ([`GpuRequest::of_bound`]).
    pub request: Arc<GpuRequest>,
    /// Its placement by its annotations, checked against `node` and `request`.
    pub record: Record,
}

impl Holding {
    /// What its node's ledger counts.
    pub fn held(&self) -> Held {
        match &self.record {
            Record::Placed(placement) => Held::Plan(placement.plan.clone()),
            Record::Absent | Record::Unreadable(_) => Held::Unreadable,
        }
    }
}

impl PodView {
    /// What the pod adds to the demand that policies learn. `None` where it asks for no card, or for amounts that
    /// cannot be read.
    pub fn demand(&self) -> Option<&GpuRequest> {
        let bound = self.holding.as_ref().map(|holding| &*holding.request);
        let asked = || self.request.as_ref().ok().and_then(Option::as_deref);
        bound.filter(|request| !request.is_unreadable()).or_else(asked)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    pub name: NodeName,
    /// Its cards, cordons applied; all are cordoned while the Node is being deleted.
    pub inventory: Result<Inventory, Unreadable>,
    /// Whether the cards are inferred from the node's capacity, since no plugin has listed them.
    pub inferred: bool,
}

impl NodeView {
    /// Updates the node's ledger. Where the list cannot be read, or is inferred although a plugin has listed the cards
    /// before, the node keeps the cards it had and takes no new pod.
    pub fn tell(&self, ledger: &mut NodeLedger) {
        match &self.inventory {
            Ok(_) if self.inferred && ledger.listed() => ledger.close(Unfit::LostInventory),
            Ok(inventory) => ledger.set_inventory(inventory),
            Err(Unreadable::Missing) => ledger.close(Unfit::LostInventory),
            Err(Unreadable::TooManyCards) => ledger.close(Unfit::TooManyCards),
            Err(_) => ledger.close(Unfit::UnreadableInventory),
        }
    }
}

/// What a pod asks for, from its containers and annotations.
///
/// # Errors
/// [`RequestError`] where it breaks a rule of the contract.
pub fn request(pod: &Pod, keys: &Keys) -> Result<Option<GpuRequest>, RequestError> {
    bounds::limits(pod, keys)?;
    misspelt::resource(pod, keys)?;
    let request = unread(pod, keys, |raw, annotations| GpuRequest::parse(raw, annotations)).unwrap_or(Ok(None))?;
    if request.is_some() {
        bounds::annotations(pod, keys)?;
        misspelt::annotation(pod, keys)?;
    }
    let request = request.map(|request| users::demanding(request, pod));
    Ok(request.map(|request| GpuRequest { priority: priority(pod), ..request }))
}

/// What a pod counts as once it is bound; `None` where it has no amount of any GPU resource.
fn bound_request(pod: &Pod, keys: &Keys) -> Option<GpuRequest> {
    let request = unread(pod, keys, |raw, annotations| GpuRequest::of_bound(raw, annotations))??;
    Some(GpuRequest { priority: priority(pod), ..request })
}

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default()
}

/// Calls `read` with a pod's containers, in kubelet's order, and the user's annotations. `None` without containers.
fn unread<T>(
    pod: &Pod,
    keys: &Keys,
    read: impl FnOnce(&mut dyn Iterator<Item = RawContainer<'_>>, RawAnnotations<'_>) -> T,
) -> Option<T> {
    let spec = pod.spec.as_ref()?;
    let annotation = |key: &str| pod.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let containers: Vec<_> =
        host::kinds(spec).map(|(kind, container)| (kind, container, counted(container, keys))).collect();
    let annotations = RawAnnotations {
        limit: annotation(&keys.core_limit),
        policy: annotation(&keys.policy),
        isolation: annotation(&keys.isolation),
        arrangement: annotation(&keys.shares),
    };
    let mut raw = containers.iter().map(|(kind, container, counted)| RawContainer {
        name: &container.name,
        kind: *kind,
        core: amount(container, &keys.core),
        memory: amount(container, &keys.memory),
        counted,
    });
    Some(read(&mut raw, annotations))
}

/// Kubernetes requires requests equal to limits for extended resources, and copies limits into requests.
fn amount<'a>(container: &'a Container, key: &str) -> Option<&'a str> {
    let resources = container.resources.as_ref()?;
    let of = |amounts: &'a Option<BTreeMap<String, Quantity>>| Some(amounts.as_ref()?.get(key)?.0.as_str());
    of(&resources.limits).or_else(|| of(&resources.requests))
}

/// The amounts of all resources that are counted shares.
fn counted<'a>(container: &'a Container, keys: &Keys) -> Vec<(&'a str, &'a str)> {
    let Some(resources) = &container.resources else { return Vec::new() };
    let limits = resources.limits.iter().flatten();
    let requests = resources.requests.iter().flatten();
    let only = requests.filter(|(name, _)| !resources.limits.as_ref().is_some_and(|l| l.contains_key(*name)));
    limits
        .chain(only)
        .filter(|(name, _)| keys.share_resources.contains(name))
        .map(|(name, amount)| (name.as_str(), amount.0.as_str()))
        .collect()
}

/// Translates a Pod. `None` where it has no name or uid, which the API server never sends.
pub fn pod(pod: &Pod, keys: &Keys) -> Option<PodView> {
    let metadata = &pod.metadata;
    let request = request(pod, keys).map(|request| request.map(Arc::new));
    let none = BTreeMap::new();
    let annotations = metadata.annotations.as_ref().unwrap_or(&none);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
    let node = node.map(NodeName::from);
    let counts = || match &request {
        Ok(request) => request.clone(),
        Err(_) => bound_request(pod, keys).map(Arc::new),
    };
    let of = |node: &NodeName| {
        let request = counts()?;
        let record = annotation::read_bound(annotations, keys, &request, node);
        Some(Holding { node: node.clone(), request, record })
    };
    let holding = node.as_ref().and_then(of);
    let record = match (&holding, &request) {
        (Some(holding), _) => holding.record.clone(),
        (None, Ok(Some(request))) => annotation::read(annotations, keys, request),
        (None, _) => Record::Absent,
    };
    let tolerations = match (&request, &node) {
        (Ok(Some(_)), None) => tolerations(pod),
        _ => Box::default(),
    };
    Some(PodView {
        uid: metadata.uid.as_deref().filter(|uid| !uid.is_empty())?.into(),
        pod: PodRef::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref()?),
        node,
        ended: matches!(phase, "Succeeded" | "Failed"),
        request,
        holding,
        record,
        // containers of a running pod have their devices, even where another plugin gave them
        confirmed: annotation::confirmed(annotations, keys) || phase == "Running",
        tolerations,
    })
}

pub fn standing(pod: &Pod) -> Standing {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    Standing {
        started: started.map(|time| Timestamp(u64::try_from(time.0.as_millisecond()).unwrap_or_default())),
        leaving: pod.metadata.deletion_timestamp.is_some(),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
    }
}

/// Translates a Node. `None` where it has no name, which the API server never sends.
pub fn node(node: &Node, keys: &Keys) -> Option<NodeView> {
    let (inventory, inferred) = cards(node, keys, has_plugin(node, keys));
    Some(NodeView { name: node.metadata.name.as_deref()?.into(), inventory, inferred })
}

/// The ledger of a node that does not exist, without pods: an autoscaler's template, which may be a copy of a live node
/// without its annotations.
pub fn imagined(node: &Node, keys: &Keys) -> NodeLedger {
    let (inventory, inferred) = cards(node, keys, false);
    let mut ledger = NodeLedger::default();
    NodeView { name: "".into(), inventory, inferred }.tell(&mut ledger);
    ledger
}

/// A node's cards, and whether they are inferred. `served`: whether a plugin has listed them, so that a missing list was
/// lost.
fn cards(node: &Node, keys: &Keys, served: bool) -> (Result<Inventory, Unreadable>, bool) {
    let annotation = |key: &str| node.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let capacity = |key: &str| {
        let capacity = node.status.as_ref()?.capacity.as_ref()?.get(key)?;
        parse_quantity(&capacity.0).ok()
    };
    let text = annotation(&keys.inventory);
    let inventory = match text {
        Some(text) => inventory::decode(text),
        None if served => Err(Unreadable::Missing),
        None => Ok(Inventory::from_capacity(
            capacity(&keys.core).unwrap_or_default(),
            capacity(&keys.memory).unwrap_or_default(),
        )),
    };
    let inventory = inventory.map(|mut inventory| {
        if let Some(names) = annotation(&keys.cordon) {
            inventory.cordon(names);
        }
        if node.metadata.deletion_timestamp.is_some() {
            // its pods are counted until they are gone; kube-scheduler itself would still bind to it
            inventory.cordon_all();
        }
        inventory
    });
    (inventory, text.is_none())
}

/// The condition of a Node that kerf's plugin sets to false where containers fail because of the node itself.
pub const ALLOCATIONS_SUCCEED: &str = "KerfAllocationsSucceed";

/// Whether containers fail on the node because of the node itself, as its plugin reports. It still takes pods, but
/// other nodes are better.
pub fn failing(node: &Node) -> bool {
    conditions(node).any(|condition| condition.type_ == ALLOCATIONS_SUCCEED && condition.status == "False")
}

/// Whether kerf's plugin has served the node: its conditions and its lists of labels stay when its inventory goes.
fn has_plugin(node: &Node, keys: &Keys) -> bool {
    // the condition of its cards' health: `KerfGPUsHealthy`, or with a vendor's name inside
    let of_health = |kind: &str| kind.strip_prefix("Kerf").is_some_and(|rest| rest.ends_with("GPUsHealthy"));
    let mut annotations = node.metadata.annotations.iter().flatten();
    conditions(node).any(|condition| of_health(&condition.type_))
        || annotations.any(|(key, _)| key.starts_with(&keys.labels))
}

fn conditions(node: &Node) -> impl Iterator<Item = &NodeCondition> {
    node.status.iter().flat_map(|status| status.conditions.iter().flatten())
}
