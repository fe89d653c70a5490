//! A card falls ill and recovers.

use anyhow::ensure;
use kerf_cluster::wait::until;

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

/// No new pod lands on it, its own pod stays, and what waits starts by itself once it is well.
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
    stage.all_run(cards + 2, SOON).await?;
    stage.agreed().await.map(drop)
}

/// The node's total goes down by the whole card, but what its pod holds still counts as used. So of the 120 units
/// that are free on the three others kube-scheduler sees 60, which is room for one more pod.
async fn while_ill(stage: &Stage<'_>, node: &str, cards: usize) -> anyhow::Result<()> {
    allocatable(stage, node, (cards as u64 - 1) * 100).await?;
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
    let ill = &stage.cluster.node(node)?.cards.uuids()[1];
    let on_it: Vec<&String> = audit
        .placed
        .iter()
        .filter(|(_, placement)| placement.plan.holds().iter().any(|hold| hold.device.as_str() == ill))
        .map(|(name, _)| name)
        .collect();
    ensure!(on_it.len() == 1 && on_it[0].contains("resident-"), "{on_it:?} are on the ill card");
    Ok(())
}
