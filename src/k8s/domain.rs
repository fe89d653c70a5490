//! Resource domains other than the served one: no ledger counts the cards that were given under them.

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::annotation::Keys;
use crate::units::parse_quantity;

const CORE: &str = "/vcuda-core";
const INVENTORY: &str = "/gpu-inventory";

/// The resource of another domain by which a pod holds cards where it is bound; `None` where it holds none.
pub fn held_elsewhere<'a>(pod: &'a Pod, keys: &Keys) -> Option<&'a str> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let resources = containers.filter_map(|container| container.resources.as_ref());
    let mut amounts = resources.flat_map(|of| of.limits.iter().chain(&of.requests).flatten());
    let other = |name: &str| name.ends_with(CORE) && name != keys.core;
    amounts.find(|(name, amount)| other(name) && parse_quantity(&amount.0) != Ok(0)).map(|(name, _)| name.as_str())
}

/// The annotation (inventory) or resource (capacity) by which a node has cards under another domain.
pub fn offered_elsewhere<'a>(node: &'a Node, keys: &Keys) -> Option<&'a str> {
    let mut annotations = node.metadata.annotations.iter().flatten().map(|(key, _)| key.as_str());
    let inventory = annotations.find(|key| key.ends_with(INVENTORY) && *key != keys.inventory);
    let capacity = || {
        let mut capacity = node.status.as_ref()?.capacity.iter().flatten();
        let other = |name: &str| name.ends_with(CORE) && name != keys.core;
        capacity.find(|(name, amount)| other(name) && amount.0 != "0").map(|(name, _)| name.as_str())
    };
    inventory.or_else(capacity)
}
