//! The one write by which a pod gets its node.

use serde_json::{Value, json};

use super::failure::Failure;
use super::object;
use crate::clock;

const RESOURCE: &str = "pods/binding";

/// The pod as it is after a `Binding`: node, annotations and condition in one version.
pub(crate) fn bind(pod: &Value, binding: &Value) -> Result<Value, Failure> {
    let name = object::name(pod);
    let node = object::text(binding, &["target", "name"]);
    let kind = object::text(binding, &["target", "kind"]);
    if node.is_empty() {
        return Err(Failure::invalid("Binding", name, "target.name: Required value"));
    }
    if !matches!(kind, "" | "Node") {
        return Err(Failure::invalid(
            "Binding",
            name,
            "target.kind: Unsupported value: supported values: \"Node\", \"<empty>\"",
        ));
    }
    let wanted = object::uid(binding);
    if !wanted.is_empty() && wanted != object::uid(pod) {
        return Err(Failure::wrong_uid(RESOURCE, name, wanted, object::uid(pod)));
    }
    if object::is_deleting(pod) {
        return Err(Failure::conflict(
            RESOURCE,
            name,
            format!("pod {name} is being deleted, cannot be assigned to a host"),
        ));
    }
    let assigned = object::node_name(pod);
    if !assigned.is_empty() {
        return Err(Failure::conflict(
            RESOURCE,
            name,
            format!("pod {name} is already assigned to node \"{assigned}\""),
        ));
    }
    let mut bound = pod.clone();
    object::set(&mut bound, &["spec", "nodeName"], node.into());
    for (key, value) in
        object::at(binding, &["metadata", "annotations"]).and_then(Value::as_object).into_iter().flatten()
    {
        object::set(&mut bound, &["metadata", "annotations", key], value.clone());
    }
    let mut conditions: Vec<Value> =
        object::at(&bound, &["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
    conditions.retain(|condition| object::text(condition, &["type"]) != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": clock::now(),
    }));
    object::set(&mut bound, &["status", "conditions"], conditions.into());
    Ok(bound)
}
