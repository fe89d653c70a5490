//! Behaviour of Kubernetes on which the design relies: what a Binding does, and who may write what.

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Event, Node};
use kerf_cluster::control::client;
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::draft::pod;
use crate::support::stage::{SOON, Stage, annotation, uid};

/// The status code and text of a refusal.
pub fn refusal<T>(result: Result<T, kube::Error>) -> anyhow::Result<(u16, String)> {
    match result {
        Err(kube::Error::Api(status)) => Ok((status.code, status.message.clone())),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("not refused"),
    }
}

async fn bind(stage: &Stage<'_>, name: &str, uid: &str, annotations: Value) -> Result<Value, kube::Error> {
    let body = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": { "name": name, "uid": uid, "annotations": annotations },
        "target": { "apiVersion": "v1", "kind": "Node", "name": "node-1" },
    });
    stage.pods().create_subresource("binding", name, &PostParams::default(), &body).await
}

/// Creates a pod that no scheduler takes.
async fn waiting(stage: &Stage<'_>, name: &str) -> anyhow::Result<k8s_openapi::api::core::v1::Pod> {
    let draft = pod(name).app("main", 0, 0).annotation("example.com/a", "old").annotation("example.com/b", "kept");
    stage.create(&draft.with("schedulerName", "nobody")).await
}

/// A binding with the uid of an earlier pod of the same name is refused as a whole.
pub async fn a_wrong_uid_writes_nothing(stage: &Stage<'_>) -> anyhow::Result<()> {
    let before = waiting(stage, "wrong").await?;
    let other = "00000000-0000-0000-0000-000000000000";
    let (code, text) = refusal(bind(stage, "wrong", other, json!({ "example.com/a": "new" })).await)?;
    ensure!(code == 409 && text.contains("UID in precondition"), "{code} {text}");
    let after = stage.pods().get("wrong").await?;
    ensure!(after.metadata.resource_version == before.metadata.resource_version, "something was written");
    Ok(())
}

/// Annotations and the node's name appear together; a second binding is refused.
pub async fn annotations_are_merged_with_the_binding(stage: &Stage<'_>) -> anyhow::Result<()> {
    let before = waiting(stage, "right").await?;
    bind(stage, "right", uid(&before)?, json!({ "example.com/a": "new", "example.com/c": "added" })).await?;
    let after = stage.pods().get("right").await?;
    let node = after.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    ensure!(node == Some("node-1"), "{node:?}");
    for (key, value) in [("example.com/a", "new"), ("example.com/b", "kept"), ("example.com/c", "added")] {
        ensure!(annotation(&after, key) == Some(value), "{key}: {:?}", after.metadata.annotations);
    }
    let (code, text) = refusal(bind(stage, "right", uid(&before)?, json!({ "example.com/a": "third" })).await)?;
    ensure!(code == 409 && text.contains("already assigned to node"), "{code} {text}");
    stage.phase("right", &["Running"]).await?;
    Ok(())
}

/// Not even the administrator does: not in a new pod, not by a change, not through a binding.
pub async fn only_kerf_writes_records(stage: &Stage<'_>) -> anyhow::Result<()> {
    let forged = pod("forged").app("main", 10, 1).annotation("inspur.com/gpu-placement", "{}");
    let isolated = pod("isolated").app("main", 10, 1).annotation("inspur.com/gpu-isolation", "{}");
    for forged in [forged, isolated] {
        let Err(error) = stage.create(&forged).await else { bail!("a record in a new pod was accepted") };
        ensure!(format!("{error:#}").contains("only kerf writes"), "{error:#}");
    }
    let before = waiting(stage, "plain").await?;
    let patch = json!({ "metadata": { "annotations": { "inspur.com/gpu-assigned": "true" } } });
    let params = PatchParams::default();
    let (code, text) = refusal(stage.pods().patch("plain", &params, &Patch::Merge(&patch)).await)?;
    ensure!(code == 403 && text.contains("only kerf writes"), "{code} {text}");
    let (code, text) = refusal(stage.pods().patch_status("plain", &params, &Patch::Merge(&patch)).await)?;
    ensure!(code == 403 && text.contains("only kerf writes"), "{code} {text}");
    let record = json!({ "inspur.com/predicate-gpu-idx-0": "0" });
    let (code, text) = refusal(bind(stage, "plain", uid(&before)?, record).await)?;
    ensure!(code == 403 && text.contains("only kerf writes"), "{code} {text}");
    Ok(())
}

/// With a plugin's own token: it can write its node's inventory and kerf's conditions, and nothing else.
pub async fn a_plugin_changes_its_own_node_only(stage: &Stage<'_>) -> anyhow::Result<()> {
    let token = client(&stage.cluster.place().path("kubeconfig/kerf-plugin-node-1")).await?;
    let events: Api<Event> = Api::namespaced(token.clone(), stage.namespace());
    let plugin = "kerf-plugin";
    for (kind, component, host, allowed) in [
        ("Pod", plugin, "node-1", true),
        ("Pod", plugin, "node-2", false),
        ("Pod", "kubelet", "node-1", false),
        ("Node", plugin, "node-1", false),
    ] {
        let event = serde_json::from_value(json!({
            "metadata": { "generateName": "own." }, "source": { "component": component, "host": host },
            "involvedObject": { "kind": kind, "name": "some", "namespace": stage.namespace() },
        }))?;
        let created = events.create(&PostParams::default(), &event).await;
        ensure!(created.is_ok() == allowed, "{kind} {component} {host}: {created:?}");
    }
    let about_nodes: Api<Event> = Api::namespaced(token.clone(), "default");
    for (name, allowed) in [("node-1", true), ("node-2", false)] {
        let event = serde_json::from_value(json!({
            "metadata": { "generateName": "own." }, "source": { "component": "kerf-plugin", "host": "node-1" },
            "involvedObject": { "kind": "Node", "name": name },
        }))?;
        let created = about_nodes.create(&PostParams::default(), &event).await;
        ensure!(created.is_ok() == allowed, "Node {name}: {created:?}");
    }
    let nodes: Api<Node> = Api::all(token);
    let params = PatchParams::default();
    let condition = |kind: &str| {
        let condition = json!({ "type": kind, "status": "True", "reason": "Tried", "message": "tried" });
        Patch::Strategic(json!({ "status": { "conditions": [condition] } }))
    };
    nodes.patch_status("node-1", &params, &condition("KerfTriedGPUsHealthy")).await?;
    for kind in ["Ready", "KerfGPUsHealthyAndReady"] {
        let (code, text) = refusal(nodes.patch_status("node-1", &params, &condition(kind)).await)?;
        ensure!(code == 403 && text.contains("nothing of a status but its own conditions"), "{code} {text}");
    }
    let capacity = Patch::Merge(json!({ "status": { "capacity": { "inspur.com/vcuda-core": "9999" } } }));
    let (code, text) = refusal(nodes.patch_status("node-1", &params, &capacity).await)?;
    ensure!(code == 403 && text.contains("nothing of a status but its own conditions"), "{code} {text}");
    let inventory = nodes.get("node-1").await?.metadata.annotations.context("no annotations")?;
    let inventory = inventory.get("inspur.com/gpu-inventory").context("no inventory")?;
    let patch = json!({ "metadata": { "annotations": { "inspur.com/gpu-inventory": inventory } } });
    nodes.patch_status("node-1", &params, &Patch::Merge(&patch)).await?;
    let (code, text) = refusal(nodes.patch_status("node-2", &params, &Patch::Merge(&patch)).await)?;
    ensure!(code == 403 && text.contains("its own node"), "{code} {text}");
    let other = json!({ "metadata": { "annotations": { "example.com/x": "y" } } });
    let (code, text) = refusal(nodes.patch_status("node-1", &params, &Patch::Merge(&other)).await)?;
    ensure!(code == 403 && text.contains("no annotations but"), "{code} {text}");
    let cordon = json!({ "spec": { "unschedulable": true } });
    let (code, text) = refusal(nodes.patch("node-1", &params, &Patch::Merge(&cordon)).await)?;
    ensure!(code == 403 && text.contains("cannot patch resource"), "{code} {text}");
    Ok(())
}

/// With the component `node-labels` a plugin writes the GPU vendors' labels on its own node only; without it none.
pub async fn a_plugin_writes_vendors_labels_where_it_is_let(stage: &Stage<'_>) -> anyhow::Result<()> {
    // the same change as the component makes
    let may_label = |value: bool| {
        let patch =
            json!([{ "op": "replace", "path": "/spec/variables/1/expression", "value": value.to_string() }]);
        let policy = "validatingadmissionpolicy/kerf-plugin-own-node";
        stage.cluster.control.kubectl(&["patch", policy, "--type=json", "--patch", &patch.to_string()])
    };
    let nodes: Api<Node> = Api::all(client(&stage.cluster.place().path("kubeconfig/kerf-plugin-node-1")).await?);
    let label = async |node: &str, labels: Value| {
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        nodes.patch_status(node, &PatchParams::default(), &patch).await
    };
    let (code, text) = refusal(label("node-1", json!({ "amd.com/gpu.vram": "16G" })).await)?;
    ensure!(code == 403 && text.contains("changes no labels"), "{code} {text}");
    may_label(true)?;
    let result = async {
        until(SOON, "the policy is in force", async || {
            label("node-1", json!({ "amd.com/gpu.vram": "16G", "nvidia-device-enable": "enable" })).await?;
            Ok(())
        })
        .await?;
        label("node-1", json!({ "amd.com/gpu.vram": null })).await?;
        for (node, labels) in [
            ("node-1", json!({ "kubernetes.io/hostname": "other" })),
            ("node-1", json!({ "amd.com/gpu": "x" })),
            ("node-1", json!({ "nvidia-device-enable": null })),
            ("node-2", json!({ "amd.com/gpu.vram": "16G" })),
        ] {
            let (code, text) = refusal(label(node, labels.clone()).await)?;
            ensure!(code == 403, "{node} {labels}: {code} {text}");
        }
        Ok(())
    };
    let result: anyhow::Result<()> = result.await;
    may_label(false)?;
    let gate = Patch::Merge(json!({ "metadata": { "labels": { "nvidia-device-enable": null } } }));
    let all: Api<Node> = Api::all(stage.cluster.client.clone());
    all.patch("node-1", &PatchParams::default(), &gate).await?;
    result
}
