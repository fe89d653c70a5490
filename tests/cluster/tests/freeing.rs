//! GPUs are freed when pods end, however they end, and stay taken while they do not.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kerf_cluster::wait::until;
use kube::api::DeleteParams;

use crate::support::draft::pod;
use crate::support::stage::{SOON, Stage, annotation, runs};

async fn free(stage: &Stage<'_>) -> anyhow::Result<u64> {
    let mut sum = 0;
    for node in &stage.cluster.nodes {
        sum += stage.free(&node.name).await?.iter().sum::<u64>();
    }
    Ok(sum)
}

async fn becomes(stage: &Stage<'_>, wanted: u64, after: &str) -> anyhow::Result<()> {
    until(SOON, &format!("{wanted} units are free after {after}"), async || {
        let now = free(stage).await?;
        ensure!(now == wanted, "{now} are");
        Ok(())
    })
    .await?;
    stage.agreed().await.map(drop)
}

/// Deleted, deleted by force, completed, failed: in turn, with the exact amount each time.
pub async fn every_end_frees_exactly_what_was_held(stage: &Stage<'_>) -> anyhow::Result<()> {
    let wait = "until [ -e /tmp/end ]; do sleep 0.1; done;";
    stage.create(&pod("deleted").app("main", 11, 3)).await?;
    stage.create(&pod("forced").app("main", 13, 3)).await?;
    let done = pod("completed").runs("main", 17, 3, &format!("{wait} exit 0"));
    stage.create(&done.with("restartPolicy", "Never")).await?;
    let failed = pod("failed").runs("main", 19, 3, &format!("{wait} exit 3"));
    stage.create(&failed.with("restartPolicy", "Never")).await?;
    stage.create(&pod("stays").app("main", 23, 3)).await?;
    stage.all_run(5, SOON).await?;
    let all = free(stage).await? + 11 + 13 + 17 + 19 + 23;
    becomes(stage, all - 83, "the start").await?;

    stage.pods().delete("deleted", &DeleteParams::default()).await?;
    becomes(stage, all - 72, "a deletion").await?;
    stage.pods().delete("forced", &DeleteParams::default().grace_period(0)).await?;
    becomes(stage, all - 59, "a deletion by force").await?;
    let namespace = format!("--namespace={}", stage.namespace());
    for (name, phase, left) in [("completed", "Succeeded", 42), ("failed", "Failed", 23)] {
        stage.cluster.control.kubectl(&["exec", &namespace, name, "--", "touch", "/tmp/end"])?;
        stage.phase(name, &[phase]).await?;
        becomes(stage, all - left, phase).await?;
    }
    Ok(())
}

fn restarts(pod: &Pod) -> i32 {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()).map(|c| c.restart_count).sum()
}

/// Another process, the same GPU; no other pod gets it in between.
pub async fn a_restarted_container_keeps_its_card(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.create(&pod("restarts").app("main", 60, 3)).await?;
    stage.all_run(1, SOON).await?;
    stage.agreed().await?;
    let key = "inspur.com/gpu-placement";
    let before = stage.pods().get("restarts").await?;
    stage.kill_container(&before)?;
    until(SOON, "the container runs again", async || {
        let now = stage.pods().get("restarts").await?;
        ensure!(restarts(&now) == 1 && runs(&now), "{} restarts", restarts(&now));
        Ok(())
    })
    .await?;
    stage.agreed().await?;
    let after = stage.pods().get("restarts").await?;
    ensure!(annotation(&after, key) == annotation(&before, key), "it was placed anew");
    Ok(())
}
