//! A node leaves the cluster and comes back; a node that starts takes no pod before its GPUs can be used.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Node;
use kerf_cluster::control::client;
use kerf_cluster::node::Node as Machine;
use kerf_cluster::tools::workspace;
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::binding::refusal;
use crate::support::draft::{mixed, pod};
use crate::support::stage::{SOON, Stage};

/// The taint with which kubelet registers a new node.
const TAINT: &str = "inspur.com/gpu-starting";

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

/// Its kubelet registers it with the taint, and until the plugin has removed it no pod comes, with GPUs or without.
pub async fn a_node_that_starts_takes_no_pod_early(stage: &Stage<'_>) -> anyhow::Result<()> {
    let (_, second) = stage.two_nodes()?;
    let rights = workspace().join("manifests/components/startup-taint/rbac.yaml").display().to_string();
    stage.cluster.control.kubectl(&["apply", "-f", &rights])?;
    let result = starts(stage, second).await;
    stage.cluster.control.kubectl(&["delete", "-f", &rights])?;
    result
}

async fn starts(stage: &Stage<'_>, node: &Machine) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(stage.cluster.client.clone());
    node.kubelet.kill()?;
    node.plugin()?.kill()?;
    nodes.delete(&node.name, &DeleteParams::default()).await?;
    node.kubelet.start_with(&[&format!("--register-with-taints={TAINT}:NoSchedule")])?;
    let ready = async || {
        let object = nodes.get(&node.name).await?;
        let conditions = object.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        ensure!(conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"), "{conditions:?}");
        Ok(object)
    };
    let registered = until(SOON, "the node is registered and ready", ready).await?;
    ensure!(keys(&registered).contains(&TAINT), "{:?}", keys(&registered));
    let token = stage.cluster.plugin_token(&node.name).await?;
    for draft in [pod("shares").app("main", 40, 4), pod("plain").app("main", 0, 0)] {
        stage.create(&draft.on(&node.name)).await?;
    }
    for name in ["shares", "plain"] {
        stage.event(name, "untolerated taint").await?;
    }
    removes_nothing_else(stage, node, &nodes, &token).await?;

    node.plugin()?.start_again()?;
    stage.all_run(2, SOON).await?;
    let object = nodes.get(&node.name).await?;
    ensure!(!keys(&object).contains(&TAINT), "{:?}", keys(&object));
    ensure!(node.plugin()?.log().contains("startup taint removed"), "the plugin's log does not say so");
    // whoever puts it there later
    let startup = json!({ "key": TAINT, "value": "later", "effect": "NoSchedule" });
    nodes.patch(&node.name, &PatchParams::default(), &taints(&[startup])).await?;
    until(SOON, "the taint is removed again", async || {
        let object = nodes.get(&node.name).await?;
        ensure!(keys(&object).is_empty(), "{:?}", keys(&object));
        Ok(())
    })
    .await?;
    stage.cluster.ready(SOON).await?;
    stage.agreed().await.map(drop)
}

/// With the plugin's own token: what its right to change Nodes is good for.
async fn removes_nothing_else(
    stage: &Stage<'_>,
    node: &Machine,
    nodes: &Api<Node>,
    token: &std::path::Path,
) -> anyhow::Result<()> {
    let own: Api<Node> = Api::all(client(token).await?);
    let (startup, other) = (
        json!({ "key": TAINT, "effect": "NoSchedule" }),
        json!({ "key": "example.com/other", "value": "x", "effect": "PreferNoSchedule" }),
    );
    let both = [startup.clone(), other.clone()];
    nodes.patch(&node.name, &PatchParams::default(), &taints(&both)).await?;
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let changed = json!({ "key": "example.com/other", "value": "y", "effect": "PreferNoSchedule" });
    let added = json!({ "key": "example.com/more", "effect": "NoSchedule" });
    let spec = "changes nothing of a spec, but removes the taint inspur.com/gpu-starting";
    for (why, patch) in [
        (spec, taints(&[])),
        (spec, taints(std::slice::from_ref(&startup))),
        (spec, taints(&[changed])),
        (spec, taints(&[other.clone(), added])),
        (spec, Patch::Merge(json!({ "spec": { "unschedulable": true } }))),
        (spec, Patch::Merge(json!({ "spec": { "unschedulable": true, "taints": [other] } }))),
        ("no labels", Patch::Merge(json!({ "metadata": { "labels": { "example.com/x": "y" } } }))),
        ("no annotations", Patch::Merge(json!({ "metadata": { "annotations": { "example.com/x": "y" } } }))),
        ("no finalizers", Patch::Merge(json!({ "metadata": { "finalizers": ["example.com/x"] } }))),
    ] {
        let (code, text) =
            refusal(own.patch(&node.name, &dry, &patch).await).with_context(|| format!("{patch:?}"))?;
        ensure!(code == 403 && text.contains(why), "{patch:?}: {code} {text}");
    }
    let (first, _) = stage.two_nodes()?;
    let (code, text) = refusal(own.patch(&first.name, &dry, &taints(&[])).await)?;
    ensure!(code == 403 && text.contains("its own node"), "{code} {text}");
    own.patch(&node.name, &dry, &taints(&[other])).await.context("the startup taint alone")?;
    nodes.patch(&node.name, &PatchParams::default(), &taints(&[startup])).await?;
    Ok(())
}

fn taints(taints: &[Value]) -> Patch<Value> {
    Patch::Merge(json!({ "spec": { "taints": taints } }))
}

/// The keys of a Node's taints.
fn keys(node: &Node) -> Vec<&str> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.into_iter().flatten().map(|taint| taint.key.as_str()).collect()
}
