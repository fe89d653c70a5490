//! Kubernetes objects as domain values: translated on arrival, then dropped. No client, no async.

mod health;
mod host;
mod taints;
mod users;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

use crate::annotation::{self, Keys, Record, Unreadable, inventory};
use crate::device::Inventory;
use crate::ids::{NodeName, PodRef, PodUid};
use crate::request::{ContainerKind, GpuRequest, RawAnnotations, RawContainer, RequestError};
use crate::units::parse_quantity;

pub use health::{ALLOCATIONS_SUCCEED, failing};
pub use host::{allocatable, requested, resident};
pub use taints::{Closed, Taint, Taints, Toleration};
pub use users::users;

/// What kerf needs to know of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Its identity.
    pub uid: PodUid,
    /// Its name.
    pub pod: PodRef,
    /// The node it is bound to.
    pub node: Option<NodeName>,
    /// Whether it has ended (phase `Succeeded` or `Failed`), so that its cards are free. A pod that is being
    /// deleted has not: its containers may still run.
    pub ended: bool,
    /// What it asks for; `None` where it asks for no card.
    pub request: Result<Option<Arc<GpuRequest>>, RequestError>,
    /// What its annotations say of its placement; [`Record::Absent`] without a request.
    pub record: Record,
    /// Whether its node has given it its cards.
    pub confirmed: bool,
    /// What it tolerates, while it waits for a node and asks for cards; empty otherwise.
    pub tolerations: Box<[Toleration]>,
}

/// What kerf needs to know of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Its cards, cordons applied; all are cordoned while the Node is being deleted.
    pub inventory: Result<Inventory, Unreadable>,
}

/// What a pod asks for, from its containers and annotations.
///
/// # Errors
/// [`RequestError`] where it breaks a rule of the contract.
pub fn request(pod: &Pod, keys: &Keys) -> Result<Option<GpuRequest>, RequestError> {
    let Some(spec) = &pod.spec else { return Ok(None) };
    let annotation = |key: &str| pod.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let inits = spec.init_containers.iter().flatten().map(|container| {
        let kind = match container.restart_policy.as_deref() {
            Some("Always") => ContainerKind::Sidecar,
            _ => ContainerKind::Init,
        };
        (container, kind)
    });
    let apps = spec.containers.iter().map(|container| (container, ContainerKind::App));
    let containers: Vec<_> =
        inits.chain(apps).map(|(container, kind)| (container, kind, counted(container, keys))).collect();
    let annotations = RawAnnotations {
        limit: annotation(&keys.core_limit),
        policy: annotation(&keys.policy),
        isolation: annotation(&keys.isolation),
        arrangement: annotation(&keys.shares),
    };
    let raw = containers.iter().map(|(container, kind, counted)| RawContainer {
        name: &container.name,
        kind: *kind,
        core: amount(container, &keys.core),
        memory: amount(container, &keys.memory),
        counted,
    });
    let request = GpuRequest::parse(raw, annotations)?;
    let request = request.map(|request| users::demanding(request, pod));
    Ok(request.map(|request| GpuRequest { priority: spec.priority.unwrap_or_default(), ..request }))
}

/// Kubernetes wants requests equal to limits for extended resources, and copies limits into requests.
fn amount<'a>(container: &'a Container, key: &str) -> Option<&'a str> {
    let resources = container.resources.as_ref()?;
    let of = |amounts: &'a Option<BTreeMap<String, Quantity>>| Some(amounts.as_ref()?.get(key)?.0.as_str());
    of(&resources.limits).or_else(|| of(&resources.requests))
}

/// The amounts of all resources that are shares by count.
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
    let record = match &request {
        Ok(Some(request)) => annotation::read(annotations, keys, request),
        _ => Record::Absent,
    };
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
    let tolerations = match (&request, node) {
        (Ok(Some(_)), None) => Toleration::of(pod),
        _ => Box::default(),
    };
    Some(PodView {
        uid: metadata.uid.as_deref().filter(|uid| !uid.is_empty())?.into(),
        pod: PodRef::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref()?),
        node: node.map(NodeName::from),
        ended: matches!(phase, "Succeeded" | "Failed"),
        request,
        record,
        // a running pod's containers have their devices, whoever gave them
        confirmed: annotation::confirmed(annotations, keys) || phase == "Running",
        tolerations,
    })
}

/// Translates a Node. `None` where it has no name, which the API server never sends.
pub fn node(node: &Node, keys: &Keys) -> Option<NodeView> {
    let annotation = |key: &str| node.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let capacity = |key: &str| {
        let capacity = node.status.as_ref()?.capacity.as_ref()?.get(key)?;
        parse_quantity(&capacity.0).ok()
    };
    let inventory = match annotation(&keys.inventory) {
        Some(text) => inventory::decode(text),
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
            // its pods are counted until they are gone; kube-scheduler itself would go on binding to it
            inventory.cordon_all();
        }
        inventory
    });
    Some(NodeView { name: node.metadata.name.as_deref()?.into(), inventory })
}
