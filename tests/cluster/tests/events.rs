//! What `kubectl describe pod` says of a pod's GPUs.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Event;
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::ListParams;

use crate::support::draft::pod;
use crate::support::stage::{SOON, Stage};

/// Its event names the GPU of its record and how much of it the pod has. It is written by the plugin's account, within the
/// admission policy for its events, once, and after the binding.
pub async fn a_pod_says_which_gpus_it_has(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.create(&pod("p").app("main", 60, 2)).await?;
    stage.all_run(1, SOON).await?;
    let audit = stage.agreed().await?;
    let (_, placement) = audit.placed.iter().next().context("no record")?;
    let (gpu, _) = placement.plan.grants[0].gpus.amounts().next().context("no GPU")?;
    let wanted = format!("main: {} (60 core, 512 MiB)", gpu.id);
    until(SOON, "the event is there", async || {
        let said = stage.cluster.control.kubectl(&["describe", "pod", "p", "--namespace", stage.namespace()])?;
        let line = said.lines().find(|line| line.contains("GPUAssigned")).context("no event GPUAssigned")?;
        ensure!(line.contains("kerf-plugin") && line.contains(&wanted), "{line}");
        Ok(())
    })
    .await?;
    let events: Api<Event> = Api::namespaced(stage.cluster.client.clone(), stage.namespace());
    let about = ListParams::default().fields("involvedObject.name=p,reason=GPUAssigned");
    let count = events.list(&about).await?.items.len();
    ensure!(count == 1, "{count} events");
    Ok(())
}
