//! The forms in which autoscalers are told of a node group.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::Taint;
use serde_json::{Value, json};

use super::group::{Group, INSTANCE_TYPE};
use super::names;

/// How the tags of Cluster Autoscaler begin (`cluster-autoscaler/cloudprovider/aws/README.md`, "Auto-Discovery Setup").
const TAG: &str = "k8s.io/cluster-autoscaler/node-template";
/// How the annotations of Cluster Autoscaler's provider for Cluster API begin
/// (`cluster-autoscaler/cloudprovider/clusterapi/README.md`, "Scale from zero support").
const ANNOTATION: &str = "capacity.cluster-autoscaler.kubernetes.io";
/// In characters: the longest key of a tag in AWS (Tag, Amazon EC2 Auto Scaling API Reference).
const LONGEST_TAG: usize = 128;

pub struct Template {
    pub object: Value,
    /// What the autoscaler also needs, and cannot be told in this form.
    pub notes: Vec<String>,
}

/// A NodeOverlay (`karpenter.sh/v1alpha1`; `pkg/apis/v1alpha1/nodeoverlay.go` in kubernetes-sigs/karpenter): it adds
/// extended resources to instance types, never `cpu`, `memory`, `ephemeral-storage` or `pods`, and has no labels or taints,
/// which are the NodePool's.
pub fn karpenter(group: &Group, name: Option<&str>, types: &[String]) -> anyhow::Result<Template> {
    let own: Vec<String> = group.instance_type.iter().filter(|label| !label.is_empty()).cloned().collect();
    let types = if types.is_empty() { own.as_slice() } else { types };
    let first = types.first().with_context(|| {
        format!("node {} has no label {INSTANCE_TYPE}: name the instance types with --instance-type", group.node)
    })?;
    if let Some(Err(wrong)) = types.iter().map(|label| names::label(label)).find(Result::is_err) {
        bail!("node {}: label {INSTANCE_TYPE}: {wrong}", group.node);
    }
    let name = match name {
        Some(name) => names::object(name).map_err(|wrong| anyhow!("--group {name:?}: {wrong}"))?,
        None => names::derived(&format!("kerf-{first}")),
    };
    let object = json!({
        "apiVersion": "karpenter.sh/v1alpha1",
        "kind": "NodeOverlay",
        "metadata": { "name": name },
        "spec": {
            "requirements": [{ "key": INSTANCE_TYPE, "operator": "In", "values": types }],
            "capacity": amounts(group),
        },
    });
    Ok(Template { object, notes: Vec::new() })
}

/// Tags of an Auto Scaling group, as `aws autoscaling create-or-update-tags --cli-input-json` reads them. Cluster
/// Autoscaler knows CPU and memory from the instance type.
pub fn asg(group: &Group, name: &str) -> anyhow::Result<Template> {
    let mut notes = Vec::new();
    let mut tags: BTreeMap<String, String> = BTreeMap::new();
    tags.extend(
        group.resources.iter().map(|(name, amount)| (format!("{TAG}/resources/{name}"), amount.to_string())),
    );
    tags.extend(group.labels.iter().map(|(key, value)| (format!("{TAG}/label/{key}"), value.clone())));
    for Taint { key, value, effect, .. } in &group.taints {
        let value = format!("{}:{effect}", value.as_deref().unwrap_or_default());
        if let Some(other) = tags.insert(format!("{TAG}/taint/{key}"), value.clone()) {
            notes.push(format!("a group has one tag for the taint {key}: {value} stands for {other} as well"));
        }
    }
    if let Some(long) = tags.keys().find(|key| key.chars().count() > LONGEST_TAG) {
        bail!(
            "{long}: the key of a tag has at most {LONGEST_TAG} characters in AWS: let the group keep a node (minimum 1)"
        );
    }
    let tag = |(key, value): (String, String)| {
        json!({
            "ResourceId": name, "ResourceType": "auto-scaling-group",
            "Key": key, "Value": value, "PropagateAtLaunch": false,
        })
    };
    let tags: Vec<Value> = tags.into_iter().map(tag).collect();
    Ok(Template { object: json!({ "Tags": tags }), notes })
}

/// Annotations of a MachineDeployment or MachineSet. One extended resource can be named (`gpu-type`).
pub fn cluster_api(group: &Group) -> Template {
    let mut notes = Vec::new();
    let mut annotations: BTreeMap<String, String> = BTreeMap::new();
    let mut annotate = |key: &str, value: String| drop(annotations.insert(format!("{ANNOTATION}/{key}"), value));
    // Cluster Autoscaler takes them for what pods can have
    for (resource, key) in
        [("cpu", "cpu"), ("memory", "memory"), ("pods", "maxPods"), ("ephemeral-storage", "ephemeral-disk")]
    {
        match group.host.get(resource) {
            Some(amount) => annotate(key, amount.clone()),
            None if ["cpu", "memory"].contains(&resource) => notes.push(format!(
                "the {resource} of node {} is not known: the group needs {ANNOTATION}/{key} as well, unless its machine \
                 template has it",
                group.node
            )),
            None => {}
        }
    }
    if let Some(amount) = group.resources.get(&group.main) {
        annotate("gpu-type", group.main.clone());
        annotate("gpu-count", amount.to_string());
    }
    let list = |entries: Vec<String>| Some(entries.join(",")).filter(|list| !list.is_empty());
    let labels = list(group.labels.iter().map(|(key, value)| format!("{key}={value}")).collect());
    let taints = list(group.taints.iter().map(taint).collect());
    for (key, value) in [("labels", labels), ("taints", taints)] {
        if let Some(value) = value {
            annotate(key, value);
        }
    }
    let others: Vec<&str> =
        group.resources.keys().filter(|name| **name != group.main).map(String::as_str).collect();
    if !others.is_empty() {
        notes.push(format!(
            "annotations name one resource of GPUs: for {} see --format cluster-api-template",
            others.join(", ")
        ));
    }
    Template { object: json!({ "metadata": { "annotations": annotations } }), notes }
}

/// `status.capacity` of an infrastructure provider's machine template
/// (`docs/proposals/20210310-opt-in-autoscaling-from-zero.md` in kubernetes-sigs/cluster-api): any number of resources.
/// Annotations take precedence over it, resource by resource.
pub fn cluster_api_template(group: &Group) -> Template {
    Template { object: json!({ "status": { "capacity": amounts(group) } }), notes: Vec::new() }
}

/// Quantities are texts.
fn amounts(group: &Group) -> BTreeMap<&str, String> {
    group.resources.iter().map(|(name, amount)| (name.as_str(), amount.to_string())).collect()
}

/// `key=value:effect`, without `=` where there is no value.
fn taint(Taint { key, value, effect, .. }: &Taint) -> String {
    match value.as_deref().unwrap_or_default() {
        "" => format!("{key}:{effect}"),
        value => format!("{key}={value}:{effect}"),
    }
}
