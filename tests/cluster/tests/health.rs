//! A GPU becomes unhealthy and recovers.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Event, Node};
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::ListParams;

use crate::support::draft::pod;
use crate::support::stage::{SOON, Stage, runs, unschedulable};

async fn allocatable(stage: &Stage<'_>, node: &str, wanted: u64) -> anyhow::Result<()> {
    until(SOON, &format!("{node} offers {wanted}"), async || {
        let now = stage.cluster.allocatable(node).await?;
        ensure!(now == wanted, "it offers {now}");
        Ok(())
    })
    .await
}

/// Waits for the Node's condition, beside kubelet's own.
async fn condition(stage: &Stage<'_>, node: &str, status: &str, part: &str) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(stage.cluster.client.clone());
    until(SOON, &format!("the condition of {node} is {status}"), async || {
        let node = nodes.get(node).await?;
        let all = node.status.and_then(|status| status.conditions).context("no conditions")?;
        ensure!(all.iter().any(|one| one.type_ == "Ready" && one.status == "True"), "kubelet's is not there");
        let own = all.iter().find(|one| one.type_ == "KerfGPUsHealthy").context("no condition")?;
        let message = own.message.as_deref().unwrap_or_default();
        ensure!(own.status == status && message.contains(part), "{own:?}");
        Ok(())
    })
    .await
}

/// The message of the only event of this reason about the Node.
async fn told(stage: &Stage<'_>, node: &str, reason: &str) -> anyhow::Result<String> {
    let events: Api<Event> = Api::namespaced(stage.cluster.client.clone(), "default");
    let about = ListParams::default().fields(&format!("involvedObject.name={node},reason={reason}"));
    until(SOON, &format!("{reason} is told"), async || {
        let all = events.list(&about).await?;
        ensure!(all.items.len() == 1, "{} events", all.items.len());
        all.items.into_iter().find_map(|event| event.message).context("no message")
    })
    .await
}

/// No new pod lands on it, its own pod stays, and a waiting pod starts by itself once it is healthy.
pub async fn an_ill_card_takes_no_pod_until_it_recovers(stage: &Stage<'_>) -> anyhow::Result<()> {
    let node = &stage.cluster.nodes[0];
    let cards = node.cards.uuids().len();
    let all = cards as u64 * 100;
    for number in 0..cards {
        stage.create(&pod(format!("resident-{number}")).app("main", 60, 2).on(&node.name)).await?;
    }
    stage.all_run(cards, SOON).await?;
    stage.agreed().await?;

    node.cards.set_ill(1, true)?;
    let result = while_ill(stage, &node.name, cards).await;
    node.cards.set_ill(1, false)?;
    result?;

    allocatable(stage, &node.name, all).await?;
    condition(stage, &node.name, "True", &format!("all {cards} GPUs are healthy")).await?;
    told(stage, &node.name, "GPURecovered").await?;
    stage.all_run(cards + 2, SOON).await?;
    stage.agreed().await.map(drop)
}

/// The node's total goes down by the whole GPU, but the share of its pod still counts as used. So of the 120 units
/// that are free on the three others kube-scheduler sees 60, which is room for one more pod.
async fn while_ill(stage: &Stage<'_>, node: &str, cards: usize) -> anyhow::Result<()> {
    allocatable(stage, node, (cards as u64 - 1) * 100).await?;
    let ill = &stage.cluster.node(node)?.cards.uuids()[1];
    condition(stage, node, "False", ill).await?;
    let message = told(stage, node, "GPUUnhealthy").await?;
    ensure!(message.contains(ill), "{message}");
    for number in 0..2 {
        stage.create(&pod(format!("later-{number}")).app("main", 40, 2).on(node)).await?;
    }
    until(SOON, "all but one run", async || {
        let pods = stage.list().await?;
        let waiting = pods.iter().filter(|pod| unschedulable(pod).is_some()).count();
        let running = pods.iter().filter(|pod| runs(pod)).count();
        ensure!(waiting == 1 && running == cards + 1, "{running} run, {waiting} wait");
        Ok(())
    })
    .await?;
    let audit = stage.agreed().await?;
    let on_it: Vec<&String> = audit
        .placed
        .iter()
        .filter(|(_, placement)| placement.plan.holds().iter().any(|hold| hold.device.id.as_str() == ill))
        .map(|(name, _)| name)
        .collect();
    ensure!(on_it.len() == 1 && on_it[0].contains("resident-"), "{on_it:?} are on the ill card");
    Ok(())
}
