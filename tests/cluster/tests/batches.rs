//! Equal pods in a row, each of which fills a node. Since 1.35 kube-scheduler can try the next one on the next node of
//! the first one's list, where filter sees one node and prioritize is not called. With an extender in its configuration
//! 1.36 does not; this test fails when that changes.
//!
//! There are more nodes here than this machine has: objects without a kubelet, whose pods are bound and never start.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kerf_cluster::cards::MEMORY_MIB;
use kerf_cluster::release::since;
use kerf_cluster::samples;
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::draft::pod;
use crate::support::stage::{SOON, Stage};

const NODES: usize = 8;

/// All are placed on different nodes, without a pause, though they differ in fields that the scheduler ignores.
pub async fn equal_pods_take_nodes_of_their_own(stage: &Stage<'_>) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(stage.cluster.client.clone());
    for number in 0..NODES {
        paper(stage, &nodes, &format!("paper-{number}")).await?;
    }
    let result = equal(stage).await;
    // no kubelet ends these pods
    let now = DeleteParams::default().grace_period(0);
    stage.pods().delete_collection(&now, &ListParams::default()).await?;
    nodes.delete_collection(&DeleteParams::default(), &ListParams::default().labels("paper=yes")).await?;
    result
}

/// Creates a node with GPUs and without a kubelet.
async fn paper(stage: &Stage<'_>, nodes: &Api<Node>, name: &str) -> anyhow::Result<()> {
    let model = stage.cluster.nodes.first().context("no node")?;
    let real = nodes.get(&model.name).await?;
    let inventory = real.metadata.annotations.as_ref().and_then(|all| all.get("inspur.com/gpu-inventory"));
    let inventory = inventory.context("no inventory")?.replace(&model.name, name);
    let node = json!({
        "metadata": {
            "name": name, "labels": { "paper": "yes" }, "annotations": { "inspur.com/gpu-inventory": inventory },
        },
        // keeps pods away that run on every node
        "spec": { "taints": [{ "key": "paper", "effect": "NoSchedule" }] },
    });
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    let cards = model.cards.uuids().len() as u64;
    let amounts = json!({
        "cpu": "8", "memory": "32Gi", "pods": "110", "inspur.com/vcuda-core": (100 * cards).to_string(),
        "inspur.com/vcuda-memory": (MEMORY_MIB / 256 * cards).to_string(),
    });
    let status = json!({ "status": { "capacity": amounts, "allocatable": amounts } });
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

async fn equal(stage: &Stage<'_>) -> anyhow::Result<()> {
    until(SOON, "the extender knows the nodes", async || {
        let state = stage.cluster.extender_state().await?;
        let known = (0..NODES).filter(|number| state["nodes"][format!("paper-{number}")].is_object()).count();
        ensure!(known == NODES, "{known} of {NODES}");
        Ok(())
    })
    .await?;
    let calls = async |verb: &str| {
        let metrics = stage.cluster.extender_text("/metrics").await?;
        anyhow::Ok(samples::sum(&metrics, "kerf_extender_requests_total", &[&format!("verb=\"{verb}\"")]))
    };
    until(SOON, "the scheduler answers", async || hints(stage).await).await?;
    let before = (hints(stage).await?, calls("filter").await?, calls("prioritize").await?);
    let whole: Vec<_> = (0..NODES)
        .map(|number| {
            let policy = if number % 2 == 0 { "binpack" } else { "spread" };
            let draft =
                pod(format!("equal-{number}")).app("main", 400, 0).annotation("inspur.com/gpu-policy", policy);
            draft
                .with("nodeSelector", json!({ "paper": "yes" }))
                .with("tolerations", json!([{ "operator": "Exists" }]))
        })
        .collect();
    stage.create_all(&whole).await?;
    until(SOON, "each has a node of its own", async || {
        let node = |pod: Pod| pod.spec.and_then(|spec| spec.node_name);
        let taken: BTreeSet<String> = stage.list().await?.into_iter().filter_map(node).collect();
        ensure!(taken.len() == NODES, "{taken:?}");
        Ok(())
    })
    .await?;
    let state: Value = stage.cluster.extender_state().await?;
    for number in 0..NODES {
        let cards = state["nodes"][format!("paper-{number}")]["gpus"].as_array().context("no cards")?;
        let fair = cards.iter().all(|card| card["pods"] == 1 && card["overcommitted"] == false);
        ensure!(fair, "paper-{number}: {cards:?}");
    }
    let after = (hints(stage).await?, calls("filter").await?, calls("prioritize").await?);
    let (hints, filters, orders) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    println!("        {NODES} pods: {hints} hints, {filters} filters, {orders} prioritizes");
    let log = stage.cluster.control.scheduler.log();
    let none = !since(&stage.cluster.client, "1.35").await?;
    if none || log.contains("because it has extenders configured") {
        ensure!(hints == 0.0, "{hints} hints by a scheduler that gives none");
    } else {
        ensure!(hints > 0.0 && orders < filters, "{hints} hints, {filters} filters, {orders} prioritizes");
    }
    ensure!(filters >= NODES as f64, "filter was called {filters} times");
    Ok(())
}

/// How often kube-scheduler has used a hint, by its own metrics.
async fn hints(stage: &Stage<'_>) -> anyhow::Result<f64> {
    let control = &stage.cluster.control;
    let metrics = control.scheduler_metrics(control.ports.scheduler).await?;
    Ok(samples::sum(&metrics, "scheduler_batch_attempts_total", &["result=\"hint_used\""]))
}
