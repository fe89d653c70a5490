//! Plugins beside a node's own, which offer other systems' resources, and pods that request them.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kerf_cluster::cluster::beside;
use kerf_cluster::node::Node;
use kerf_cluster::paper::Paper;
use kerf_cluster::ports::free_ports;
use kerf_cluster::process::Process;
use kerf_cluster::tools::workspace;
use kerf_cluster::wait::until;
use serde_json::{Value, json};

use super::draft::{Draft, pod};
use super::seen::Seen;
use super::stage::{SOON, Stage, uid};

/// A plugin without account and API server. It ends with this value.
pub struct Offer<'a> {
    pub node: &'a Node,
    pub plugin: Process,
    stage: &'a Stage<'a>,
    port: u16,
    /// The flags for the paths of the GPUs and for the resources.
    flags: Vec<String>,
    amounts: Vec<(&'static str, u64)>,
}

impl<'a> Offer<'a> {
    /// Starts it with these flags; the node must then offer these amounts.
    pub fn start(
        stage: &'a Stage<'a>,
        node: &'a Node,
        paper: &Paper,
        flags: &[&str],
        amounts: &[(&'static str, u64)],
    ) -> anyhow::Result<Self> {
        let port = free_ports(1)?.next().context("no port")?;
        let mut flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        flags.extend(paper.flags());
        let own = beside(port);
        let args = [own.as_slice(), flags.as_slice()].concat();
        let plugin = node.start_beside(&stage.cluster.programs, &port.to_string(), &args)?;
        Ok(Self { node, plugin, stage, port, flags, amounts: amounts.to_vec() })
    }

    /// Waits until kubelet and the API server know all amounts.
    pub async fn ready(&self) -> anyhow::Result<()> {
        until(SOON, &format!("{} offers {:?}", self.node.name, self.amounts), async || {
            self.plugin.check()?;
            self.stage.cluster.get_text(self.port, "/readyz").await?;
            for (resource, amount) in &self.amounts {
                let now = self.stage.cluster.offered(&self.node.name, resource).await?;
                ensure!(now == *amount, "it offers {now} of {resource}");
            }
            Ok(())
        })
        .await
    }

    /// Waits until `kerf-plugin doctor`, with the same flags, ends with this status, and returns its output.
    pub async fn doctor(&self, status: i32) -> anyhow::Result<String> {
        until(SOON, &format!("doctor ends with {status}"), async || {
            let (ended, text) = self.node.doctor(&self.stage.cluster.programs, &self.flags)?;
            ensure!(ended == status, "it ended with {ended}:\n{text}");
            Ok(text)
        })
        .await
    }

    /// How often each of its resources was registered.
    pub async fn registrations(&self) -> anyhow::Result<Vec<u64>> {
        let text = self.stage.cluster.get_text(self.port, "/metrics").await?;
        let count = |resource: &str| {
            let label = format!("resource=\"{resource}\"");
            let lines = text.lines().filter(|line| line.starts_with("kerf_plugin_registrations_total"));
            let done = lines.filter(|line| line.contains(&label) && line.contains("outcome=\"registered\""));
            done.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
        };
        Ok(self.amounts.iter().map(|(resource, _)| count(resource)).collect())
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.plugin.kill());
    }
}

/// A pod that prints what its container sees and keeps running.
pub fn asks(name: &str, node: &Node, amounts: &[(&str, u64)]) -> Draft {
    let draft = pod(name).app("main", 0, 0).on(&node.name);
    amounts.iter().fold(draft, |draft, (resource, amount)| draft.asks(resource, *amount))
}

impl Stage<'_> {
    /// Creates an example of `examples/profiles`, unchanged except that each container first prints what it sees, and
    /// that containers that ignore SIGTERM are not waited for.
    pub fn create_example(&self, file: &str) -> anyhow::Result<()> {
        let path = workspace().join("examples/profiles").join(file);
        let control = &self.cluster.control;
        let namespace = format!("--namespace={}", self.namespace());
        let read = ["create", &namespace, "--dry-run=client", "--output=json", "-f", &path.display().to_string()];
        let mut object: Value = serde_json::from_str(&control.kubectl(&read)?)?;
        let pod = if object["kind"] == "Pod" { &mut object } else { &mut object["spec"]["template"] };
        pod["spec"]["terminationGracePeriodSeconds"] = 2.into();
        for container in pod["spec"]["containers"].as_array_mut().context("no containers")? {
            container["command"].as_array_mut().context("no command")?.insert(0, json!("kerf-probe"));
        }
        let probed = self.cluster.place().write(&format!("examples/{file}"), object.to_string())?;
        control.kubectl(&["create", &namespace, "-f", &probed.display().to_string()]).map(drop)
    }

    /// What the container `main` of a pod saw when it started.
    pub async fn seen(&self, pod: &Pod) -> anyhow::Result<Seen> {
        let name = pod.metadata.name.as_deref().context("no name")?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).context("no node")?;
        let (node, uid) = (self.cluster.node(node)?, uid(pod)?);
        until(SOON, &format!("{name} has said what it sees"), async || {
            Seen::of(&node.container_log(self.namespace(), name, uid, "main")?)
        })
        .await
    }

    /// What a pod saw beyond a pod without resources on the same node.
    pub async fn given(&self, pod: &Pod) -> anyhow::Result<Seen> {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("no node")?;
        let name = format!("plain-{node}");
        let plain = match self.pods().get_opt(&name).await? {
            Some(plain) => plain,
            None => {
                let draft = super::draft::pod(&name).runs("main", 0, 0, "kerf-probe").on(&node);
                let draft = draft.with("restartPolicy", "Never").with("automountServiceAccountToken", true);
                self.create(&draft.with("enableServiceLinks", true)).await?
            }
        };
        let plain = self.phase(plain.metadata.name.as_deref().context("no name")?, &["Succeeded"]).await?;
        Ok(self.seen(pod).await?.beyond(&self.seen(&plain).await?))
    }

    /// The pods with a label, once there are `count` and each has one of these phases.
    pub async fn labelled(&self, label: &str, count: usize, phases: &[&str]) -> anyhow::Result<Vec<Pod>> {
        let selected = kube::api::ListParams::default().labels(label);
        until(SOON, &format!("{count} pods with {label} are {phases:?}"), async || {
            let pods = self.pods().list(&selected).await?.items;
            ensure!(pods.len() == count, "there are {}", pods.len());
            let other = pods.iter().find(|pod| !phases.contains(&super::stage::phase(pod)));
            ensure!(other.is_none(), "{}", other.map(super::stage::why).unwrap_or_default());
            Ok(pods)
        })
        .await
    }

    /// Runs a script in a container of a running pod.
    pub fn exec(&self, pod: &str, script: &str) -> anyhow::Result<String> {
        let namespace = format!("--namespace={}", self.namespace());
        self.cluster.control.kubectl(&["exec", &namespace, pod, "--", "sh", "-c", script])
    }
}
