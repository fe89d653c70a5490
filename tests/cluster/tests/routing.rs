//! kerf's own scheduler: how pods come to it, and that every way to install it is one that the API server takes.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kerf_cluster::control::client;
use kerf_cluster::kustomization::Kustomization;
use kerf_cluster::release::components;
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::{ListParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};

use crate::support::draft::{Draft, pod};
use crate::support::policy::leave_out;
use crate::support::stage::{SOON, Stage, why};

/// Objects that are applied for a test, and deleted when this is dropped.
struct Applied<'a> {
    stage: &'a Stage<'a>,
    file: String,
}

impl<'a> Applied<'a> {
    /// Applies the policies about who schedules, as the base has them with these components.
    fn new(stage: &'a Stage<'a>, components: &[&str]) -> anyhow::Result<Self> {
        let control = &stage.cluster.control;
        let base = kustomization(stage, "base", components)?;
        let rendered = control.kubectl(&["create", "--dry-run=client", "--output=json", "-k", &base])?;
        // one object after the other
        let objects = serde_json::Deserializer::from_str(&rendered).into_iter::<Value>();
        let objects: Vec<Value> = objects.collect::<Result<_, _>>()?;
        let own = |object: &&Value| {
            let kind = object["kind"].as_str().unwrap_or_default();
            kind.contains("AdmissionPolicy") && object["metadata"]["name"] == "kerf-scheduler"
        };
        let own: Vec<&Value> = objects.iter().filter(own).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": own }).to_string();
        let file = stage.cluster.place().write("routing.json", list)?.display().to_string();
        let applied = Self { stage, file };
        control.kubectl(&["apply", "-f", &applied.file])?;
        Ok(applied)
    }
}

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "--ignore-not-found", "--wait", "-f", &self.file];
        drop(self.stage.cluster.control.kubectl(&delete));
    }
}

/// What a test took away is there again when this is dropped.
struct Restored<'a>(&'a Stage<'a>);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        drop(self.0.cluster.pods().and_then(|pods| pods.apply(&self.0.cluster.control)));
    }
}

/// Writes an administrator's kustomization of `manifests/`; returns its directory.
fn kustomization(stage: &Stage<'_>, resources: &str, components: &[&str]) -> anyhow::Result<String> {
    let written = Kustomization { resources, components, tags: &[], gpus: None }.write(stage.cluster.place())?;
    Ok(written.display().to_string())
}

async fn dry_run(stage: &Stage<'_>, draft: &Draft) -> Result<Pod, kube::Error> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let object = serde_json::from_value(draft.value().clone()).map_err(kube::Error::SerdeError)?;
    stage.pods().create(&dry, &object).await
}

async fn scheduler_of(stage: &Stage<'_>, draft: &Draft) -> anyhow::Result<String> {
    let made = dry_run(stage, draft).await.with_context(|| draft.name.clone())?;
    made.spec.and_then(|spec| spec.scheduler_name).context("no scheduler")
}

/// The scheduler of the pods that a controller makes.
async fn of_controlled(stage: &Stage<'_>, label: &str) -> anyhow::Result<()> {
    let selector = ListParams::default().labels(&format!("app={label}"));
    until(SOON, &format!("a pod of {label}"), async || {
        let pods = stage.pods().list(&selector).await?.items;
        let names: Vec<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.scheduler_name.as_deref()).collect();
        ensure!(names == ["kerf-scheduler"], "{names:?}: {}", pods.iter().map(why).collect::<String>());
        Ok(())
    })
    .await
}

/// Pods that ask for GPUs in different containers.
fn shapes() -> [Draft; 4] {
    [
        pod("share").app("main", 10, 1),
        pod("whole").app("main", 100, 0),
        pod("init").init("first", 10, 1).app("main", 0, 0),
        pod("sidecar").sidecar("beside", 10, 1).app("main", 0, 0),
    ]
}

/// A pod is refused, with what to write and the scheduler that it has.
async fn refused(stage: &Stage<'_>, draft: &Draft, scheduler: &str) -> anyhow::Result<()> {
    let made = dry_run(stage, draft).await;
    let Err(kube::Error::Api(status)) = made else { anyhow::bail!("{}: {made:?}", draft.name) };
    let text = format!("write schedulerName: kerf-scheduler into its spec (it has {scheduler})");
    ensure!(status.code == 403 && status.message.contains(&text), "{}: {status:?}", draft.name);
    Ok(())
}

/// A policy of kerf's has nothing to say about objects that lack what it reads.
pub async fn what_has_no_containers_is_told_by_kubernetes(stage: &Stage<'_>) -> anyhow::Result<()> {
    let admin = client(&stage.cluster.control.admin()).await?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let within = |group: &str| format!("{group}/namespaces/{}", stage.namespace());
    let asking = pod("asking").init("first", 10, 1).value()["spec"]["initContainers"].clone();
    for spec in [
        Value::Null,
        json!({}),
        json!({ "containers": null }),
        json!({ "containers": [], "initContainers": asking }),
    ] {
        let of = json!({ "selector": { "matchLabels": { "app": "x" } },
            "template": { "metadata": { "labels": { "app": "x" } }, "spec": spec } });
        let job = json!({ "schedule": "@daily", "jobTemplate": { "spec": { "template": { "spec": spec } } } });
        for (url, spec) in [
            (within("/api/v1") + "/pods", spec.clone()),
            (within("/api/v1") + "/replicationcontrollers", json!({ "selector": { "app": "x" } })),
            (within("/apis/apps/v1") + "/deployments", of),
            (within("/apis/apps/v1") + "/daemonsets", Value::Null),
            (within("/apis/batch/v1") + "/jobs", json!({})),
            (within("/apis/batch/v1") + "/cronjobs", job),
        ] {
            let object = json!({ "metadata": { "name": "x" }, "spec": spec }).to_string();
            let made = admin.request::<Value>(Request::new(url.clone()).create(&dry, object.into())?).await;
            let Err(kube::Error::Api(status)) = made else { anyhow::bail!("{url} {spec}: {made:?}") };
            let own =
                status.code == 422 && status.message.contains("Required value") && !status.message.contains("kerf");
            ensure!(own, "{url} {spec}: {status:?}");
        }
    }
    Ok(())
}

/// Pods without GPUs keep the scheduler that they name, also those that name kerf's resources and ask for 0 of them.
async fn others_are_left_alone(stage: &Stage<'_>) -> anyhow::Result<()> {
    let plain = pod("plain").app("main", 0, 0);
    let theirs = plain.named("theirs").with("schedulerName", "volcano");
    let zero = plain.named("zero").asks("inspur.com/vcuda-core", 0).asks("inspur.com/vcuda-memory", 0);
    let their_zero = zero.named("their-zero").with("schedulerName", "volcano");
    let (default, volcano) = ("default-scheduler", "volcano");
    for (draft, expected) in [(&plain, default), (&theirs, volcano), (&zero, default), (&their_zero, volcano)] {
        let now = scheduler_of(stage, draft).await?;
        ensure!(now == expected, "{}: {now}", draft.name);
    }
    Ok(())
}

/// A Deployment `deployed` and a Job `worked` of a pod.
async fn workloads(stage: &Stage<'_>, draft: &Draft) -> anyhow::Result<()> {
    let client = &stage.cluster.client;
    let template = |label: &str, restart: &str| {
        let mut spec = draft.value()["spec"].clone();
        spec["restartPolicy"] = restart.into();
        json!({ "metadata": { "labels": { "app": label } }, "spec": spec })
    };
    let selector = json!({ "matchLabels": { "app": "deployed" } });
    let spec = json!({ "selector": selector, "template": template("deployed", "Always") });
    let deployed = serde_json::from_value(json!({ "metadata": { "name": "deployed" }, "spec": spec }))?;
    Api::<Deployment>::namespaced(client.clone(), stage.namespace())
        .create(&PostParams::default(), &deployed)
        .await?;
    let spec = json!({ "template": template("worked", "Never") });
    let worked = serde_json::from_value(json!({ "metadata": { "name": "worked" }, "spec": spec }))?;
    Api::<Job>::namespaced(client.clone(), stage.namespace()).create(&PostParams::default(), &worked).await?;
    Ok(())
}

/// Pods that name no scheduler get kerf's, whoever makes them; under another one they are refused with what to write.
/// Others are left alone, and so are namespaces with the label. With the routing taken away, none is bound without cards.
pub async fn pods_that_ask_for_gpus_come_to_kerfs_scheduler(stage: &Stage<'_>) -> anyhow::Result<()> {
    let [share, ..] = shapes();
    let other = share.named("other").with("schedulerName", "volcano");
    let named = ["default-scheduler", "kerf-scheduler"].map(|name| share.named(name).with("schedulerName", name));
    for draft in shapes().into_iter().chain(named) {
        let now = scheduler_of(stage, &draft).await?;
        ensure!(now == "kerf-scheduler", "{}: {now}", draft.name);
    }
    refused(stage, &other, "volcano").await?;
    others_are_left_alone(stage).await?;

    workloads(stage, &share).await?;
    of_controlled(stage, "deployed").await?;
    of_controlled(stage, "worked").await?;

    // the refusal stands alone where pods are not routed
    let restored = Restored(stage);
    let routing = ["mutatingadmissionpolicybinding/kerf-scheduler", "mutatingadmissionpolicy/kerf-scheduler"];
    stage.cluster.control.kubectl(&["delete", routing[0], routing[1]])?;
    until(SOON, "a pod that is not routed is refused", async || refused(stage, &share, "default-scheduler").await)
        .await?;
    leave_out(stage).await?;
    let now = scheduler_of(stage, &share).await?;
    ensure!(now == "default-scheduler", "in a namespace that is left out: {now}");
    drop(restored);
    Ok(())
}

/// As it is installed where pods cannot be routed, or are not to be: a pod under another scheduler than kerf's is refused
/// with what to write, whoever makes it, and with that written it is allowed.
pub async fn pods_that_ask_for_gpus_are_told_of_kerfs_scheduler(stage: &Stage<'_>) -> anyhow::Result<()> {
    let applied = Applied::new(stage, &["without-mutation"])?;
    let [share, ..] = shapes();
    until(SOON, "the policy is in force", async || refused(stage, &share, "default-scheduler").await).await?;
    for draft in shapes() {
        refused(stage, &draft, "default-scheduler").await?;
        refused(stage, &draft.named("other").with("schedulerName", "volcano"), "volcano").await?;
        let now = scheduler_of(stage, &draft.named("own").with("schedulerName", "kerf-scheduler")).await?;
        ensure!(now == "kerf-scheduler", "{}: {now}", draft.name);
    }
    others_are_left_alone(stage).await?;

    // the Job makes no pod, and its user reads why
    workloads(stage, &share).await?;
    stage.event("worked", "write schedulerName: kerf-scheduler into its spec (it has default-scheduler)").await?;
    ensure!(stage.list().await?.is_empty(), "there is a pod");
    leave_out(stage).await?;
    let now = scheduler_of(stage, &share).await?;
    ensure!(now == "default-scheduler", "in a namespace that is left out: {now}");
    drop(applied);
    Ok(())
}

/// Ways to install kerf: the base or an overlay of it, and components that change who schedules.
pub const WAYS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("base", &["runtime-class", "reserved-nodes", "node-labels"]),
    ("base", &["without-mutation", "warn-requests"]),
    ("base", &["control-plane"]),
    ("base", &["remote"]),
    ("base", &["remote", "remote-tls"]),
    ("overlays/tencent", &["reserved-nodes"]),
    ("overlays/tencent", &["remote"]),
    ("overlays/simulated", &["remote"]),
    ("overlays/legacy", &[]),
    ("overlays/nvidia-runtime", &["runtime-class"]),
    ("overlays/driver-limits", &[]),
];

/// The base, its overlays, and the components that change who schedules; on an older Kubernetes with the component that it
/// needs, and not without.
pub async fn every_way_to_install_is_accepted(stage: &Stage<'_>) -> anyhow::Result<()> {
    let control = &stage.cluster.control;
    let needed = components(&stage.cluster.client).await?;
    for (resources, components) in WAYS {
        let way = format!("{resources} with {}", components.join(", "));
        let outside = components.contains(&"control-plane");
        let remote = components.contains(&"remote") || *resources == "overlays/legacy";
        let own = !(outside || remote);
        let apply = |components: &[&str]| {
            let directory = kustomization(stage, resources, components)?;
            control.kubectl(&["apply", "--dry-run=server", "--output=json", "-k", &directory])
        };
        let more: Vec<&str> = needed.iter().copied().filter(|name| own && !components.contains(name)).collect();
        if !more.is_empty() {
            let error = apply(components).err().with_context(|| format!("{way} is taken without {more:?}"))?;
            ensure!(
                error.to_string().contains("no matches for kind \"MutatingAdmissionPolicy\""),
                "{way}: {error:#}"
            );
        }
        let components = [components, more.as_slice()].concat();
        let objects: Value = serde_json::from_str(&apply(&components).context(way.clone())?)?;
        let objects = objects["items"].as_array().context("no list")?;
        let names = |kind: &str| -> Vec<&str> {
            let own = objects.iter().filter(|object| object["kind"] == kind);
            own.filter_map(|object| object["metadata"]["name"].as_str()).collect()
        };
        let deployments = match () {
            () if outside => vec![],
            () if remote => vec!["kerf-extender"],
            () => vec!["kerf-scheduler"],
        };
        ensure!(names("Deployment") == deployments, "{way}: {:?}", names("Deployment"));
        let routed = own && !components.contains(&"without-mutation");
        ensure!(names("MutatingAdmissionPolicy").contains(&"kerf-scheduler") == routed, "{way}");
        ensure!(names("ValidatingAdmissionPolicy").contains(&"kerf-scheduler") == own, "{way}");
        let account = if own { "kerf-scheduler" } else { "kerf-extender" };
        ensure!(names("ServiceAccount").contains(&account), "{way}: {:?}", names("ServiceAccount"));
        let text = serde_json::to_string(objects)?;
        // kubectl's own copy of what was there before may have it
        ensure!(!resources.ends_with("tencent") || !text.contains("'inspur.com'"), "{way} has another domain");
    }
    Ok(())
}
