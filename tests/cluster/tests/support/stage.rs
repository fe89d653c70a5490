//! A namespace of the cluster for one test: creates pods, waits for them, and clears them away.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kerf_cluster::audit::{Audit, audit};
use kerf_cluster::cluster::Cluster;
use kerf_cluster::identity::Identity;
use kerf_cluster::node::Node;
use kerf_cluster::wait::{Never, until};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::draft::Draft;

/// Long enough for everything that should happen soon, on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// A test's namespace.
pub struct Stage<'a> {
    pub cluster: &'a Cluster,
    namespace: String,
}

impl<'a> Stage<'a> {
    pub async fn new(cluster: &'a Cluster, test: &str) -> anyhow::Result<Self> {
        let namespace = test.replace("::", "-").replace('_', "-");
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        let object = serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
        namespaces.create(&PostParams::default(), &object).await?;
        let stage = Self { cluster, namespace };
        cluster.admits(&stage.namespace).await?;
        Ok(stage)
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// The first two nodes.
    pub fn two_nodes(&self) -> anyhow::Result<(&'a Node, &'a Node)> {
        match self.cluster.nodes.as_slice() {
            [first, second, ..] => Ok((first, second)),
            _ => bail!("needs two nodes"),
        }
    }

    /// All pods in their current state.
    pub async fn list(&self) -> anyhow::Result<Vec<Pod>> {
        Ok(self.pods().list(&ListParams::default()).await?.items)
    }

    pub async fn create(&self, draft: &Draft) -> anyhow::Result<Pod> {
        self.create_object(draft.value().clone()).await
    }

    /// Creates a pod from JSON. Where pods are not routed, one that names no scheduler names kerf's.
    pub async fn create_object(&self, value: Value) -> anyhow::Result<Pod> {
        create(self.pods(), self.named(value)).await
    }

    fn named(&self, mut value: Value) -> Value {
        if self.cluster.pods().is_ok_and(|pods| !pods.routes) && value["spec"]["schedulerName"].is_null() {
            value["spec"]["schedulerName"] = "kerf-scheduler".into();
        }
        value
    }

    /// Creates all of them at once.
    pub async fn create_all(&self, drafts: &[Draft]) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        for draft in drafts {
            tasks.spawn(create(self.pods(), self.named(draft.value().clone())));
        }
        while let Some(created) = tasks.join_next().await {
            created??;
        }
        Ok(())
    }

    /// Waits until a pod's phase is one of these.
    pub async fn phase(&self, name: &str, phases: &[&str]) -> anyhow::Result<Pod> {
        until(SOON, &format!("{name} is {phases:?}"), async || {
            let pod = self.pods().get(name).await?;
            let now = phase(&pod);
            ensure!(phases.contains(&now), "{name} is {now}: {}", why(&pod));
            Ok(pod)
        })
        .await
    }

    /// Waits until every pod runs with all its containers.
    pub async fn all_run(&self, count: usize, limit: Duration) -> anyhow::Result<()> {
        until(limit, "all pods run", async || {
            let pods = self.list().await?;
            ensure!(pods.len() == count, "{} of {count} pods are there", pods.len());
            let failed: Vec<String> = pods.iter().filter(|pod| phase(pod) == "Failed").map(why).collect();
            if !failed.is_empty() {
                return Err(Never(format!("{} failed: {}", failed.len(), failed.join("; "))).into());
            }
            let others: Vec<String> = pods.iter().filter(|pod| !runs(pod)).map(why).collect();
            ensure!(others.is_empty(), "{} of {count} do not run: {}", others.len(), others.join("; "));
            Ok(())
        })
        .await
    }

    /// Waits until all parties agree about everything.
    pub async fn agreed(&self) -> anyhow::Result<Audit> {
        until(SOON, "all parties agree", async || audit(self.cluster).await?.agreed()).await
    }

    /// Waits for an event about a pod that contains this text.
    pub async fn event(&self, pod: &str, text: &str) -> anyhow::Result<String> {
        let events: Api<Event> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let of_pod = ListParams::default().fields(&format!("involvedObject.name={pod}"));
        until(SOON, &format!("an event of {pod} says {text:?}"), async || {
            let messages: Vec<String> =
                events.list(&of_pod).await?.into_iter().filter_map(|event| event.message).collect();
            let found = messages.iter().find(|message| message.contains(text));
            found.cloned().with_context(|| format!("events: {messages:?}"))
        })
        .await
    }

    /// The extender's view of a node: free units of core on each GPU, by index.
    pub async fn free(&self, node: &str) -> anyhow::Result<Vec<u64>> {
        let state = self.cluster.extender_state().await?;
        let cards = state["nodes"][node]["gpus"].as_array().with_context(|| format!("no node {node}"))?;
        // in thousandths of a GPU
        Ok(cards.iter().filter_map(|card| card["free_compute"].as_u64()).map(|free| free / 10).collect())
    }

    /// Waits until the extender counts all GPUs as free.
    pub async fn all_free(&self) -> anyhow::Result<()> {
        until(SOON, "all cards are free", async || {
            for node in &self.cluster.nodes {
                let free = self.free(&node.name).await?;
                ensure!(free == vec![100; node.cards.uuids().len()], "{}: {free:?}", node.name);
            }
            Ok(())
        })
        .await
    }

    /// Ends the first process of a pod's first container with SIGKILL.
    pub fn kill_container(&self, pod: &Pod) -> anyhow::Result<()> {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).context("no node")?;
        let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first());
        let id = status.and_then(|status| status.container_id.as_deref()).context("no container")?;
        let process = Identity::of(self.cluster.node(node)?.container_pid(id)?).context("gone")?;
        process.signal(Signal::KILL);
        Ok(())
    }

    /// Prints what may explain a failure.
    pub async fn report(&self) {
        for pod in self.list().await.unwrap_or_default() {
            if !runs(&pod) {
                println!("        {}", why(&pod));
            }
        }
    }

    /// Deletes everything and waits until all GPUs are free again.
    pub async fn clear(&self) -> anyhow::Result<()> {
        let everything = ListParams::default();
        // otherwise they would create their pods again
        let owners = DeleteParams::background();
        Api::<Deployment>::namespaced(self.cluster.client.clone(), &self.namespace)
            .delete_collection(&owners, &everything)
            .await?;
        Api::<Job>::namespaced(self.cluster.client.clone(), &self.namespace)
            .delete_collection(&owners, &everything)
            .await?;
        until(SOON, "the pods are deleted", async || {
            // the examples' containers ignore SIGTERM
            self.pods().delete_collection(&DeleteParams::default().grace_period(2), &everything).await?;
            let left: Vec<String> = self.list().await?.iter().map(why).collect();
            ensure!(left.is_empty(), "left: {}", left.join("; "));
            Ok(())
        })
        .await?;
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        self.all_free().await?;
        self.agreed().await.map(drop)
    }
}

async fn create(pods: Api<Pod>, value: Value) -> anyhow::Result<Pod> {
    let name = value["metadata"]["name"].clone();
    let pod = serde_json::from_value(value)?;
    pods.create(&PostParams::default(), &pod).await.with_context(|| format!("create {name}"))
}

/// Pending, Running, Succeeded or Failed; empty where there is none.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether all containers run.
pub fn runs(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let ready = status.container_statuses.iter().flatten().filter(|container| container.ready).count();
    let wanted = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    phase(pod) == "Running" && ready == wanted && pod.metadata.deletion_timestamp.is_none()
}

/// Why kube-scheduler found no node, if that is in the status.
pub fn unschedulable(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    (condition.status == "False").then(|| condition.message.as_deref().unwrap_or_default())
}

/// A line that describes a pod.
pub fn why(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node");
    let status = pod.status.clone().unwrap_or_default();
    let waits: Vec<String> = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .flatten()
        .filter_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            Some(format!(
                "{}: {} {}",
                container.name,
                waiting.reason.as_deref()?,
                waiting.message.as_deref().unwrap_or_default()
            ))
        })
        .collect();
    let message = status.message.as_deref().or(unschedulable(pod)).unwrap_or_default();
    let deleted = if pod.metadata.deletion_timestamp.is_some() { " deleted" } else { "" };
    format!("{name} ({node}) {}{deleted} {message} {}", phase(pod), waits.join(", "))
}

pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn uid(pod: &Pod) -> anyhow::Result<&str> {
    match pod.metadata.uid.as_deref() {
        Some(uid) => Ok(uid),
        None => bail!("a pod without uid"),
    }
}
