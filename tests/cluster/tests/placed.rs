//! Shares by count that the extender places: the real kubelet takes the ids to which it is steered, and its own choices
//! are recorded. The test acts as the scheduler, since the cluster's own does not know these resources; all else is
//! real.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kerf_cluster::books;
use kerf_cluster::node::Node;
use kerf_cluster::paper::Paper;
use kerf_cluster::wait::until;
use kerf_testkit::tree::Tree;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::support::draft::{Draft, pod};
use crate::support::instead::Instead;
use crate::support::stage::{SOON, Stage, annotation, uid};

const SHARED: &str = "deepomatic.com/shared-gpu";

/// Two GPUs of four shares: pods of two shares are on one GPU each, the second beside the first, although the node's
/// own order would take a share of either.
pub async fn kubelet_takes_the_cards_that_the_extender_chose(stage: &Stage<'_>) -> anyhow::Result<()> {
    let node = stage.cluster.nodes.first().context("no node")?;
    let flags = ["--profile=deepomatic", "--placed", "-gpu-duplication-factor=4", "--share-policy=distributed"];
    let instead = Instead::start(stage, node, Paper::lay(node, &Tree::named("g")?)?, "placed", &flags).await?;
    offered(stage, node, &instead).await?;
    let mut cards = Vec::new();
    for name in ["one", "two", "three", "four"] {
        let made = stage.create(&asks(name).annotation("inspur.com/gpu-policy", "binpack")).await?;
        bind(stage, &made, &node.name).await?;
        cards.push(settled(stage, node, name).await?);
    }
    ensure!(cards.iter().all(|cards| cards.len() == 1), "of several cards: {cards:?}");
    ensure!(cards[0] == cards[1] && cards[2] == cards[3] && cards[1] != cards[2], "{cards:?}");
    // another scheduler binds a pod, without a record
    stage.pods().delete("four", &DeleteParams::default()).await?;
    gone(stage, &["four"]).await?;
    let stray = stage.create(&asks("stray")).await?;
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "stray", "uid": uid(&stray)? },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node.name },
    });
    let _: Value = stage.pods().create_subresource("binding", "stray", &PostParams::default(), &binding).await?;
    ensure!(settled(stage, node, "stray").await? == cards[3], "the only card with room");
    // before their GPUs go
    for name in ["one", "two", "three", "stray"] {
        stage.pods().delete(name, &DeleteParams::default()).await?;
    }
    gone(stage, &["one", "two", "three", "stray"]).await?;
    drop(instead);
    Ok(())
}

fn asks(name: &str) -> Draft {
    pod(name).app("main", 0, 0).asks(SHARED, 2).with("schedulerName", "nobody")
}

/// The call that kube-scheduler makes once it has decided.
async fn bind(stage: &Stage<'_>, pod: &Pod, node: &str) -> anyhow::Result<()> {
    let url = format!("http://127.0.0.1:{}/scheduler/bind", stage.cluster.control.ports.extender);
    let body = json!({
        "podName": pod.metadata.name, "podNamespace": pod.metadata.namespace, "podUID": uid(pod)?, "node": node,
    });
    let answer: Value = reqwest::Client::new().post(url).json(&body).send().await?.json().await?;
    let error = answer["error"].as_str().or(answer["Error"].as_str()).unwrap_or_default();
    ensure!(error.is_empty(), "bind: {error}");
    Ok(())
}

async fn gone(stage: &Stage<'_>, names: &[&str]) -> anyhow::Result<()> {
    until(SOON, "they are gone", async || {
        for name in names {
            ensure!(stage.pods().get_opt(name).await?.is_none(), "{name} is there");
        }
        Ok(())
    })
    .await
}

/// Waits until the node has confirmed the pod. Returns its container's GPUs, after checking that they are those of its
/// record and of kubelet's ids.
async fn settled(stage: &Stage<'_>, node: &Node, name: &str) -> anyhow::Result<BTreeSet<u32>> {
    let running = stage.phase(name, &["Running"]).await?;
    let seen = stage.seen(&running).await?.nvidia();
    let held = books::pod_resources(node).await?;
    let held = held.get(&format!("{}/{name}", stage.namespace())).context("kubelet does not know it")?;
    let ids: Vec<&String> = held.values().filter_map(|resources| resources.get(SHARED)).flatten().collect();
    let named: BTreeSet<u32> =
        ids.iter().filter_map(|id| id.strip_prefix("nvidia")?.split_once("-_-")?.0.parse().ok()).collect();
    ensure!(ids.len() == 2 && named == seen, "{name}: kubelet counts {ids:?}, the container has {seen:?}");
    until(SOON, &format!("{name} is confirmed"), async || {
        let pod = stage.pods().get(name).await?;
        ensure!(annotation(&pod, "inspur.com/gpu-assigned") == Some("true"), "{:?}", pod.metadata.annotations);
        let text = annotation(&pod, "inspur.com/gpu-placement").context("no record")?;
        let record: Value = serde_json::from_str(text)?;
        let slices = record["containers"][0]["slices"].as_array().context("no slices")?;
        let recorded: BTreeSet<u64> = slices.iter().filter_map(|slice| slice["index"].as_u64()).collect();
        ensure!(recorded == seen.iter().map(|card| u64::from(*card)).collect(), "recorded {text}, has {seen:?}");
        Ok(())
    })
    .await?;
    Ok(seen)
}

/// Waits until kubelet and the extender know the shares.
async fn offered(stage: &Stage<'_>, node: &Node, instead: &Instead<'_>) -> anyhow::Result<()> {
    until(SOON, &format!("{} offers shares", node.name), async || {
        instead.plugin.check()?;
        let state = stage.cluster.extender_state().await?;
        let known = state["nodes"][&node.name]["gpus"].as_array().cloned().unwrap_or_default();
        let known: Vec<&str> = known.iter().filter_map(|card| card["gpu"].as_str()).collect();
        ensure!(
            known.len() == 2 && known.iter().all(|card| card.contains("c0d6a2e")),
            "the extender knows {known:?}"
        );
        let offered = stage.cluster.offered(&node.name, SHARED).await?;
        ensure!(offered == 8, "it offers {offered}");
        Ok(())
    })
    .await
}
