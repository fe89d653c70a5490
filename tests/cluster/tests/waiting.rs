//! Waiting pods: no pod waits for itself, none waits longer than there is a reason, and none gets a GPU for which
//! another one is waiting.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kerf_cluster::samples;
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::draft::{Draft, pod};
use crate::support::stage::{SOON, Stage, phase, runs, uid, unschedulable, why};

/// A pod that waits for GPUs gets them within this time after they became free, and runs a moment later.
const SERVED: Duration = Duration::from_secs(25);

async fn count(stage: &Stage<'_>, metric: &str, labels: &[&str]) -> anyhow::Result<f64> {
    let metrics = stage.cluster.extender_text("/metrics").await?;
    Ok(samples::sum(&metrics, metric, labels))
}

/// Takes all GPUs of the cluster, except `free` of its second node.
async fn fill(stage: &Stage<'_>, free: usize) -> anyhow::Result<usize> {
    let (first, second) = stage.two_nodes()?;
    let cards = first.cards.uuids().len();
    let on_first = (0..cards).map(|number| pod(format!("first-{number}")).app("main", 100, 0).on(&first.name));
    let on_second =
        (free..cards).map(|number| pod(format!("second-{number}")).app("main", 100, 0).on(&second.name));
    let drafts: Vec<Draft> = on_first.chain(on_second).collect();
    stage.create_all(&drafts).await?;
    stage.all_run(drafts.len(), SOON).await?;
    Ok(drafts.len())
}

/// Waits until kerf has refused the pod for lack of a GPU.
async fn refused(stage: &Stage<'_>, name: &str) -> anyhow::Result<()> {
    until(SOON, &format!("{name} waits"), async || {
        let pod = stage.pods().get(name).await?;
        let message = unschedulable(&pod).unwrap_or_default().to_owned();
        ensure!(message.contains("insufficient vcuda-core on a single GPU"), "{}", why(&pod));
        Ok(())
    })
    .await
}

async fn served(stage: &Stage<'_>, name: &str) -> anyhow::Result<()> {
    until(SERVED, &format!("{name} runs"), async || {
        let pod = stage.pods().get(name).await?;
        ensure!(runs(&pod), "{}", why(&pod));
        Ok(())
    })
    .await
}

/// Eight pods, each of which needs a whole GPU: the API server is stopped when they are about to be bound. Afterwards
/// no pod blocks itself.
pub async fn a_pause_during_the_bindings_costs_nobody_its_card(stage: &Stage<'_>) -> anyhow::Result<()> {
    let (extender, api) = (stage.cluster.extender()?, &stage.cluster.control.api);
    let cards: usize = stage.cluster.nodes.iter().map(|node| node.cards.uuids().len()).sum();
    let unknown = count(stage, "kerf_extender_binds_total", &["outcome=\"unknown\""]).await?;
    // the scheduler asks about the first of them and has no answer before the API server is stopped
    extender.signal(Signal::STOP)?;
    let drafts: Vec<Draft> = (0..cards).map(|number| pod(format!("p-{number}")).app("main", 60, 3)).collect();
    let created = stage.create_all(&drafts).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    api.signal(Signal::STOP)?;
    extender.signal(Signal::CONT)?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    api.signal(Signal::CONT)?;
    created?;
    stage.all_run(cards, SERVED).await?;
    let now = count(stage, "kerf_extender_binds_total", &["outcome=\"unknown\""]).await?;
    ensure!(now > unknown, "no binding was lost");
    stage.agreed().await.map(drop)
}

/// A reservation whose binding was never written ends only by timeout.
pub async fn the_end_of_a_lost_binding_is_told_to_who_waits(stage: &Stage<'_>) -> anyhow::Result<()> {
    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(stage.cluster.client.clone());
    // the webhook does not exist, so that the API server neither writes a binding nor refuses it
    let hook = json!({
        "metadata": { "name": "kerf-lost-bindings" },
        "webhooks": [{
            "name": "lost-bindings.example.com", "failurePolicy": "Fail", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": { "url": "https://127.0.0.1:1/" },
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": stage.namespace() } },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods/binding"] }],
        }],
    });
    let others = fill(stage, 1).await?;
    hooks.create(&PostParams::default(), &serde_json::from_value(hook)?).await?;
    let lost = lose_a_binding(stage).await;
    hooks.delete("kerf-lost-bindings", &DeleteParams::default()).await?;
    let (retries, expired) = lost?;
    stage.create(&pod("waits").app("main", 60, 3)).await?;
    refused(stage, "waits").await?;
    until(SOON, "the reservation ends", async || {
        let now = count(stage, "kerf_extender_expired_total", &[]).await?;
        ensure!(now > expired, "it has not");
        Ok(())
    })
    .await?;
    served(stage, "waits").await?;
    let now = count(stage, "kerf_extender_retries_total", &[]).await?;
    ensure!(now > retries, "kube-scheduler was not told");
    let run = stage.list().await?.iter().filter(|pod| runs(pod)).count();
    ensure!(run == others + 1, "{run} run");
    stage.agreed().await.map(drop)
}

/// Makes the extender bind, in vain, a pod that no scheduler takes. Returns how often it had told the scheduler to try
/// again before, and how many of its reservations had ended.
async fn lose_a_binding(stage: &Stage<'_>) -> anyhow::Result<(f64, f64)> {
    let (_, node) = stage.two_nodes()?;
    let ghost = stage.create(&pod("ghost").app("main", 60, 3).with("schedulerName", "nobody")).await?;
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "ghost" },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node.name },
    });
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until(SOON, "bindings are lost", async || {
        let tried: Result<Value, _> = stage.pods().create_subresource("binding", "ghost", &dry, &binding).await;
        let lost = matches!(&tried, Err(kube::Error::Api(status)) if status.code == 500);
        ensure!(lost, "{tried:?}");
        Ok(())
    })
    .await?;
    let retries = count(stage, "kerf_extender_retries_total", &[]).await?;
    let expired = count(stage, "kerf_extender_expired_total", &[]).await?;
    let url = format!("http://127.0.0.1:{}/scheduler/bind", stage.cluster.control.ports.extender);
    let body =
        json!({ "PodName": "ghost", "PodNamespace": stage.namespace(), "PodUID": uid(&ghost)?, "Node": node.name });
    let answer: Value = reqwest::Client::new().post(url).json(&body).send().await?.json().await?;
    let error = answer["Error"].as_str().unwrap_or_default();
    ensure!(error.contains("outcome of the binding is unknown"), "{answer}");
    Ok((retries, expired))
}

/// A GPU that is free for a pod of higher priority is not taken by a lower one, to which kube-scheduler alone would
/// give it; and is taken as soon as it is free for all, though nothing changes that the scheduler watches.
pub async fn a_nominated_pod_keeps_its_card(stage: &Stage<'_>) -> anyhow::Result<()> {
    fill(stage, 1).await?;
    let (_, node) = stage.two_nodes()?;
    let important = pod("high").app("main", 100, 0).with("schedulerName", "nobody");
    let important = important.with("priority", 2_000_000_000).with("priorityClassName", "system-cluster-critical");
    stage.create(&important).await?;
    let nominate = async |node: Value| {
        let patch = json!({ "status": { "nominatedNodeName": node } });
        stage.pods().patch_status("high", &PatchParams::default(), &Patch::Merge(&patch)).await
    };
    nominate(node.name.as_str().into()).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.create(&pod("low").app("main", 20, 1)).await?;
    refused(stage, "low").await?;
    nominate(Value::Null).await?;
    served(stage, "low").await?;
    stage.agreed().await.map(drop)
}

/// A pod whose volume does not exist yet waits in PreBind. It keeps its GPU, though the node's total would suffice for
/// another.
pub async fn a_pod_that_waits_for_its_volume_keeps_its_card(stage: &Stage<'_>) -> anyhow::Result<()> {
    let client = stage.cluster.client.clone();
    let classes: Api<StorageClass> = Api::all(client.clone());
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let result = waits_for_its_volume(stage, &classes, &volumes).await;
    classes.delete("kerf-by-hand", &DeleteParams::default()).await?;
    // where the test did not get that far there is none
    drop(volumes.delete("kerf-by-hand", &DeleteParams::default()).await);
    result
}

async fn waits_for_its_volume(
    stage: &Stage<'_>,
    classes: &Api<StorageClass>,
    volumes: &Api<PersistentVolume>,
) -> anyhow::Result<()> {
    let class = json!({
        "metadata": { "name": "kerf-by-hand" }, "provisioner": "example.com/by-hand",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    classes.create(&PostParams::default(), &serde_json::from_value(class)?).await?;
    let others = fill(stage, 2).await?;
    let (_, node) = stage.two_nodes()?;
    stage.create(&pod("half").app("main", 60, 3).on(&node.name)).await?;
    stage.all_run(others + 1, SOON).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(stage.cluster.client.clone(), stage.namespace());
    let spec = json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": "kerf-by-hand",
        "resources": { "requests": { "storage": "1Mi" } },
    });
    let claim = json!({ "metadata": { "name": "data" }, "spec": spec });
    claims.create(&PostParams::default(), &serde_json::from_value(claim)?).await?;
    let volume = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    stage.create(&pod("waits").app("main", 60, 3).with("volumes", volume)).await?;
    until(SOON, "the scheduler has chosen a node for the volume", async || {
        let claim = claims.get("data").await?;
        let chosen = claim.metadata.annotations.unwrap_or_default();
        ensure!(chosen.get("volume.kubernetes.io/selected-node") == Some(&node.name), "{chosen:?}");
        Ok(())
    })
    .await?;
    // 40 are left on one GPU and 40 on the other; the node's total is 80
    stage.create(&pod("late").app("main", 60, 3)).await?;
    refused(stage, "late").await?;
    let spec = json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": "kerf-by-hand", "capacity": { "storage": "1Mi" },
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": { "path": "/tmp/kerf-by-hand", "type": "DirectoryOrCreate" },
        "claimRef": { "namespace": stage.namespace(), "name": "data" },
    });
    let volume = json!({ "metadata": { "name": "kerf-by-hand" }, "spec": spec });
    volumes.create(&PostParams::default(), &serde_json::from_value(volume)?).await?;
    stage.phase("waits", &["Running"]).await?;
    let late = stage.pods().get("late").await?;
    ensure!(phase(&late) == "Pending" && late.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()));
    stage.pods().delete("waits", &DeleteParams::default()).await?;
    served(stage, "late").await?;
    claims.delete("data", &DeleteParams::default()).await?;
    stage.agreed().await.map(drop)
}
