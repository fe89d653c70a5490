//! Many pods at once.

use std::time::Duration;

use anyhow::ensure;
use kerf_cluster::wait::until;

use crate::support::draft::mixed;
use crate::support::stage::{Stage, phase, runs, unschedulable, why};

/// More than the GPUs hold: every waiting pod has a reason, and no GPU has room for it.
pub async fn sixty_mixed_pods_at_once(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.create_all(&mixed(60, 4)).await?;
    let left = until(Duration::from_secs(200), "every pod runs or has a reason not to", async || {
        let pods = stage.list().await?;
        let moving: Vec<String> =
            pods.iter().filter(|pod| !runs(pod) && unschedulable(pod).is_none()).map(why).collect();
        ensure!(moving.is_empty(), "{}", moving.join("; "));
        let failed: Vec<String> = pods.iter().filter(|pod| phase(pod) == "Failed").map(why).collect();
        ensure!(failed.is_empty(), "{}", failed.join("; "));
        let left: Vec<_> = pods.into_iter().filter(|pod| !runs(pod)).collect();
        // the smallest share takes ten units of core, the others of this burst a few more or a whole GPU
        for node in &stage.cluster.nodes {
            let free = stage.free(&node.name).await?;
            let room = free.iter().any(|free| *free >= 13);
            ensure!(!room || left.iter().all(whole), "{}: {free:?} is free, and pods wait", node.name);
            ensure!(left.is_empty() || !free.contains(&100), "{}: a card is free: {free:?}", node.name);
        }
        Ok(left)
    })
    .await?;
    // how many have no room depends on the order: with whole GPUs first, 20 were seen
    ensure!(!left.is_empty() && left.len() < 30, "{} wait", left.len());
    for pod in &left {
        let reason = unschedulable(pod).unwrap_or_default();
        ensure!(reason.contains("nsufficient"), "{}", why(pod));
    }
    let audit = stage.agreed().await?;
    ensure!(audit.placed.len() == 60 - left.len() && audit.waiting.len() == left.len(), "pods are missing");
    Ok(())
}

fn whole(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    let limits = |container: &k8s_openapi::api::core::v1::Container| {
        container.resources.as_ref().and_then(|resources| resources.limits.clone()).unwrap_or_default()
    };
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .any(|container| limits(container).get("inspur.com/vcuda-core").is_some_and(|amount| amount.0 == "100"))
}
