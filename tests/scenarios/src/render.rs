//! The objects of a scenario as the API server has them. Every pod is in namespace `default`, and its uid is its
//! name after `uid-`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Container, Kind, Node, Pod, SHARES, Scenario};

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
        let mut annotations = BTreeMap::new();
        if let (Some((core, memory)), Some(shares)) = (self.capacity, self.shares) {
            let cards = core / 100;
            amounts.insert(SHARES.to_owned(), (cards * u64::from(shares)).to_string());
            let card = |index: u64| {
                json!({ "uuid": uuid(&self.name, &index.to_string()), "index": index, "model": "",
                        "memory_mib": memory / cards * 256, "health": "healthy", "offers": { SHARES: shares } })
            };
            let gpus: Vec<Value> = (0..cards).map(card).collect();
            let inventory = json!({ "version": 1, "gpus": gpus });
            annotations.insert(format!("{domain}/gpu-inventory"), inventory.to_string());
        }
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name,
                "uid": format!("uid-{}", self.name),
                "labels": {},
                "annotations": annotations,
            },
            "status": { "capacity": amounts, "allocatable": amounts },
        })
    }
}

impl Pod {
    /// What gpu-admission wrote on it, or kerf where it has shares by count; `time` in nanoseconds.
    pub fn annotations(&self, domain: &str, time: u64) -> BTreeMap<String, String> {
        if self.containers.iter().any(|container| container.shares.is_some()) {
            return self.placement(domain, time);
        }
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

    fn placement(&self, domain: &str, time: u64) -> BTreeMap<String, String> {
        let containers = self.containers.iter().zip(&self.record).enumerate();
        let container = |(at, (container, record)): (usize, (&Container, &Option<String>))| {
            let (card, count) = (record.as_ref()?, container.shares.as_ref()?.parse::<u32>().ok()?);
            // how much a share is, the node says
            let slice = json!({ "gpu": uuid(&self.node, card), "index": card.parse::<u32>().ok()?,
                                "compute": count, "count": count });
            Some(json!({ "name": container.name, "kind": "app", "position": at, "whole": false, "resource": SHARES,
                         "slices": [slice] }))
        };
        let containers: Vec<Value> = containers.filter_map(container).collect();
        if containers.is_empty() {
            return BTreeMap::new();
        }
        let placement = json!({ "version": 1, "node": self.node, "time": time, "containers": containers });
        BTreeMap::from([(format!("{domain}/gpu-placement"), placement.to_string())])
    }

    /// The Pod as the API server has it.
    pub fn json(&self, domain: &str, time: u64) -> Value {
        let node = self.bound.then_some(self.node.as_str());
        object(&self.name, node, self.phase, &self.containers, &self.annotations(domain, time), domain)
    }
}

/// The name of a card of a node that says what its cards are.
fn uuid(node: &str, index: &str) -> String {
    format!("GPU-{node}-{index}")
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
        let amounts = keys.iter().map(|(key, value)| (format!("{domain}/{key}"), *value));
        let amounts = amounts.chain([(SHARES.to_owned(), &container.shares)]);
        let amounts: BTreeMap<String, &String> =
            amounts.filter_map(|(key, value)| Some((key, value.as_ref()?))).collect();
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
