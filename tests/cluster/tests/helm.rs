//! The helm chart as an administrator uses it: a release is installed in a cluster without kerf, tested and upgraded while pods run, and
//! taken away. Afterwards kerf is installed by its manifests again.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Node;
use kerf_cluster::image;
use kerf_cluster::tools::{output, workspace};
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::examples;
use crate::support::draft::{mixed, pod};
use crate::support::helm::{Helm, chart};
use crate::support::stage::{SOON, Stage, runs, why};

const NAMESPACE: &str = "kerf-system";
/// Pods of kerf start and stop, some of them after others.
const ROLLOUT: Duration = Duration::from_secs(120);
/// The version before: nothing was released yet, so it is made of this chart.
const BEFORE: &str = "0.0.9";

/// Installs the release from this chart, or upgrades it to it, with these values.
fn set(stage: &Stage<'_>, helm: &Helm<'_>, verb: &str, chart: &str, values: &Value) -> anyhow::Result<()> {
    let file = stage.cluster.place().write("helm/values.json", values.to_string())?.display().to_string();
    helm.run(NAMESPACE, &[verb, "kerf", chart, "--values", &file]).map(drop)
}

/// The chart and the images of the version before: this chart under a lower version, which names images by that version. They are
/// the images of today.
fn before(stage: &Stage<'_>) -> anyhow::Result<String> {
    let folder = stage.cluster.place().dir("helm")?.join("before");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    output(Command::new("cp").arg("-rL").arg(workspace().join("charts/kerf")).arg(&folder))?;
    let file = folder.join("Chart.yaml");
    let text = std::fs::read_to_string(&file)?;
    let now = env!("CARGO_PKG_VERSION");
    let older = text.replace(&format!("ersion: {now}\n"), &format!("ersion: {BEFORE}\n"));
    ensure!(older.matches(BEFORE).count() == 2, "{text}");
    std::fs::write(file, older)?;
    for node in &stage.cluster.nodes {
        for name in [image::PLUGIN, image::EXTENDER] {
            node.containerd.tag(name, &name.replace(&format!(":{now}"), &format!(":{BEFORE}")))?;
        }
    }
    Ok(folder.display().to_string())
}

/// What must stay of a pod while kerf changes.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    uid: Option<String>,
    node: Option<String>,
    annotations: BTreeMap<String, String>,
    /// Ids and numbers of starts of its containers.
    containers: Vec<(String, Option<String>, i32)>,
}

/// What must stay of the stage's pods, all of which run.
async fn kept(stage: &Stage<'_>) -> anyhow::Result<BTreeMap<Option<String>, Kept>> {
    let mut all = BTreeMap::new();
    for pod in stage.list().await? {
        ensure!(runs(&pod), "{}", why(&pod));
        let status = pod.status.unwrap_or_default();
        let containers = status.container_statuses.into_iter().flatten();
        let kept = Kept {
            uid: pod.metadata.uid,
            node: pod.spec.and_then(|spec| spec.node_name),
            annotations: pod.metadata.annotations.unwrap_or_default(),
            containers: containers.map(|own| (own.name, own.container_id, own.restart_count)).collect(),
        };
        all.insert(pod.metadata.name, kept);
    }
    Ok(all)
}

/// Waits until the pods of kerf are those of its objects' present state, and everything is ready.
async fn rolled_out(stage: &Stage<'_>) -> anyhow::Result<()> {
    let client = &stage.cluster.client;
    until(ROLLOUT, "kerf's pods are as the release says", async || {
        let deployment = Api::<Deployment>::namespaced(client.clone(), NAMESPACE).get("kerf-scheduler").await?;
        let (generation, wanted) = (deployment.metadata.generation, deployment.spec.and_then(|spec| spec.replicas));
        let status = deployment.status.context("no status")?;
        ensure!(status.observed_generation == generation, "{status:?}");
        ensure!([status.updated_replicas, status.replicas, status.ready_replicas] == [wanted; 3], "{status:?}");
        let set = Api::<DaemonSet>::namespaced(client.clone(), NAMESPACE).get("kerf-plugin").await?;
        let generation = set.metadata.generation;
        let status = set.status.context("no status")?;
        ensure!(status.observed_generation == generation, "{status:?}");
        let wanted = Some(status.desired_number_scheduled);
        ensure!([status.updated_number_scheduled, Some(status.number_ready)] == [wanted; 2], "{status:?}");
        Ok(())
    })
    .await?;
    stage.cluster.ready(ROLLOUT).await
}

/// Every object of the cluster but events and what is in the test's namespace, as kind, namespace and name.
fn objects(stage: &Stage<'_>) -> anyhow::Result<BTreeSet<String>> {
    let control = &stage.cluster.control;
    let kinds = control.kubectl(&["api-resources", "--verbs=list", "--output=name"])?;
    let left_out = ["componentstatuses", "events", "events.events.k8s.io"];
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !left_out.contains(kind)).collect();
    let columns = "--output=custom-columns=:kind,:metadata.namespace,:metadata.name";
    let all = control.kubectl(&["get", &kinds.join(","), "--all-namespaces", "--no-headers", columns])?;
    let lines = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let here = format!(" {} ", stage.namespace());
    let own = format!("Namespace <none> {}", stage.namespace());
    Ok(lines.filter(|line| !line.is_empty() && !line.contains(&here) && *line != own).collect())
}

/// Of each Node: the types of kerf's conditions, labels, and keys of taints.
type Marks = BTreeMap<String, (BTreeSet<String>, BTreeMap<String, String>, BTreeSet<String>)>;

/// What kerf may have left on Nodes, other than annotations.
async fn marks(stage: &Stage<'_>) -> anyhow::Result<Marks> {
    let mut marks = Marks::new();
    for node in Api::<Node>::all(stage.cluster.client.clone()).list(&ListParams::default()).await? {
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let kerfs = conditions.into_iter().map(|condition| condition.type_).filter(|kind| kind.starts_with("Kerf"));
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let marked = (
            kerfs.collect(),
            node.metadata.labels.unwrap_or_default(),
            taints.into_iter().map(|taint| taint.key).collect(),
        );
        marks.insert(node.metadata.name.context("no name")?, marked);
    }
    Ok(marks)
}

/// Uninstalls the release, and fails unless nothing is left but annotations. `found`: what there was before it.
async fn taken_away(stage: &Stage<'_>, helm: &Helm<'_>, found: &(BTreeSet<String>, Marks)) -> anyhow::Result<()> {
    helm.run(NAMESPACE, &["uninstall", "kerf", "--wait", "--timeout=180s"])?;
    // every namespace gets it, some time after it was made
    let own = format!("ConfigMap {NAMESPACE} kube-root-ca.crt");
    // the garbage collector has a moment for what belonged to something
    until(SOON, "nothing of the release is left", async || {
        let now = objects(stage)?;
        let left: Vec<&String> = now.difference(&found.0).filter(|object| **object != own).collect();
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    })
    .await?;
    let now = marks(stage).await?;
    ensure!(now == found.1, "the Nodes were {:?}\nand are {now:?}", found.1);
    until(SOON, "no GPU is offered", async || {
        for node in &stage.cluster.nodes {
            let offered = stage.cluster.allocatable(&node.name).await?;
            ensure!(offered == 0, "{} offers {offered}", node.name);
        }
        Ok(())
    })
    .await
}

/// Fails unless a second release for the same domain is refused by name, and one for another domain would be taken. Both in a namespace of
/// their own.
fn alone(stage: &Stage<'_>, helm: &Helm<'_>, other: &str) -> anyhow::Result<()> {
    let second = chart();
    let install = ["install", "second", &second, "--dry-run=server", "--set=simulated.enabled=true"];
    let Err(refused) = helm.run(stage.namespace(), &install) else { bail!("a second installation is not refused") };
    let wanted = format!("domain: this cluster has kerf for inspur.com already, {other} (");
    ensure!(format!("{refused:#}").contains(&wanted), "{refused:#}");
    helm.run(stage.namespace(), &[&install[..], &["--set=domain=example.org"]].concat()).map(drop)
}

/// Has a release in the place of what the manifests install. `life` installs it, and takes it away.
async fn instead(
    stage: &Stage<'_>,
    helm: &Helm<'_>,
    life: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (control, kerf) = (&stage.cluster.control, stage.cluster.pods()?);
    kerf.remove(control)?;
    // the namespace as the documentation has it
    control.kubectl(&["create", "namespace", NAMESPACE])?;
    control.kubectl(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged"])?;
    stage.cluster.admits(NAMESPACE).await?;
    let result = life().await;
    if result.is_err() {
        stage.report().await;
        drop(helm.run(NAMESPACE, &["uninstall", "kerf", "--no-hooks", "--wait", "--timeout=60s"]));
    }
    control.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found"])?;
    let installed = kerf.apply(control);
    let ready = stage.cluster.ready(ROLLOUT).await;
    result.and(installed).and(ready)
}

/// A release on nodes that only its pods may use, beside which no other is taken: `helm test` and the examples find their GPUs, and when it
/// is taken away nothing of it is left, while the pods run on.
pub async fn a_release_is_installed_tested_and_taken_away(stage: &Stage<'_>) -> anyhow::Result<()> {
    let Some([_, helm]) = Helm::find(stage) else { return Ok(()) };
    alone(stage, &helm, "installed without helm")?;
    instead(stage, &helm, async || {
        let found = (objects(stage)?, without_kerf(stage).await?);
        let values = json!({ "simulated": { "enabled": true }, "routing": { "reservedNodes": true } });
        set(stage, &helm, "install", &chart(), &values)?;
        rolled_out(stage).await?;
        alone(stage, &helm, "the release kerf in the namespace kerf-system")?;
        // a change of a Node brings the taint
        let control = &stage.cluster.control;
        control.kubectl(&["label", "nodes", "--all", "kerf-test=changed"])?;
        control.kubectl(&["label", "nodes", "--all", "kerf-test-"])?;
        for (name, (conditions, _, taints)) in marks(stage).await? {
            ensure!(taints.contains("inspur.com/vcuda-core"), "{name} has the taints {taints:?}");
            ensure!(conditions.contains("KerfGPUsHealthy"), "{name} has the conditions {conditions:?}");
        }
        let said = helm.run(NAMESPACE, &["test", "kerf", "--timeout=60s"])?;
        ensure!(said.contains("Succeeded"), "{said}");
        examples::all_run_with_what_they_were_promised(stage).await?;
        let before = kept(stage).await?;
        taken_away(stage, &helm, &found).await?;
        ensure!(kept(stage).await? == before, "{before:?}\nbecame {:?}", kept(stage).await?);
        Ok(())
    })
    .await
}

/// From the version before to this one, with other values for every program, so that all of its pods are replaced: no pod loses its
/// GPU or is started again, and what is created afterwards gets one.
pub async fn an_upgrade_loses_nothing(stage: &Stage<'_>) -> anyhow::Result<()> {
    // a release that the older helm made, and the newer one keeps
    let Some([older, newer]) = Helm::find(stage) else { return Ok(()) };
    let earlier = before(stage)?;
    instead(stage, &newer, async || {
        let found = (objects(stage)?, without_kerf(stage).await?);
        set(stage, &older, "install", &earlier, &json!({ "simulated": { "enabled": true } }))?;
        rolled_out(stage).await?;
        older.run(NAMESPACE, &["test", "kerf", "--timeout=60s"])?;
        stage.create_all(&mixed(6, 1)).await?;
        stage.all_run(6, SOON).await?;
        let placed = stage.agreed().await?.placed;
        ensure!(placed.len() == 6, "{placed:?}");
        let before = kept(stage).await?;

        let changed = json!({
            "simulated": { "enabled": true },
            "extender": { "extraArgs": ["--policy=spread"] },
            "plugin": { "podAnnotations": { "example.com/changed": "yes" } },
            "requests": "warn",
        });
        set(stage, &newer, "upgrade", &chart(), &changed)?;
        rolled_out(stage).await?;
        ensure!(kept(stage).await? == before, "{before:?}\nbecame {:?}", kept(stage).await?);
        let now = stage.agreed().await?.placed;
        ensure!(now == placed, "{placed:?}\nbecame {now:?}");
        until(SOON, "nothing of the version before runs", async || runs_version(stage, env!("CARGO_PKG_VERSION")))
            .await?;
        stage.create(&pod("later").app("main", 10, 4)).await?;
        stage.all_run(7, SOON).await?;
        stage.agreed().await?;
        let before = kept(stage).await?;
        taken_away(stage, &newer, &found).await?;
        ensure!(kept(stage).await? == before, "{before:?}\nbecame {:?}", kept(stage).await?);
        Ok(())
    })
    .await
}

/// The Nodes' marks in a cluster whose kerf was deleted: what it has left there is taken away first, as the documentation says.
async fn without_kerf(stage: &Stage<'_>) -> anyhow::Result<Marks> {
    let control = &stage.cluster.control;
    let admin = control.admin().display().to_string();
    let plugin = stage.cluster.programs.plugin();
    output(Command::new(plugin).args(["prune", "--kubeconfig", &admin]))?;
    let marks = marks(stage).await?;
    if let Some((name, (conditions, ..))) = marks.iter().find(|(_, (conditions, ..))| !conditions.is_empty()) {
        bail!("{name} still has {conditions:?}");
    }
    Ok(marks)
}

/// Fails unless all pods of kerf have images of this version.
fn runs_version(stage: &Stage<'_>, version: &str) -> anyhow::Result<()> {
    let path = "--output=jsonpath={.items[*].spec['initContainers','containers'][*].image}";
    let images = stage.cluster.control.kubectl(&["get", "pods", "--namespace", NAMESPACE, path])?;
    let own: Vec<&str> = images.split_whitespace().filter(|image| image.starts_with("kerf-")).collect();
    let all = !own.is_empty() && own.iter().all(|image| image.ends_with(&format!(":{version}")));
    ensure!(all, "{images}");
    Ok(())
}
