//! A card falls ill and recovers.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kerf_cluster::paper::Paper;
use kerf_cluster::wait::until;
use kerf_testkit::tree::Tree;

use crate::support::draft::pod;
use crate::support::offer::{Offer, asks};
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

/// What a pod's status says of the devices of its first container: resource, id and health.
fn told(pod: &Pod) -> Vec<(String, String, String)> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let resources = statuses.flat_map(|status| status.allocated_resources_status.iter().flatten());
    resources
        .flat_map(|resource| resource.resources.iter().flatten().map(|device| (resource.name.clone(), device)))
        .map(|(name, device)| (name, device.resource_id.clone(), device.health.clone().unwrap_or_default()))
        .collect()
}

/// A card whose device file is gone is ill in the node's totals and, by its PCI address, in its pod's status, until the
/// file is back. The pod runs on.
pub async fn an_ill_card_shows_in_its_pods_status(stage: &Stage<'_>) -> anyhow::Result<()> {
    const AMD: &str = "amd.com/gpu";
    let [node, ..] = stage.cluster.nodes.as_slice() else { anyhow::bail!("no node") };
    let paper = Paper::lay(node, &Tree::named("mixed")?)?;
    let offer = Offer::start(stage, node, &paper, &["--profile=amd", "-pulse=1"], &[(AMD, 3)])?;
    offer.ready().await?;
    stage.create(&asks("holder", node, &[(AMD, 1)])).await?;
    stage.all_run(1, SOON).await?;
    let pod = stage.pods().get("holder").await?;
    let seen = stage.seen(&pod).await?;
    let own =
        seen.devices.keys().find_map(|path| path.strip_prefix("/dev/").filter(|name| name.contains("render")));
    let own = own.context("no render file")?;
    let address = match own {
        "dri/renderD130" => "0000:63:00.0",
        "dri/renderD131" => "0000:43:00.0",
        _ => "0000:03:00.0",
    };
    for (gone, offered, health) in [(true, 2, "Unhealthy"), (false, 3, "Healthy")] {
        paper.set_gone(own, gone)?;
        until(SOON, &format!("{address} is {health}"), async || {
            let now = stage.cluster.offered(&node.name, AMD).await?;
            ensure!(now == offered, "the node offers {now}");
            let pod = stage.pods().get("holder").await?;
            let wanted = (AMD.to_owned(), address.to_owned(), health.to_owned());
            ensure!(told(&pod) == [wanted], "the pod's status says {:?}", told(&pod));
            ensure!(runs(&pod), "it does not run");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
