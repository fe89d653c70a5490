//! A node leaves the cluster and comes back.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Node;
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::DeleteParams;

use crate::support::draft::{mixed, pod};
use crate::support::stage::{SOON, Stage};

/// Its pods go with it, and so do their commitments; when it returns, its GPUs are all free.
pub async fn a_node_is_removed_and_returns(stage: &Stage<'_>) -> anyhow::Result<()> {
    let (first, second) = stage.two_nodes()?;
    stage.create(&pod("here").app("main", 40, 4).on(&first.name)).await?;
    stage.create(&pod("there").app("main", 40, 4).on(&second.name)).await?;
    stage.all_run(2, SOON).await?;

    let nodes: Api<Node> = Api::all(stage.cluster.client.clone());
    second.kubelet.kill()?;
    second.plugin()?.kill()?;
    nodes.delete(&second.name, &DeleteParams::default()).await?;
    until(SOON, "the extender has forgotten the node's cards", async || {
        let state = stage.cluster.extender_state().await?;
        let cards = state["nodes"][&second.name]["gpus"].as_array().map_or(0, Vec::len);
        ensure!(cards == 0, "it has {cards}");
        Ok(())
    })
    .await?;
    // pods that come meanwhile go elsewhere
    stage.create(&pod("meanwhile").app("main", 70, 4)).await?;
    stage.phase("meanwhile", &["Running"]).await?;
    // the controller for orphaned pods takes its time
    until(Duration::from_secs(120), "its pod is gone", async || {
        let pods = stage.list().await?;
        let left = pods.iter().any(|pod| pod.metadata.name.as_deref() == Some("there"));
        ensure!(!left, "it is there");
        Ok(())
    })
    .await?;

    second.kubelet.start_again()?;
    until(SOON, "the node is registered", async || nodes.get(&second.name).await.map(drop).map_err(Into::into))
        .await?;
    // its token ended with its pod
    stage.cluster.plugin_token(&second.name).await?;
    second.plugin()?.start_again()?;
    stage.cluster.ready(SOON).await?;
    stage.create_all(&mixed(20, 2)).await?;
    stage.all_run(22, Duration::from_secs(120)).await?;
    stage.agreed().await.map(drop)
}
