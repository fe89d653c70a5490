//! A part fails in the middle of a burst. Afterwards all pods run, all parties agree, and nothing is lost.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kerf_cluster::books::checkpoint;
use kerf_cluster::node::Node;
use kerf_cluster::process::Process;
use kerf_cluster::wait::until;
use rustix::process::Signal;

use kube::api::DeleteParams;

use crate::support::draft::{mixed, pod};
use crate::support::stage::{SOON, Stage, phase, why};

const PODS: usize = 40;
const LIMIT: Duration = Duration::from_secs(200);

/// Creates the pods and returns when some are bound and most are not.
async fn burst(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.create_all(&mixed(PODS, 1)).await?;
    until(SOON, "the burst is under way", async || {
        let bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
        let count = stage.list().await?.iter().filter(|pod| bound(pod)).count();
        ensure!(count >= 4, "{count} are bound");
        Ok(())
    })
    .await
}

/// Waits until all run, on GPUs on which all parties agree.
async fn recovered(stage: &Stage<'_>) -> anyhow::Result<()> {
    recovered_with(stage, PODS).await
}

async fn recovered_with(stage: &Stage<'_>, pods: usize) -> anyhow::Result<()> {
    stage.all_run(pods, LIMIT).await?;
    let audit = stage.agreed().await?;
    ensure!(audit.placed.len() == pods, "{} of {pods} are placed", audit.placed.len());
    Ok(())
}

/// Kills a process and starts it again after a while.
async fn outage(process: &Process, length: Duration) -> anyhow::Result<()> {
    process.kill()?;
    tokio::time::sleep(length).await;
    process.start_again()
}

pub async fn extender_killed(stage: &Stage<'_>) -> anyhow::Result<()> {
    burst(stage).await?;
    outage(stage.cluster.extender()?, Duration::from_secs(1)).await?;
    recovered(stage).await
}

/// kubelet permanently rejects pods that it admits while no plugin is connected, whatever the plugin does. Such a pod
/// has that reason and holds nothing, and its owner creates another.
pub async fn plugin_killed(stage: &Stage<'_>) -> anyhow::Result<()> {
    burst(stage).await?;
    for node in &stage.cluster.nodes {
        outage(node.plugin()?, Duration::from_millis(100)).await?;
    }
    stage.cluster.ready(SOON).await?;
    for draft in mixed(PODS, 1) {
        let pod = until(SOON, "kubelet has decided", async || {
            let pod = stage.pods().get(&draft.name).await?;
            ensure!(matches!(phase(&pod), "Running" | "Failed"), "{}", why(&pod));
            Ok(pod)
        })
        .await?;
        if phase(&pod) == "Failed" {
            let message = why(&pod);
            // none of these is one of the plugin's own refusals
            let absent = ["no healthy devices present", "code = Unavailable", "code = Canceled"];
            ensure!(absent.iter().any(|text| message.contains(text)), "{message}");
            stage.pods().delete(&draft.name, &DeleteParams::default()).await?;
            stage.create(&draft.named(&format!("{}-again", draft.name))).await?;
        }
    }
    recovered(stage).await
}

/// For some seconds: long enough that more pods are bound to the node, and that clients that fail to reach
/// kubelet have slowed down.
pub async fn kubelet_killed(stage: &Stage<'_>) -> anyhow::Result<()> {
    // an allocation on every node brings kubelet's books up to date
    for node in &stage.cluster.nodes {
        stage.create(&pod(format!("first-{}", node.name)).app("main", 5, 3).on(&node.name)).await?;
    }
    stage.all_run(stage.cluster.nodes.len(), SOON).await?;
    burst(stage).await?;
    for node in &stage.cluster.nodes {
        outage(&node.kubelet, Duration::from_secs(4)).await?;
    }
    recovered_with(stage, PODS + stage.cluster.nodes.len()).await
}

/// kubelet removes ended pods from its books at its next allocation, and after a restart it serves the first
/// pods from the books as they were last written.
pub async fn kubelet_killed_after_pods_ended(stage: &Stage<'_>) -> anyhow::Result<()> {
    let [node, ..] = stage.cluster.nodes.as_slice() else { anyhow::bail!("no node") };
    let cards = node.cards.uuids().len();
    for number in 0..cards {
        stage.create(&pod(format!("ended-{number}")).app("main", 100, 0).on(&node.name)).await?;
    }
    stage.all_run(cards, SOON).await?;
    for number in 0..cards {
        stage.pods().delete(&format!("ended-{number}"), &DeleteParams::default()).await?;
    }
    stage.all_run(0, SOON).await?;
    stage.all_free().await?;
    stage.agreed().await?;
    // the plugin makes kubelet write them again, a moment later
    until(SOON, "kubelet's books are without them", async || {
        let books = checkpoint(node)?;
        ensure!(books.is_empty(), "{:?} are in them", books.keys());
        Ok(())
    })
    .await?;
    node.kubelet.kill()?;
    for number in 0..cards {
        stage.create(&pod(format!("next-{number}")).app("main", 100, 0).on(&node.name)).await?;
    }
    until(SOON, "all are bound", async || {
        let free = stage.free(&node.name).await?;
        ensure!(free.iter().all(|free| *free == 0), "{free:?} is free");
        Ok(())
    })
    .await?;
    node.kubelet.start_again()?;
    stage.all_run(cards, SOON).await?;
    stage.agreed().await.map(drop)
}

pub async fn containerd_killed(stage: &Stage<'_>) -> anyhow::Result<()> {
    burst(stage).await?;
    for node in &stage.cluster.nodes {
        outage(&node.containerd.process, Duration::from_secs(1)).await?;
    }
    recovered(stage).await
}

pub async fn api_server_paused(stage: &Stage<'_>) -> anyhow::Result<()> {
    burst(stage).await?;
    let api = &stage.cluster.control.api;
    api.signal(Signal::STOP)?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    api.signal(Signal::CONT)?;
    recovered(stage).await
}

pub async fn etcd_killed(stage: &Stage<'_>) -> anyhow::Result<()> {
    burst(stage).await?;
    outage(&stage.cluster.control.etcd, Duration::from_secs(1)).await?;
    recovered(stage).await
}

/// A token ends with its pod. The node's pods then wait, and none fails; with another token they run.
pub async fn plugin_token_refused(stage: &Stage<'_>) -> anyhow::Result<()> {
    const PODS: usize = 6;
    let (node, _) = stage.two_nodes()?;
    let waited = wait_while_refused(stage, node, PODS).await;
    // whatever the result: the tests that follow need the plugin
    stage.cluster.plugin_token(&node.name).await?;
    waited?;
    stage.all_run(PODS, LIMIT).await?;
    stage.cluster.ready(SOON).await?;
    stage.agreed().await.map(drop)
}

/// Invalidates the plugin's token, and creates pods, which wait.
async fn wait_while_refused(stage: &Stage<'_>, node: &Node, pods: usize) -> anyhow::Result<()> {
    let (control, cluster) = (&stage.cluster.control, stage.cluster);
    control.kubectl(&["delete", "pod", &format!("kerf-plugin-{}", node.name), "--namespace=kerf-system"])?;
    // an open watch is not asked for its token again until it ends
    outage(&control.api, Duration::from_secs(1)).await?;
    until(LIMIT, "the plugin says that it is refused", async || {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/readyz", node.ports.plugin)).await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status == 503 && text.contains("pods: 401 Unauthorized for "), "{status} {text}");
        Ok(())
    })
    .await?;
    until(SOON, "its devices are withdrawn", async || {
        let allocatable = cluster.allocatable(&node.name).await?;
        ensure!(allocatable == 0, "{allocatable} are allocatable");
        Ok(())
    })
    .await?;
    // the API server was away: until the scheduler sees the current Node, it binds pods that kubelet rejects
    until(SOON, "the scheduler sees it", async || {
        stage.create(&pod("first").app("main", 20, 10).on(&node.name)).await?;
        let waits = until(SOON, "it is decided", async || judged(&stage.pods().get("first").await?)).await?;
        stage.pods().delete("first", &DeleteParams::default()).await?;
        until(SOON, "it is gone", async || {
            ensure!(stage.list().await?.is_empty(), "it is there");
            Ok(())
        })
        .await?;
        ensure!(waits, "it was bound");
        Ok(())
    })
    .await?;
    for number in 0..pods {
        stage.create(&pod(format!("waits-{number}")).app("main", 20, 10).on(&node.name)).await?;
    }
    until(SOON, "the scheduler has judged all of them", async || {
        for pod in stage.list().await? {
            ensure!(judged(&pod)?, "{}", why(&pod));
        }
        Ok(())
    })
    .await
}

/// Whether a pod waits after an attempt of the scheduler; an error if it failed.
fn judged(pod: &Pod) -> anyhow::Result<bool> {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let refused = conditions.into_iter().flatten().any(|c| c.type_ == "PodScheduled" && c.status == "False");
    ensure!(refused || phase(pod) == "Failed", "{}", why(pod));
    Ok(refused)
}
