//! kerf's own scheduler: how pods come to it, and that every way to install it is one that the API server takes.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kerf_cluster::tools::workspace;
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::support::draft::{Draft, pod};
use crate::support::policy::leave_out;
use crate::support::stage::{SOON, Stage, why};

/// What a test took away is there again when this is dropped.
struct Restored<'a>(&'a Stage<'a>);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        drop(self.0.cluster.pods().and_then(|pods| pods.apply(&self.0.cluster.control)));
    }
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

/// Pods that name no scheduler get kerf's, whoever makes them; under another one they are refused with what to write.
/// Others are left alone, and so are namespaces with the label. With the routing taken away, none is bound without cards.
pub async fn pods_that_ask_for_gpus_come_to_kerfs_scheduler(stage: &Stage<'_>) -> anyhow::Result<()> {
    let share = pod("share").app("main", 10, 1);
    let other = share.named("other").with("schedulerName", "volcano");
    for draft in [
        pod("whole").app("main", 100, 0),
        pod("init").init("first", 10, 1).app("main", 0, 0),
        pod("sidecar").sidecar("beside", 10, 1).app("main", 0, 0),
        share.named("default").with("schedulerName", "default-scheduler"),
        share.named("own").with("schedulerName", "kerf-scheduler"),
    ] {
        let now = scheduler_of(stage, &draft).await?;
        ensure!(now == "kerf-scheduler", "{}: {now}", draft.name);
    }
    let refused = dry_run(stage, &other).await;
    let Err(kube::Error::Api(status)) = refused else { anyhow::bail!("{refused:?}") };
    let text = "write schedulerName: kerf-scheduler into its spec (it has volcano)";
    ensure!(status.code == 403 && status.message.contains(text), "{status:?}");
    let plain = pod("plain").app("main", 0, 0);
    for (draft, expected) in
        [(&plain, "default-scheduler"), (&plain.named("theirs").with("schedulerName", "volcano"), "volcano")]
    {
        let now = scheduler_of(stage, draft).await?;
        ensure!(now == expected, "{}: {now}", draft.name);
    }

    let client = &stage.cluster.client;
    let template = |label: &str, restart: &str| {
        let mut spec = share.value()["spec"].clone();
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
    of_controlled(stage, "deployed").await?;
    of_controlled(stage, "worked").await?;

    // the refusal stands alone where pods are not routed
    let restored = Restored(stage);
    let routing = ["mutatingadmissionpolicybinding/kerf-scheduler", "mutatingadmissionpolicy/kerf-scheduler"];
    stage.cluster.control.kubectl(&["delete", routing[0], routing[1]])?;
    until(SOON, "a pod that is not routed is refused", async || match dry_run(stage, &share).await {
        Err(kube::Error::Api(status)) => {
            ensure!(status.message.contains("(it has default-scheduler)"), "{}", status.message);
            Ok(())
        }
        other => anyhow::bail!("{other:?}"),
    })
    .await?;
    leave_out(stage).await?;
    let now = scheduler_of(stage, &share).await?;
    ensure!(now == "default-scheduler", "in a namespace that is left out: {now}");
    drop(restored);
    Ok(())
}

/// The base, its overlays, and the components that change who schedules.
pub async fn every_way_to_install_is_accepted(stage: &Stage<'_>) -> anyhow::Result<()> {
    // kustomize reads nothing above a kustomization but other kustomizations' directories
    let root = stage.cluster.place().dir("ways")?;
    let copied =
        std::process::Command::new("cp").arg("-r").arg(workspace().join("manifests")).arg(&root).status()?;
    ensure!(copied.success(), "{copied}");
    let ways: &[(&str, &[&str])] = &[
        ("base", &[]),
        ("base", &["runtime-class", "reserved-nodes", "node-labels"]),
        ("base", &["without-mutation", "warn-requests"]),
        ("base", &["control-plane"]),
        ("base", &["remote"]),
        ("overlays/tencent", &["reserved-nodes"]),
        ("overlays/tencent", &["remote"]),
        ("overlays/simulated", &["remote"]),
        ("overlays/legacy", &[]),
        ("overlays/nvidia-runtime", &["runtime-class"]),
        ("overlays/driver-limits", &[]),
    ];
    for (number, (resources, components)) in ways.iter().enumerate() {
        let way = format!("{resources} with {}", components.join(", "));
        let parts: Vec<String> = components.iter().map(|name| format!("../manifests/components/{name}")).collect();
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": [format!("../manifests/{resources}")], "components": parts,
        });
        let file = format!("ways/way-{number}/kustomization.yaml");
        let directory = stage.cluster.place().write(&file, kustomization.to_string())?;
        let directory = directory.parent().context("no directory")?.display().to_string();
        let apply = ["apply", "--dry-run=server", "--output=json", "-k", &directory];
        let objects: Value = serde_json::from_str(&stage.cluster.control.kubectl(&apply).context(way.clone())?)?;
        let objects = objects["items"].as_array().context("no list")?;
        let names = |kind: &str| -> Vec<&str> {
            let own = objects.iter().filter(|object| object["kind"] == kind);
            own.filter_map(|object| object["metadata"]["name"].as_str()).collect()
        };
        let outside = components.contains(&"control-plane");
        let remote = components.contains(&"remote") || *resources == "overlays/legacy";
        let deployments = match () {
            () if outside => vec![],
            () if remote => vec!["kerf-extender"],
            () => vec!["kerf-scheduler"],
        };
        ensure!(names("Deployment") == deployments, "{way}: {:?}", names("Deployment"));
        let routed = !(outside || remote || components.contains(&"without-mutation"));
        ensure!(names("MutatingAdmissionPolicy").contains(&"kerf-scheduler") == routed, "{way}");
        let refused = !(outside || remote);
        ensure!(names("ValidatingAdmissionPolicy").contains(&"kerf-scheduler") == refused, "{way}");
        let account = if outside || remote { "kerf-extender" } else { "kerf-scheduler" };
        ensure!(names("ServiceAccount").contains(&account), "{way}: {:?}", names("ServiceAccount"));
        let text = serde_json::to_string(objects)?;
        // kubectl's own copy of what was there before may have it
        ensure!(!resources.ends_with("tencent") || !text.contains("'inspur.com'"), "{way} has another domain");
    }
    Ok(())
}
