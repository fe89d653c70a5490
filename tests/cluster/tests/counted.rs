//! Running pods are counted whatever their annotations, and several containers fit where any arrangement of them fits.

use std::time::Duration;

use anyhow::ensure;
use kerf_cluster::wait::until;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::draft::{Draft, pod};
use crate::support::policy::{leave_out, noted_only};
use crate::support::stage::{SOON, Stage, phase, why};

/// Every annotation that users set, with a value for which a new pod would be refused.
const SPOILED: [(&str, &str); 4] = [
    ("inspur.com/gpu-policy", "x"),
    ("inspur.com/vcuda-core-limit", "80%"),
    ("inspur.com/isolation", "total"),
    ("inspur.com/gpu-shares", "same-card"),
];

/// A pod from before the policy, or in a cluster without it: it runs, its annotations become invalid, and the extender
/// restarts. Its GPU is not given to another pod.
pub async fn a_spoiled_annotation_frees_no_card(stage: &Stage<'_>) -> anyhow::Result<()> {
    leave_out(stage).await?;
    let node = &stage.cluster.nodes[0];
    let cards = node.cards.uuids().len();
    let whole = |name: String| pod(name).app("main", 100, 0).on(&node.name);
    stage.create(&whole("first".to_owned())).await?;
    stage.phase("first", &["Running"]).await?;
    noted_only(stage, async || {
        for (key, value) in SPOILED {
            annotate(stage, "first", json!({ key: value })).await?;
            restart_extender(stage).await?;
            let free = stage.free(&node.name).await?;
            let taken = free.iter().filter(|free| **free == 0).count();
            ensure!(taken == 1, "{key}: {free:?} is free");
            annotate(stage, "first", json!({ key: null })).await?;
        }
        annotate(stage, "first", json!({ "inspur.com/gpu-policy": "x" })).await?;
        restart_extender(stage).await?;
        let others: Vec<Draft> = (1..=cards).map(|number| whole(format!("other-{number}"))).collect();
        stage.create_all(&others).await?;
        until(SOON, "all GPUs are taken", async || {
            let pods = stage.list().await?;
            let running = pods.iter().filter(|pod| phase(pod) == "Running").count();
            let states: Vec<String> = pods.iter().map(why).collect();
            ensure!(running == cards, "{}", states.join("; "));
            Ok(())
        })
        .await?;
        // one of them waits, and none failed
        let pods = stage.list().await?;
        let waiting: Vec<_> = pods.iter().filter(|pod| phase(pod) == "Pending").collect();
        ensure!(waiting.len() == 1, "{} wait", waiting.len());
        ensure!(waiting.iter().all(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())), "bound");
        annotate(stage, "first", json!({ "inspur.com/gpu-policy": null })).await
    })
    .await
}

/// The first container alone would go to the fuller GPU, where the second then finds no room.
pub async fn containers_fit_in_any_order(stage: &Stage<'_>) -> anyhow::Result<()> {
    let node = &stage.cluster.nodes[0];
    let cards = node.cards.uuids().len();
    let whole = (2..cards).map(|number| pod(format!("whole-{number}")).app("main", 100, 0).on(&node.name));
    stage.create_all(&whole.collect::<Vec<_>>()).await?;
    stage.all_run(cards - 2, SOON).await?;
    // of 96 units: one GPU has 50 of core and 50 of memory left, the other 60 and 20
    stage.create(&pod("one").app("main", 50, 46).on(&node.name)).await?;
    stage.phase("one", &["Running"]).await?;
    stage.create(&pod("two").app("main", 40, 76).on(&node.name)).await?;
    stage.phase("two", &["Running"]).await?;
    stage.create(&pod("both").app("small", 10, 10).app("large", 50, 50).on(&node.name)).await?;
    stage.phase("both", &["Running"]).await?;
    stage.agreed().await.map(drop)
}

async fn annotate(stage: &Stage<'_>, name: &str, annotations: Value) -> anyhow::Result<()> {
    let patch = json!({ "metadata": { "annotations": annotations } });
    until(SOON, "the annotation is written", async || {
        stage.pods().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    })
    .await
}

async fn restart_extender(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.cluster.extender()?.kill()?;
    stage.cluster.extender()?.start_again()?;
    stage.cluster.ready(Duration::from_secs(60)).await
}
