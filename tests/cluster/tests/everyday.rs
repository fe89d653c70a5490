//! What administrators do with kerf's pods: look into them, delete them, drain their nodes.

use std::time::Duration;

use anyhow::{Context, ensure};
use kube::api::DeleteParams;

use crate::support::draft::{Draft, pod};
use crate::support::stage::Stage;

const LIMIT: Duration = Duration::from_secs(120);

fn share(name: &str) -> Draft {
    pod(name).app("main", 20, 4)
}

/// Logs can be read, and the doctor finds in the plugin's own pod what the plugin has.
pub async fn kerfs_pods_can_be_looked_into(stage: &Stage<'_>) -> anyhow::Result<()> {
    let control = &stage.cluster.control;
    let of = |container: &str| {
        let selector = "app.kubernetes.io/name=kerf-scheduler";
        control.kubectl(&["logs", "--namespace=kerf-system", "--selector", selector, "--container", container])
    };
    ensure!(of("extender")?.contains("\"serving\""), "the extender's log has no start");
    ensure!(!of("kube-scheduler")?.is_empty(), "kube-scheduler logs nothing");
    for node in &stage.cluster.nodes {
        let plugin = stage.cluster.pods()?.plugin(&node.name).await?.name;
        let logs = control.kubectl(&["logs", "--namespace=kerf-system", &plugin])?;
        ensure!(logs.contains("registered with kubelet"), "{plugin}: {logs}");
        let doctor = [
            "exec",
            "--namespace=kerf-system",
            &plugin,
            "--",
            "kerf-plugin",
            "doctor",
            "--backend=simulated",
            "--simulated-file=/etc/kerf/gpus.toml",
            "--kubelet-dir=/var/lib/kubelet",
            "--dev-root=/host/dev",
        ];
        let report = control.kubectl(&doctor)?;
        ensure!(report.contains("Simulated 24G"), "{plugin}: {report}");
    }
    Ok(())
}

/// Every pod of kerf is deleted: others take their place, what runs keeps its GPU, and what is created next gets one.
pub async fn kerfs_pods_are_deleted(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.create(&share("before")).await?;
    stage.all_run(1, LIMIT).await?;
    let before = stage.agreed().await?.placed;
    let control = &stage.cluster.control;
    control.kubectl(&["delete", "pods", "--namespace=kerf-system", "--all", "--wait=false"])?;
    stage.cluster.ready(LIMIT).await?;
    stage.create(&share("after")).await?;
    stage.all_run(2, LIMIT).await?;
    let now = stage.agreed().await?.placed;
    ensure!(before.iter().all(|(name, placed)| now.get(name) == Some(placed)), "{before:?} {now:?}");
    Ok(())
}

/// A node is drained and comes back: its pods go, the scheduler stays available, and afterwards it takes pods again.
pub async fn a_node_is_drained(stage: &Stage<'_>) -> anyhow::Result<()> {
    let (first, second) = stage.two_nodes()?;
    for (name, node) in [("stays", first), ("goes", second)] {
        stage
            .create(&share(name).with("nodeSelector", serde_json::json!({ "kubernetes.io/hostname": node.name })))
            .await?;
    }
    stage.all_run(2, LIMIT).await?;
    let control = &stage.cluster.control;
    let drain =
        ["drain", &second.name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s"];
    control.kubectl(&drain)?;
    stage.create(&share("meanwhile")).await?;
    stage.all_run(2, LIMIT).await?;
    control.kubectl(&["uncordon", &second.name])?;
    // both replicas of the scheduler are on the first node by now, and nothing moves them by itself
    let schedulers = stage.cluster.pods()?.schedulers().await?;
    let one = &schedulers.first().context("no scheduler")?.name;
    control.kubectl(&["delete", "pod", "--namespace=kerf-system", one])?;
    stage.cluster.ready(LIMIT).await?;
    stage
        .create(&share("again").with("nodeSelector", serde_json::json!({ "kubernetes.io/hostname": second.name })))
        .await?;
    stage.all_run(3, LIMIT).await?;
    stage.agreed().await?;
    stage.pods().delete("again", &DeleteParams::default()).await?;
    Ok(())
}
