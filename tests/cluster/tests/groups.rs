//! Groups of pods that kube-scheduler binds together or not at all (alpha in Kubernetes 1.36, beta and off in 1.37).

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kerf_cluster::release::since;
use kerf_cluster::wait::until;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::support::draft::pod;
use crate::support::stage::{SOON, Stage, runs, why};

const GROUPS: [&str; 2] = ["x", "y"];

/// Two groups of as many whole GPUs as the second node has, their pods created in turn: one group runs, then the other.
pub async fn two_do_not_lock_each_other(stage: &Stage<'_>) -> anyhow::Result<()> {
    let control = &stage.cluster.control;
    let (api, gates) = match since(&stage.cluster.client, "1.37").await? {
        true => ("scheduling.k8s.io/v1beta1", "--feature-gates=GenericWorkload=true"),
        false => ("scheduling.k8s.io/v1alpha2", "--feature-gates=GenericWorkload=true,GangScheduling=true"),
    };
    let served = format!("--runtime-config={api}=true");
    let restart = |gates: &[&str], served: &[&str]| {
        control.scheduler.kill()?;
        control.api.kill()?;
        control.api.start_with(&[gates, served].concat())?;
        control.scheduler.start_with(gates)
    };
    restart(&[gates], &[&served])?;
    let result = one_after_the_other(stage, api).await;
    // pods that other tests' API servers do not know must be gone before the restart
    let pods =
        stage.pods().delete_collection(&DeleteParams::default().grace_period(2), &ListParams::default()).await;
    let namespace = format!("--namespace={}", stage.namespace());
    // the controller that would remove their finalizer does not know them
    let groups = GROUPS.into_iter().try_for_each(|group| {
        let none = r#"{"metadata":{"finalizers":null}}"#;
        control.kubectl(&["delete", "podgroup", group, &namespace, "--wait=false"])?;
        control.kubectl(&["patch", "podgroup", group, &namespace, "--type=merge", "-p", none]).map(drop)
    });
    restart(&[], &[])?;
    stage.cluster.ready(SOON).await?;
    result?;
    pods?;
    groups
}

async fn one_after_the_other(stage: &Stage<'_>, api: &str) -> anyhow::Result<()> {
    stage.cluster.ready(SOON).await?;
    let (_, node) = stage.two_nodes()?;
    let count = node.cards.uuids().len();
    let control = &stage.cluster.control;
    let groups = GROUPS.map(|group| {
        json!({
            "apiVersion": api, "kind": "PodGroup",
            "metadata": { "name": group, "namespace": stage.namespace() },
            "spec": { "schedulingPolicy": { "gang": { "minCount": count } } },
        })
    });
    let pods = (0..count).flat_map(|number| {
        GROUPS.map(|group| {
            let draft = pod(format!("{group}-{number}")).app("main", 100, 0).on(&node.name);
            let mut value = draft.with("schedulingGroup", json!({ "podGroupName": group })).value().clone();
            value["metadata"]["namespace"] = stage.namespace().into();
            value
        })
    });
    let items: Vec<_> = groups.into_iter().chain(pods).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string();
    let file = stage.cluster.place().write("groups.json", list)?;
    control.kubectl(&["create", "-f", &file.display().to_string()])?;
    let first = running(stage, count).await?;
    // the whole group runs, and no pod of the other
    for number in 0..count {
        stage.pods().delete(&format!("{first}-{number}"), &DeleteParams::default()).await?;
    }
    let second = running(stage, count).await?;
    ensure!(second != first, "{first} runs again");
    Ok(())
}

/// Waits until all pods of one group run; returns its name.
async fn running(stage: &Stage<'_>, count: usize) -> anyhow::Result<String> {
    until(Duration::from_secs(90), "one of the groups runs", async || {
        let pods = stage.list().await?;
        let group = |pod: &Pod| pod.metadata.name.as_deref().and_then(|name| name.get(..1)).map(str::to_owned);
        let run: Vec<&Pod> = pods.iter().filter(|pod| runs(pod)).collect();
        let others: Vec<String> = pods.iter().filter(|pod| !runs(pod)).map(why).collect();
        ensure!(run.len() == count, "{} of {count} run; {}", run.len(), others.join("; "));
        let first = run.first().and_then(|pod| group(pod)).context("no name")?;
        ensure!(run.iter().all(|pod| group(pod).as_ref() == Some(&first)), "of both groups");
        Ok(first)
    })
    .await
}
