//! The objects of a scenario as the API server has them. Every pod is in namespace `default`, and its uid is its
//! name after `uid-`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Container, Kind, Node, Pod, Scenario};

impl Scenario {
    /// Name of the requesting pod.
    pub fn pod_name(&self) -> String {
        self.id.to_lowercase()
    }

    /// The requesting pod, unbound.
    pub fn pod_json(&self, domain: &str) -> Value {
        let annotations = self.request.annotations.iter().map(|(k, v)| (format!("{domain}/{k}"), v.clone()));
        object(&self.pod_name(), None, "Pending", &self.request.containers, &annotations.collect(), domain)
    }
}

impl Node {
    /// The Node as the API server has it.
    pub fn json(&self, domain: &str) -> Value {
        let mut amounts = BTreeMap::from([("cpu".to_owned(), "64".to_owned())]);
        if let Some((core, memory)) = self.capacity {
            amounts.insert(format!("{domain}/vcuda-core"), core.to_string());
            amounts.insert(format!("{domain}/vcuda-memory"), memory.to_string());
        }
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": self.name, "uid": format!("uid-{}", self.name), "labels": {} },
            "status": { "capacity": amounts, "allocatable": amounts },
        })
    }
}

impl Pod {
    /// What gpu-admission wrote on it, `time` in nanoseconds.
    pub fn annotations(&self, domain: &str, time: u64) -> BTreeMap<String, String> {
        let indices = self.record.iter().enumerate().filter_map(|(at, text)| Some((at, text.clone()?)));
        let mut annotations: BTreeMap<String, String> =
            indices.map(|(at, text)| (format!("{domain}/predicate-gpu-idx-{at}"), text)).collect();
        if !annotations.is_empty() {
            let assigned = if self.phase == "Pending" { "false" } else { "true" };
            annotations.insert(format!("{domain}/gpu-assigned"), assigned.into());
            annotations.insert(format!("{domain}/predicate-node"), self.node.clone());
            annotations.insert(format!("{domain}/predicate-time"), time.to_string());
        }
        annotations
    }

    /// The Pod as the API server has it.
    pub fn json(&self, domain: &str, time: u64) -> Value {
        let node = self.bound.then_some(self.node.as_str());
        object(&self.name, node, self.phase, &self.containers, &self.annotations(domain, time), domain)
    }
}

fn object(
    name: &str,
    node: Option<&str>,
    phase: &str,
    containers: &[Container],
    annotations: &BTreeMap<String, String>,
    domain: &str,
) -> Value {
    let container = |container: &&Container| {
        let keys = [("vcuda-core", &container.core), ("vcuda-memory", &container.memory)];
        let amounts: BTreeMap<String, &String> =
            keys.iter().filter_map(|(key, value)| Some((format!("{domain}/{key}"), value.as_ref()?))).collect();
        let mut object = json!({
            "name": container.name,
            "image": "registry.invalid/app",
            "resources": { "limits": amounts, "requests": amounts },
        });
        if container.kind == Kind::Sidecar {
            object["restartPolicy"] = "Always".into();
        }
        object
    };
    let (apps, inits): (Vec<_>, Vec<_>) = containers.iter().partition(|container| container.kind == Kind::App);
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": format!("uid-{name}"),
            "annotations": annotations,
        },
        "spec": {
            "containers": apps.iter().map(container).collect::<Vec<_>>(),
            "initContainers": inits.iter().map(container).collect::<Vec<_>>(),
        },
        "status": { "phase": phase },
    });
    if let Some(node) = node {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}
