//! What else than the ways to install kerf is in `manifests/`, on a real API server.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Pod, PodTemplateSpec};
use kerf_cluster::kustomization::Kustomization;
use kerf_cluster::release::components;
use kerf_cluster::tools::workspace;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::routing::WAYS;
use crate::support::foreign::Types;
use crate::support::stage::Stage;

/// Resources and components, beside [`WAYS`].
const OTHERS: &[(&str, &[&str])] = &[
    ("base", &["startup-taint", "priority-quota", "nvidia-hardened", "nfd-labels", "nfd-var"]),
    ("base", &["pod-monitors", "alerts", "dashboards", "openshift", "viewer"]),
    ("overlays/amd", &["profile-account", "node-labels", "openshift"]),
    ("overlays/intel", &["nfd-labels", "nfd-var"]),
    ("overlays/nfd_labeled_nodes", &["pod-monitors"]),
    ("overlays/nvidia", &["placed", "nvidia-hardened"]),
    ("overlays/deepomatic", &["profile-account"]),
    ("prune", &[]),
];

/// The directories in one of `manifests/`.
fn directories(of: &str) -> anyhow::Result<BTreeSet<String>> {
    let found = std::fs::read_dir(workspace().join("manifests").join(of))?;
    found.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Every overlay and component, alone or with others, is one that the API server takes.
pub async fn every_overlay_and_component(stage: &Stage<'_>) -> anyhow::Result<()> {
    let all = || WAYS.iter().chain(OTHERS);
    let overlays: BTreeSet<String> =
        all().filter_map(|(resources, _)| resources.strip_prefix("overlays/")).map(str::to_owned).collect();
    ensure!(directories("overlays")? == overlays, "of overlays only {overlays:?} are tried");
    let used: BTreeSet<String> = all().flat_map(|(_, used)| *used).map(|name| (*name).to_owned()).collect();
    ensure!(directories("components")? == used, "of components only {used:?} are tried");

    let types = Types::new(stage)?;
    let needed = components(&stage.cluster.client).await?;
    for (resources, given) in OTHERS {
        let of_version: &[&str] = if *resources == "base" { needed } else { &[] };
        let components = [*given, of_version].concat();
        let written = Kustomization { resources, components: &components, tags: &[], gpus: None }
            .write(stage.cluster.place())?;
        let directory = written.display().to_string();
        let apply = ["apply", "--dry-run=server", "--output=json", "-k", &directory];
        let taken = stage.cluster.control.kubectl(&apply);
        let objects: Value =
            serde_json::from_str(&taken.with_context(|| format!("{resources} with {components:?}"))?)?;
        ensure!(objects["items"].as_array().is_some_and(|items| !items.is_empty()), "{resources}: {objects}");
    }
    drop(types);
    Ok(())
}

/// The scheduler's pods pass the strictest pod security standard, and the plugin's do not: so nothing but the plugin needs what the
/// namespace allows.
pub async fn only_the_plugin_needs_privileges(stage: &Stage<'_>) -> anyhow::Result<()> {
    let client = &stage.cluster.client;
    let label = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.patch(stage.namespace(), &PatchParams::default(), &Patch::Merge(label)).await?;
    let scheduler = Api::<Deployment>::namespaced(client.clone(), "kerf-system").get("kerf-scheduler").await?;
    let plugin = Api::<DaemonSet>::namespaced(client.clone(), "kerf-system").get("kerf-plugin").await?;
    let templates = [scheduler.spec.map(|spec| spec.template), plugin.spec.map(|spec| spec.template)];
    let [scheduler, plugin] = templates.map(|template| template.context("no template"));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let here = async |template: PodTemplateSpec| {
        let mut pod = Pod { metadata: template.metadata.unwrap_or_default(), spec: template.spec, status: None };
        pod.metadata.name = Some("like-it".to_owned());
        if let Some(spec) = &mut pod.spec {
            spec.service_account_name = Some("default".to_owned());
        }
        stage.pods().create(&dry, &pod).await
    };
    here(scheduler?).await.context("a pod of the scheduler's")?;
    let refused = here(plugin?).await;
    let Err(kube::Error::Api(status)) = &refused else { anyhow::bail!("a pod of the plugin's: {refused:?}") };
    ensure!(status.code == 403 && status.message.contains("violates PodSecurity"), "{status:?}");
    Ok(())
}
