//! The leader of kerf's schedulers fails in the middle of a burst: the other one places what is left, no GPU is given twice,
//! and all pods run. How long it takes is measured by the benchmark `failover`.

use std::time::Duration;

use anyhow::ensure;
use kerf_cluster::failover::{Fault, burst};

use crate::support::draft::mixed;
use crate::support::stage::Stage;

const PODS: usize = 40;
const LIMIT: Duration = Duration::from_secs(120);

async fn survives(stage: &Stage<'_>, fault: Fault) -> anyhow::Result<()> {
    let pods = mixed(PODS, 1).into_iter().map(|draft| draft.value().clone()).collect();
    let outcome = burst(stage.cluster, stage.namespace(), pods, fault, LIMIT).await?;
    println!("        {}: {outcome:?}", fault.name());
    stage.all_run(PODS, LIMIT).await?;
    stage.cluster.ready(LIMIT).await?;
    let audit = stage.agreed().await?;
    ensure!(audit.placed.len() == PODS, "{} of {PODS} are placed", audit.placed.len());
    Ok(())
}

pub async fn the_leaders_extender_is_killed(stage: &Stage<'_>) -> anyhow::Result<()> {
    survives(stage, Fault::ExtenderKilled).await
}

pub async fn the_leader_is_killed(stage: &Stage<'_>) -> anyhow::Result<()> {
    survives(stage, Fault::SchedulerKilled).await
}

pub async fn the_leaders_pod_is_deleted(stage: &Stage<'_>) -> anyhow::Result<()> {
    survives(stage, Fault::PodDeleted).await
}

pub async fn the_leaders_node_is_cut_off(stage: &Stage<'_>) -> anyhow::Result<()> {
    survives(stage, Fault::NodeCut).await
}
