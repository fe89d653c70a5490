//! What nodes of a group have, by one of them.

use std::collections::BTreeMap;

use anyhow::{anyhow, ensure};
use k8s_openapi::api::core::v1::{Node, Taint};
use kerf::annotation::Keys;
use kerf::k8s;
use kerf::units::parse_quantity;

/// The label of Kubernetes for a machine's type.
pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
/// Labels by which DaemonSets of GPU plugins find their nodes.
const GATES: [&str; 2] = ["nvidia-device-enable", "intel.feature.node.kubernetes.io/gpu"];
/// How the keys of taints begin that a node has for a while only: those of Kubernetes' controllers (conditions, cordon,
/// start at a cloud), of Cluster Autoscaler (`cluster-autoscaler/FAQ.md`: startup, status and ignore taints;
/// `utils/taints`), of Karpenter and of Cluster API.
const PASSING: [&str; 9] = [
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "startup-taint.cluster-autoscaler.kubernetes.io/",
    "status-taint.cluster-autoscaler.kubernetes.io/",
    "ignore-taint.cluster-autoscaler.kubernetes.io/",
    "ToBeDeletedByClusterAutoscaler",
    "DeletionCandidateOfClusterAutoscaler",
    "karpenter.sh/",
    "node.cluster.x-k8s.io/",
];

/// What a new node of the group will have.
#[derive(Debug)]
pub struct Group {
    /// The node that it was read from.
    pub node: String,
    /// Where the node has the label.
    pub instance_type: Option<String>,
    /// Amounts of kerf's and the placed profiles' resources, with all GPUs healthy.
    pub resources: BTreeMap<String, u64>,
    /// What kubelet offers of other resources that an autoscaler may have to be told (`cpu`, `memory`, `pods`,
    /// `ephemeral-storage`), as the Node writes it.
    pub host: BTreeMap<String, String>,
    /// The labels that have to do with GPUs.
    pub labels: BTreeMap<String, String>,
    /// Those that stay.
    pub taints: Vec<Taint>,
    /// The resource that stands for GPUs where only one can be named.
    pub main: String,
}

impl Group {
    /// # Errors
    /// Where the node has no GPUs, or their list cannot be read.
    pub fn of(node: &Node, keys: &Keys) -> anyhow::Result<Self> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let resources = resources(node, keys).map_err(|error| error.context(format!("node {name}")))?;
        let main = if resources.contains_key(&keys.core) { Some(&keys.core) } else { resources.keys().next() };
        let main = main.cloned().unwrap_or_default();
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let annotations = node.metadata.annotations.iter().flatten();
        let lists = annotations.filter(|(key, _)| key.starts_with(&keys.labels));
        let own = lists.flat_map(|(_, list)| list.split(',')).chain(GATES);
        let spec = node.spec.as_ref();
        let taints = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let passing =
            |taint: &Taint| taint.key == keys.starting || PASSING.iter().any(|start| taint.key.starts_with(start));
        let offered = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let known = ["cpu", "memory", "pods", "ephemeral-storage"];
        let host = known.into_iter().filter_map(|name| Some((name.to_owned(), offered?.get(name)?.0.clone())));
        Ok(Self {
            host: host.collect(),
            instance_type: labels.get(INSTANCE_TYPE).cloned(),
            labels: own.filter_map(|key| Some((key.to_owned(), labels.get(key)?.clone()))).collect(),
            taints: taints.into_iter().filter(|taint| !passing(taint)).collect(),
            node: name,
            resources,
            main,
        })
    }
}

/// The resources of a node's GPUs by its inventory: `vcuda` unless the Node is known not to offer it, and the counted
/// shares that the GPUs are offered as. Unhealthy and cordoned GPUs count: a new node has neither.
fn resources(node: &Node, keys: &Keys) -> anyhow::Result<BTreeMap<String, u64>> {
    let view = k8s::node(node, keys).ok_or_else(|| anyhow!("a Node without a name"))?;
    let inventory = view.inventory.map_err(|why| anyhow!("{}: {why}", keys.inventory))?;
    let devices = inventory.devices();
    ensure!(
        !devices.is_empty(),
        "it has no GPUs: neither {} nor {} in its capacity; take a node that the plugin serves, or see --domain",
        keys.inventory,
        keys.core
    );
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    let amount = |key: &String| parse_quantity(&capacity?.get(key)?.0).ok();
    let mut resources = BTreeMap::new();
    if view.inferred {
        let amounts = [&keys.core, &keys.memory].map(|key| Some((key.clone(), amount(key)?)));
        return Ok(amounts.into_iter().flatten().filter(|(_, amount)| *amount > 0).collect());
    }
    let counted = devices.iter().flat_map(|device| &device.offers);
    for (name, shares) in counted {
        *resources.entry(name.as_str().to_owned()).or_default() += u64::from(shares.get());
    }
    let offers_vcuda = match capacity {
        Some(capacity) if !capacity.is_empty() => capacity.contains_key(&keys.core),
        _ => devices.iter().any(|device| device.offers.is_empty()),
    };
    if offers_vcuda {
        resources.insert(keys.core.clone(), 100 * devices.len() as u64);
        let memory: u64 = devices.iter().map(|device| device.memory.to_memory_units()).sum();
        resources.insert(keys.memory.clone(), memory);
    }
    Ok(resources)
}
