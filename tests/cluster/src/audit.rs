//! Compares every source of placements: the pods' records in the API server, kubelet's PodResources and checkpoint,
//! the running containers, the extender, the plugins. Disagreements are reported as texts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use k8s_openapi::api::core::v1::{ContainerStatus, Node as NodeObject, Pod};
use kerf::k8s;
use kerf::plan::{ContainerGrant, Placement};
use kerf::request::ContainerKind;
pub use kerf_system::records::Audit;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use crate::books::{self, Books, card};
use crate::cards::{Cards, DEVICES};
use crate::cluster::Cluster;
use crate::node::Node;

/// An audit in progress.
#[derive(Default)]
struct Walk {
    audit: Audit,
    /// Names of the audited pods, by uid.
    uids: BTreeMap<String, String>,
}

/// Compares all sources; pods must be at rest.
///
/// # Errors
/// Where one of the sources does not answer.
pub async fn audit(cluster: &Cluster) -> anyhow::Result<Audit> {
    let mut walk = Walk::default();
    let pods = Api::<Pod>::all(cluster.client.clone()).list(&ListParams::default()).await?;
    let mut kubelets = BTreeMap::new();
    for node in &cluster.nodes {
        let resources = books::pod_resources(node).await?;
        walk.exclusive(&node.name, &resources);
        kubelets.insert(node.name.as_str(), (resources, books::checkpoint(node)?));
    }
    for pod in &pods {
        walk.pod(cluster, &kubelets, pod)?;
    }
    for (node, (resources, _)) in &kubelets {
        for (pod, containers) in resources {
            let gpus = containers.values().any(|resources| resources.contains_key(&cluster.keys.core));
            if gpus && !walk.audit.placed.contains_key(pod) {
                walk.audit.object(format!("{pod}: kubelet of {node} counts a pod that is not there"));
            }
        }
    }
    for node in Api::<NodeObject>::all(cluster.client.clone()).list(&ListParams::default()).await? {
        walk.audit.capacity(&node, &cluster.keys);
    }
    walk.extender(&cluster.extender_state().await?);
    for node in &cluster.nodes {
        walk.plugin(&node.name, &cluster.plugin_state(node).await?);
    }
    Ok(walk.audit)
}

impl Walk {
    fn pod(
        &mut self,
        cluster: &Cluster,
        kubelets: &BTreeMap<&str, (Books, Books)>,
        pod: &Pod,
    ) -> anyhow::Result<()> {
        let Some(view) = k8s::pod(pod, &cluster.keys) else { return Ok(()) };
        if !matches!(view.request, Ok(Some(_))) {
            return Ok(());
        }
        let name = view.pod.to_string();
        let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref()).unwrap_or_default();
        if reason == "UnexpectedAdmissionError" {
            let message = pod.status.as_ref().and_then(|status| status.message.as_deref()).unwrap_or_default();
            self.audit.object(format!("{name}: {reason}: {message}"));
        }
        let uid = view.uid.to_string();
        let Some((node, placement)) = self.audit.placement(view) else { return Ok(()) };
        let (machine, Some((resources, checkpoint))) = (cluster.node(node.as_str())?, kubelets.get(node.as_str()))
        else {
            return Ok(());
        };
        let kubelet = Kubelet {
            machine,
            resources: resources.get(&name).cloned().unwrap_or_default(),
            checkpoint: checkpoint.get(&uid).cloned().unwrap_or_default(),
            reused: placement.plan.grants.iter().any(|grant| grant.kind == ContainerKind::Init),
        };
        // ordinary init containers have ended, and kubelet does not list them
        for grant in placement.plan.grants.iter().filter(|grant| grant.kind != ContainerKind::Init) {
            kubelet.container(&mut self.audit, cluster, &name, pod, grant);
        }
        self.uids.insert(uid, name.clone());
        self.audit.count(name, &node, placement);
        Ok(())
    }

    /// Checks that no id is held by two pods.
    fn exclusive(&mut self, node: &str, resources: &Books) {
        let mut holders: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        for (pod, containers) in resources {
            for (resource, ids) in containers.values().flatten() {
                for id in ids {
                    let other = holders.insert((resource, id), pod);
                    if let Some(other) = other.filter(|other| other != pod) {
                        self.audit.object(format!("{node}: {id} of {resource} is held by {other} and {pod}"));
                    }
                }
            }
        }
    }

    /// The extender counts exactly what the records contain.
    fn extender(&mut self, state: &Value) {
        let mut counted = BTreeSet::new();
        for (node, view) in state["nodes"].as_object().into_iter().flatten() {
            for (uid, pod) in view["pods"].as_object().into_iter().flatten() {
                counted.insert(uid.clone());
                let name = pod["pod"].as_str().unwrap_or_default();
                let Some(placement) = self.uids.get(uid).and_then(|name| self.audit.placed.get(name)) else {
                    self.audit.object(format!("{name}: the extender counts it on {node}, and it is not there"));
                    continue;
                };
                let told: BTreeMap<&str, BTreeSet<&str>> = pod["containers"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, gpus)| {
                        let gpus = gpus.as_array().into_iter().flatten().filter_map(Value::as_str);
                        (name.as_str(), gpus.collect())
                    })
                    .collect();
                if told != cards(placement) || placement.node.as_str() != node {
                    let text = format!("{name}: the extender has {told:?} on {node}, its record {placement:?}");
                    self.audit.object(text);
                }
            }
            for card in view["gpus"].as_array().into_iter().flatten() {
                let key = format!("{node}/{}", card["gpu"].as_str().unwrap_or_default());
                let used = self.audit.used.get(&key).copied().unwrap_or_default();
                let told = (card["used_compute"].as_u64(), card["used_memory_mib"].as_u64());
                if told != (Some(used.compute.0.into()), Some(used.memory.0)) {
                    self.audit.object(format!("{key}: the extender counts {told:?}, the records {used:?}"));
                }
            }
        }
        let missing: Vec<String> =
            self.uids.iter().filter(|(uid, _)| !counted.contains(*uid)).map(|(_, name)| name.clone()).collect();
        missing.into_iter().for_each(|name| self.audit.object(format!("{name}: the extender does not count it")));
    }

    /// The plugin knows every pod of its node, with the GPUs of its record, and has confirmed it.
    fn plugin(&mut self, node: &str, state: &Value) {
        let mut known = BTreeMap::new();
        for pod in state["pods"].as_array().into_iter().flatten() {
            known.insert(pod["uid"].as_str().unwrap_or_default(), pod);
        }
        for (uid, name) in self.uids.clone() {
            let Some(placement) = self.audit.placed.get(&name).filter(|placement| placement.node.as_str() == node)
            else {
                continue;
            };
            let Some(pod) = known.get(uid.as_str()) else {
                self.audit.object(format!("{name}: the plugin of {node} does not know it"));
                continue;
            };
            let mut told: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            for container in pod["containers"].as_array().into_iter().flatten() {
                let slices = container["slices"].as_array().into_iter().flatten();
                let gpus = slices.filter_map(|slice| slice["gpu"].as_str()).collect();
                told.insert(container["name"].as_str().unwrap_or_default(), gpus);
            }
            if told != cards(placement) {
                let text = format!("{name}: the plugin has {told:?}, its record {placement:?}");
                self.audit.object(text);
            }
        }
    }
}

/// The GPUs of each container.
fn cards(placement: &Placement) -> BTreeMap<&str, BTreeSet<&str>> {
    let grants = placement.plan.grants.iter();
    grants.map(|grant| (grant.container.as_str(), grant.gpus.ids().map(|id| id.as_str()).collect())).collect()
}

/// The devices that one kubelet records for one pod.
struct Kubelet<'a> {
    machine: &'a Node,
    resources: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    checkpoint: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// Whether the pod has an ordinary init container: kubelet gives its ids to other containers, at random.
    reused: bool,
}

impl Kubelet<'_> {
    /// Checks that kubelet's ids, its checkpoint and the container itself name the placed GPUs.
    fn container(&self, audit: &mut Audit, cluster: &Cluster, pod: &str, object: &Pod, grant: &ContainerGrant) {
        let name = format!("{pod}/{}", grant.container);
        let placed: BTreeSet<&str> = grant.gpus.ids().map(|id| id.as_str()).collect();
        let held = self.resources.get(grant.container.as_str());
        if held != self.checkpoint.get(grant.container.as_str()) {
            audit.object(format!("{name}: PodResources and checkpoint of kubelet differ"));
        }
        let units: u32 = grant.gpus.amounts().map(|(_, share)| share.compute.to_core_units()).sum();
        let core = held.and_then(|held| held.get(&cluster.keys.core)).map_or(0, BTreeSet::len);
        if core != units as usize {
            audit.object(format!("{name}: kubelet gave {core} units of core, placed are {units}"));
        }
        for resource in [&cluster.keys.core, &cluster.keys.memory] {
            let ids = held.and_then(|held| held.get(resource)).into_iter().flatten();
            let cards: BTreeSet<&str> = ids.map(|id| card(id)).collect();
            // memory is optional with whole GPUs, and a few units cannot name each of several
            let apart = grant.gpus.is_whole() && *resource == cluster.keys.memory && cards.is_subset(&placed);
            if cards != placed && !apart && !self.reused {
                audit.object(format!("{name}: kubelet gave {cards:?} of {resource}, placed on {placed:?}"));
            }
        }
        let statuses = object.status.iter().flat_map(|status| {
            let all = [&status.container_statuses, &status.init_container_statuses];
            all.into_iter().flatten().flatten()
        });
        let own = statuses.into_iter().find(|status| status.name == grant.container.as_str());
        match own.filter(|status| running(status)).and_then(|status| status.container_id.as_deref()) {
            None => audit.object(format!("{name}: does not run")),
            Some(id) => match self.given(id) {
                Err(error) => audit.object(format!("{name}: {error:#}")),
                Ok((visible, devices)) => {
                    let seen: BTreeSet<&str> = visible.split(',').collect();
                    if seen != placed {
                        audit.object(format!("{name}: the container sees {seen:?}, placed on {placed:?}"));
                    }
                    let own = |device: &kerf::ids::DeviceId| {
                        self.machine.cards.uuids().iter().position(|uuid| uuid == device.as_str())
                    };
                    let wanted: BTreeSet<_> = grant.gpus.ids().filter_map(own).map(Cards::device).collect();
                    if devices != wanted {
                        audit.object(format!("{name}: the container has {devices:?}, placed on {placed:?}"));
                    }
                }
            },
        }
    }

    /// Environment and device files of a running container, as the kernel shows them.
    fn given(&self, id: &str) -> anyhow::Result<(String, BTreeSet<std::path::PathBuf>)> {
        let pid = self.machine.container_pid(id)?;
        let environment = std::fs::read(format!("/proc/{pid}/environ"))?;
        let text = String::from_utf8_lossy(&environment).into_owned();
        let visible = text.split('\0').find_map(|line| line.strip_prefix("NVIDIA_VISIBLE_DEVICES="));
        let directory = format!("/proc/{pid}/root{DEVICES}");
        let mut devices = BTreeSet::new();
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            devices.insert(Path::new(DEVICES).join(entry?.file_name()));
        }
        Ok((visible.unwrap_or_default().to_owned(), devices))
    }
}

fn running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}
