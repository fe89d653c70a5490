//! The overlays of `manifests/` that offer other systems' resources, as an administrator applies them.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use kerf_cluster::image;
use kerf_cluster::node::Node;
use kerf_cluster::paper::Paper;
use kerf_cluster::tools::workspace;
use kerf_cluster::wait::until;
use kube::Api;
use serde_json::{Value, json};

use super::stage::{SOON, Stage};

/// DaemonSets, each on one node; they and the labels that they need are removed when this is dropped.
pub struct Overlays<'a> {
    stage: &'a Stage<'a>,
    names: Vec<String>,
    /// The labels that were added, by node.
    labels: Vec<(&'a str, String)>,
}

impl<'a> Overlays<'a> {
    pub fn new(stage: &'a Stage<'a>) -> Self {
        Self { stage, names: Vec::new(), labels: Vec::new() }
    }

    /// Applies the DaemonSet of an overlay to one node, with the labels of its node selector. It is as shipped, except
    /// that it finds `paper` at the paths of a driver's files.
    pub fn apply(&mut self, overlay: &str, node: &'a Node, paper: &Paper) -> anyhow::Result<()> {
        let control = &self.stage.cluster.control;
        let directory = workspace().join("manifests/overlays").join(overlay).display().to_string();
        let rendered = control.kubectl(&["create", "--dry-run=client", "--output=json", "-k", &directory])?;
        // one object after the other
        let objects = serde_json::Deserializer::from_str(&rendered).into_iter::<Value>();
        let objects: Vec<Value> = objects.collect::<Result<_, _>>()?;
        let mut own = objects.into_iter().filter(|object| object["kind"] == "DaemonSet");
        let mut object = own.next().with_context(|| format!("{overlay} has no DaemonSet"))?;

        let spec = &mut object["spec"]["template"]["spec"];
        let selector = spec["nodeSelector"].as_object().cloned().unwrap_or_default();
        for (key, value) in selector.iter().filter(|(key, _)| *key != "kubernetes.io/os") {
            self.labels.push((&node.name, key.clone()));
            let label = format!("{key}={}", value.as_str().unwrap_or_default());
            control.kubectl(&["label", "node", &node.name, "--overwrite", &label])?;
        }
        spec["nodeSelector"]["kubernetes.io/hostname"] = node.name.as_str().into();
        let volume = json!({ "name": "paper", "hostPath": { "path": paper.root(), "type": "Directory" } });
        spec["volumes"].as_array_mut().context("no volumes")?.push(volume);
        let container = &mut spec["containers"][0];
        let mount = json!({ "name": "paper", "mountPath": "/paper", "readOnly": true });
        container["volumeMounts"].as_array_mut().context("no mounts")?.push(mount);
        let args = container["args"].as_array_mut().context("no arguments")?;
        args.retain(|arg| !arg.as_str().unwrap_or_default().starts_with("-host-path="));
        let libraries = format!("-host-path={}", paper.root().join("libraries").display());
        args.extend(["--sys-root=/paper/sys", "--proc-root=/paper/proc", &libraries].map(Value::from));

        let file = self.stage.cluster.place().write(&format!("overlays/{overlay}.json"), object.to_string())?;
        self.names.push(object["metadata"]["name"].as_str().context("no name")?.to_owned());
        control.kubectl(&["create", "-f", &file.display().to_string()]).map(drop)
    }

    /// Waits until all their pods are ready, and nodes offer these amounts.
    pub async fn ready(&self, amounts: &[(&Node, &str, u64)]) -> anyhow::Result<()> {
        let sets: Api<DaemonSet> = Api::namespaced(self.stage.cluster.client.clone(), "kerf-system");
        until(SOON, "the overlays are ready", async || {
            for name in &self.names {
                let status = sets.get(name).await?.status.context("no status")?;
                ensure!(status.number_ready == 1, "{name}: {status:?}");
            }
            for (node, resource, amount) in amounts {
                let now = self.stage.cluster.offered(&node.name, resource).await?;
                ensure!(now == *amount, "{} offers {now} of {resource}", node.name);
            }
            Ok(())
        })
        .await
    }
}

impl Drop for Overlays<'_> {
    fn drop(&mut self) {
        let control = &self.stage.cluster.control;
        // until their pods are gone: a plugin that still runs would register again
        let delete = ["delete", "daemonset", "--namespace=kerf-system", "--cascade=foreground", "--timeout=40s"];
        let names = self.names.iter().map(String::as_str);
        drop(control.kubectl(&delete.into_iter().chain(names).collect::<Vec<_>>()));
        for (node, key) in &self.labels {
            drop(control.kubectl(&["label", "node", node, &format!("{key}-")]));
        }
    }
}

/// Imports the plugin's image on these nodes, once for all tests.
pub fn import(stage: &Stage<'_>, nodes: &[&Node]) -> anyhow::Result<()> {
    let archive = stage.cluster.place().path("images/plugin.tar");
    if !archive.exists() {
        image::plugin(stage.cluster.place(), stage.cluster.programs.plugin(), stage.cluster.programs.limiter())?;
        nodes.iter().try_for_each(|node| node.containerd.import(&archive))?;
    }
    Ok(())
}
