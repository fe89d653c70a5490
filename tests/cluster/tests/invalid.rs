//! Requests that break a rule.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kerf_cluster::control::client;
use kerf_cluster::tools::workspace;
use kerf_scenarios::requests::template;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};

use crate::support::draft::pod;
use crate::support::policy::{leave_out, take_in};
use crate::support::stage::{Stage, phase};

/// Where they are not refused when they are written: the event names the container and the rule, and other pods are not
/// held up.
pub async fn requests_stay_pending_with_the_rule_in_an_event(stage: &Stage<'_>) -> anyhow::Result<()> {
    leave_out(stage).await?;
    let limit = "inspur.com/vcuda-core-limit";
    let cases = [
        (pod("between").app("main", 150, 30), "container \"main\": vcuda-core must be 1..99 or a multiple of 100"),
        (
            pod("no-memory").app("a", 10, 1).app("b", 50, 0),
            "container \"b\": a share (vcuda-core below 100) needs vcuda-memory",
        ),
        (pod("no-core").app("main", 0, 5), "container \"main\": vcuda-memory needs vcuda-core"),
        (pod("init").init("first", 130, 5).app("main", 10, 1), "container \"first\": vcuda-core must be"),
        (
            pod("words").app("main", 10, 1).annotation(limit, "x"),
            "annotation vcuda-core-limit must be a whole number",
        ),
        (
            pod("below").app("main", 50, 1).annotation(limit, "20"),
            "container \"main\": annotation vcuda-core-limit must be at least",
        ),
        (
            pod("policy").app("main", 10, 1).annotation("inspur.com/gpu-policy", "x"),
            "annotation gpu-policy: unknown policy",
        ),
    ];
    for (draft, _) in &cases {
        stage.create(draft).await?;
    }
    stage.create(&pod("valid").app("main", 10, 1)).await?;
    for (draft, text) in &cases {
        stage.event(&draft.name, text).await?;
        let object = stage.pods().get(&draft.name).await?;
        ensure!(phase(&object) == "Pending", "{} is {}", draft.name, phase(&object));
        ensure!(object.spec.is_some_and(|spec| spec.node_name.is_none()), "{} is bound", draft.name);
    }
    // no more than some GPU might have, but no node here can ever take it
    stage.create(&pod("large").app("main", 50, 4096)).await?;
    stage.event("large", "vcuda-memory").await?;
    stage.phase("valid", &["Running"]).await?;
    stage.agreed().await.map(drop)
}

/// What breaks a rule and was there before the policy is changed in all that the rules do not read.
pub async fn what_was_there_before_is_changed_in_all_else(stage: &Stage<'_>) -> anyhow::Result<()> {
    const RULE: &str = "container \"main\": vcuda-core must be 1..99 or a multiple of 100";
    leave_out(stage).await?;
    let draft = pod("old").app("main", 150, 1).with("schedulerName", "nobody");
    stage.create(&draft).await?;
    let template = json!({ "metadata": { "labels": { "app": "old" } }, "spec": { "containers": draft.value()["spec"]["containers"] } });
    let deployment = json!({ "metadata": { "name": "old" },
        "spec": { "replicas": 0, "selector": { "matchLabels": { "app": "old" } }, "template": template } });
    let deployments: Api<Deployment> = Api::namespaced(stage.cluster.client.clone(), stage.namespace());
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment)?).await?;
    take_in(stage).await?;
    let params = PatchParams::default();
    let limits = |limits: Value| json!({ "spec": { "template": { "spec": { "containers": [{ "name": "main", "resources": { "limits": limits } }] } } } });
    let annotation = |key: &str, value: &str| json!({ "metadata": { "annotations": { key: value } } });
    // in this order: a name that is there already is none of a change
    for (change, refused) in [
        (annotation("example.com/z", "y"), false),
        (annotation("inspur.com/owner", "y"), false),
        (json!({ "metadata": { "labels": { "z": "y" } } }), false),
        (annotation("inspur.com/gpu-policy", "spread"), true),
        (annotation("inspur.com/gpu-polcy", "spread"), true),
    ] {
        let result = stage.pods().patch("old", &params, &Patch::Strategic(&change)).await.map(drop);
        told(result, refused, RULE).with_context(|| change.to_string())?;
        let change = json!({ "spec": { "template": change } });
        let result = deployments.patch("old", &params, &Patch::Strategic(&change)).await.map(drop);
        told(result, refused, RULE).with_context(|| change.to_string())?;
    }
    let beside = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "beside", "image": "busybox:1.37" }] } } } });
    for (change, refused) in [
        (json!({ "spec": { "replicas": 0, "paused": true } }), false),
        (beside, false),
        (limits(json!({ "cpu": "1", "example.com/other": "1" })), false),
        (limits(json!({ "inspur.com/vcuda-core": "151" })), true),
        (limits(json!({ "nvidia.com/gpu": "1" })), true),
    ] {
        let result = deployments.patch("old", &params, &Patch::Strategic(&change)).await.map(drop);
        told(result, refused, RULE).with_context(|| change.to_string())?;
    }
    Ok(())
}

/// Whether a change was refused with this text.
fn told(result: Result<(), kube::Error>, refused: bool, text: &str) -> anyhow::Result<()> {
    match result {
        Ok(()) => ensure!(!refused, "allowed"),
        Err(kube::Error::Api(status)) => {
            ensure!(refused && status.code == 422 && status.message.ends_with(text), "{status:?}");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The API server says what the extender would, in the same words, about pods and about what makes pods. The table is
/// tested against the extender's domain as well: `tests/requests.rs`.
pub async fn requests_are_refused_when_they_are_written(stage: &Stage<'_>) -> anyhow::Result<()> {
    let table = std::fs::read_to_string(workspace().join("tests/requests.json"))?;
    let table: Vec<Value> = serde_json::from_str(&table)?;
    let admin = client(&stage.cluster.control.admin()).await?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let within = |group: &str| format!("{group}/namespaces/{}", stage.namespace());
    for row in &table {
        let template = template(row, "inspur.com");
        let mut pod = template.clone();
        pod["metadata"]["name"] = "row".into();
        let of = json!({ "selector": { "matchLabels": { "app": "row" } }, "template": template });
        let mut job = template.clone();
        job["spec"]["restartPolicy"] = "Never".into();
        let job = json!({ "schedule": "@daily", "jobTemplate": { "spec": { "template": job } } });
        let objects = [
            (within("/api/v1") + "/pods", pod),
            (within("/apis/apps/v1") + "/deployments", json!({ "metadata": { "name": "row" }, "spec": of })),
            (within("/apis/batch/v1") + "/cronjobs", json!({ "metadata": { "name": "row" }, "spec": job })),
        ];
        for (path, object) in objects {
            let (url, plural) = path.rsplit_once('/').context("no path")?;
            let request = Request::new(format!("{url}/{plural}")).create(&dry, object.to_string().into())?;
            let (code, said) = match admin.request::<Value>(request).await {
                Ok(_) => (201, String::new()),
                Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
                Err(error) => return Err(error).context(path),
            };
            let expected = row["says"].as_str().context("no text")?;
            // a policy's text follows its name
            let own = said.split_once("denied request: ").map_or("", |(_, own)| own);
            let right = match () {
                () if expected.is_empty() => code == 201,
                () if row["by"].is_string() => code == 422,
                () => code == 422 && own == expected,
            };
            ensure!(right, "{path}: {row}: {code} {said}");
        }
    }
    Ok(())
}
