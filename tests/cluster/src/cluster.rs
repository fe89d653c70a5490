//! The whole cluster: starts everything, gives access to its parts, removes everything.

mod options;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Node as NodeObject, ServiceAccount};
use kerf::annotation::Keys;
use kerf_testkit::tree::Tree;
use kube::{Api, Client};
use serde_json::{Value, json};

pub use self::options::{Options, Way};
use crate::bundled::Bundled;
use crate::control::{self, Control, Purpose};
use crate::image;
use crate::node::{self, Node};
use crate::paper::Paper;
use crate::place::Place;
use crate::ports::free_ports;
use crate::process::Process;
use crate::programs::{BESIDE_CONTROL_PLANE, Programs, install};
use crate::tools::Tools;
use crate::wait::until;

/// kerf's extender, as it runs in a cluster.
enum Extender {
    Process(Process),
    Pods(Bundled),
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: 2, cards: 4, audit: false, log: "info".into(), way: Way::Processes }
    }
}

/// A running cluster.
pub struct Cluster {
    /// The control plane, from etcd to the scheduler.
    pub control: Control,
    /// Nodes with kubelet, containerd and the plugin.
    pub nodes: Vec<Node>,
    extender: Extender,
    /// A client with the administrator's rights.
    pub client: Client,
    /// Names of resources and annotations.
    pub keys: Keys,
    /// kerf's own programs.
    pub programs: Programs,
    place: Arc<Place>,
}

impl Cluster {
    /// Starts everything; on return all is ready and all GPUs are allocatable. Prints which steps take time.
    ///
    /// # Errors
    /// Where something fails. Everything that was started by then is ended.
    pub async fn up(tools: &Tools, programs: &Programs, options: &Options) -> anyhow::Result<Self> {
        for place in Place::abandoned()? {
            println!("clearing away what an earlier run left in {}", place.root().display());
            place.clear(None)?;
        }
        let place = Arc::new(Place::new()?);
        match Self::bring_up(&place, tools, programs, options).await {
            Ok(cluster) => Ok(cluster),
            Err(error) => {
                let logs = crate::place::base().with_extension("logs");
                place.clear(Some(&logs)).with_context(|| format!("after {error:#}"))?;
                Err(error.context(format!("the cluster did not come up; logs: {}", logs.display())))
            }
        }
    }

    async fn bring_up(
        place: &Arc<Place>,
        tools: &Tools,
        programs: &Programs,
        options: &Options,
    ) -> anyhow::Result<Self> {
        let began = Instant::now();
        let done = |what: &str| println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
        let names: Vec<String> = (1..=options.nodes).map(|number| format!("node-{number}")).collect();
        let mut free = free_ports(control::Ports::COUNT + node::Ports::COUNT * options.nodes)?;
        let ports = control::Ports::take(&mut free)?;
        let images = image::make(place, &programs.libcuda)?;
        let purpose = Purpose::Nodes { audit: options.audit, scheduling: options.way.scheduling() };
        let control = Control::start(place, tools, ports, &names, purpose).await?;
        done("control plane");
        let mut nodes = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let ports = node::Ports::take(&mut free)?;
            nodes.push(
                Node::start(place, tools, (name, number), control.network, ports, options.cards, &images).await?,
            );
        }
        done("kubelets");
        let client = control::client(&control.admin()).await?;
        let extender = match &options.way {
            Way::Processes => {
                install(&control)?;
                Extender::Process(programs.start_extender(
                    place,
                    &control,
                    BESIDE_CONTROL_PLANE,
                    &options.log,
                    &[],
                )?)
            }
            Way::Manifests(resources) => {
                let on = (&**place, tools);
                Extender::Pods(
                    Bundled::install(on, programs, &control, &nodes, (resources, options.cards), client.clone())
                        .await?,
                )
            }
        };
        let keys = Keys::default();
        let programs = programs.clone();
        let mut cluster = Self { control, nodes, extender, client, keys, programs, place: place.clone() };
        cluster.registered(Duration::from_secs(60)).await?;
        if matches!(options.way, Way::Processes) {
            for index in 0..cluster.nodes.len() {
                cluster.start_plugin(index, &options.log).await?;
            }
        }
        cluster.ready(Duration::from_secs(60)).await?;
        cluster.admits("default").await?;
        done("kerf is ready");
        Ok(cluster)
    }

    /// The node with this name.
    ///
    /// # Errors
    /// Where there is no such node.
    pub fn node(&self, name: &str) -> anyhow::Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("no node {name}"))
    }

    async fn registered(&self, limit: Duration) -> anyhow::Result<()> {
        let objects: Api<NodeObject> = Api::all(self.client.clone());
        until(limit, "all nodes are ready", async || {
            for node in &self.nodes {
                node.kubelet.check()?;
                let object = objects.get(&node.name).await?;
                let conditions = object.status.and_then(|status| status.conditions).unwrap_or_default();
                let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
                ensure!(ready.is_some_and(|ready| ready.status == "True"), "{}: {ready:?}", node.name);
            }
            Ok(())
        })
        .await
    }

    /// The plugin runs with the token of a pod of its service account on its node: only such a token names the
    /// node, which the admission policy requires. The pod itself is a stand-in that sleeps.
    async fn start_plugin(&mut self, index: usize, log: &str) -> anyhow::Result<()> {
        let name = self.nodes.get(index).context("no such node")?.name.clone();
        let pod = format!("kerf-plugin-{name}");
        let stand_in = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod, "namespace": "kerf-system" },
            "spec": {
                "serviceAccountName": "kerf-plugin", "nodeName": name, "hostNetwork": true,
                "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
                "tolerations": [{ "operator": "Exists" }],
                "containers": [{
                    "name": "plugin", "image": image::BUSYBOX, "imagePullPolicy": "Never",
                    "command": ["sleep", "2147483647"],
                }],
            },
        });
        self.place.write(&format!("control/{pod}.json"), stand_in.to_string())?;
        let kubeconfig = self.plugin_token(&name).await?;
        self.nodes.get_mut(index).context("no such node")?.start_plugin(&self.programs, &kubeconfig, log)
    }

    /// Makes sure that the stand-in pod of a node's plugin exists, and writes a token of it into the plugin's
    /// kubeconfig, which is read when the plugin starts. A token becomes invalid with its pod.
    ///
    /// # Errors
    /// Where the pod cannot be made.
    pub async fn plugin_token(&self, node: &str) -> anyhow::Result<PathBuf> {
        let pod = format!("kerf-plugin-{node}");
        let file = self.place.path(&format!("control/{pod}.json")).display().to_string();
        let bound = format!("--bound-object-name={pod}");
        let token = until(Duration::from_secs(60), "the plugin's stand-in is there", async || {
            self.control.kubectl(&["apply", "-f", &file])?;
            let kind = "--bound-object-kind=Pod";
            let args =
                ["create", "token", "kerf-plugin", "--namespace=kerf-system", "--duration=24h", kind, &bound];
            self.control.kubectl(&args)
        })
        .await?;
        self.control.kubeconfig(&pod, &token)
    }

    /// Lays out the same fixture tree on every node, and starts a plugin with these flags beside the node's own. On
    /// return each has a resource that kubelet knows.
    ///
    /// # Errors
    /// Where a plugin does not start, or has nothing to offer.
    pub async fn offer(&self, tree: &Tree, flags: &[String]) -> anyhow::Result<Vec<(Process, Paper)>> {
        let mut started = Vec::new();
        for (node, port) in self.nodes.iter().zip(free_ports(self.nodes.len())?) {
            let paper = Paper::lay(node, tree)?;
            let own = beside(port);
            let args = [&own, paper.flags().as_slice(), flags].concat();
            let plugin = node.start_beside(&self.programs, "beside", &args)?;
            until(Duration::from_secs(30), &format!("the other plugin of {} is ready", node.name), async || {
                plugin.check()?;
                self.get_text(port, "/readyz").await.map(drop)
            })
            .await?;
            started.push((plugin, paper));
        }
        Ok(started)
    }

    /// Waits until everything is ready and every GPU allocatable.
    ///
    /// # Errors
    /// Names what is missing, after `limit`.
    pub async fn ready(&self, limit: Duration) -> anyhow::Result<()> {
        self.registered(limit).await?;
        until(limit, "kerf is ready", async || {
            if let Extender::Pods(pods) = &self.extender {
                pods.ready(&self.nodes).await?;
            }
            self.extender_text("/readyz").await.context("extender")?;
            for node in &self.nodes {
                self.plugin_text(node, "/readyz").await.with_context(|| node.name.clone())?;
                let allocatable = self.allocatable(&node.name).await?;
                let wanted = 100 * node.cards.uuids().len() as u64;
                ensure!(allocatable == wanted, "{}: {allocatable} of {wanted} are allocatable", node.name);
            }
            Ok(())
        })
        .await
    }

    /// Waits until pods can be created in a namespace: pods are refused until it has its service account.
    ///
    /// # Errors
    /// Where it does not get one.
    pub async fn admits(&self, namespace: &str) -> anyhow::Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        until(Duration::from_secs(60), "the namespace has its account", async || {
            accounts.get("default").await.map(drop).map_err(Into::into)
        })
        .await
    }

    /// Units of `vcuda-core` that a node offers.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn allocatable(&self, node: &str) -> anyhow::Result<u64> {
        self.offered(node, &self.keys.core).await
    }

    /// The amount of a resource that a node offers.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn offered(&self, node: &str, resource: &str) -> anyhow::Result<u64> {
        let objects: Api<NodeObject> = Api::all(self.client.clone());
        let allocatable = objects.get(node).await?.status.and_then(|status| status.allocatable).unwrap_or_default();
        Ok(allocatable.get(resource).and_then(|amount| amount.0.parse().ok()).unwrap_or_default())
    }

    /// The process of the extender.
    ///
    /// # Errors
    /// Where it runs as pods.
    pub fn extender(&self) -> anyhow::Result<&Process> {
        match &self.extender {
            Extender::Process(process) => Ok(process),
            Extender::Pods(_) => bail!("the extender runs as pods"),
        }
    }

    /// kerf's pods.
    ///
    /// # Errors
    /// Where it runs as processes.
    pub fn pods(&self) -> anyhow::Result<&Bundled> {
        match &self.extender {
            Extender::Process(_) => bail!("kerf runs as processes"),
            Extender::Pods(pods) => Ok(pods),
        }
    }

    /// The response of the extender's port for metrics and health; of the one in use, where there are several.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn extender_text(&self, path: &str) -> anyhow::Result<String> {
        match &self.extender {
            Extender::Process(_) => self.get_text(self.control.ports.extender_metrics, path).await,
            Extender::Pods(pods) => get(&format!("http://{}:3457{path}", pods.leader().await?.address)).await,
        }
    }

    /// What the extender believes; the one in use, where there are several.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn extender_state(&self) -> anyhow::Result<Value> {
        let text = match &self.extender {
            Extender::Process(_) => self.get_text(self.control.ports.extender_debug, "/debug/state").await?,
            Extender::Pods(pods) => {
                let leader = pods.leader().await?;
                leader.inside(self.node(&leader.node)?, 3458, "/debug/state")?
            }
        };
        Ok(serde_json::from_str(&text)?)
    }

    /// The response of a node's plugin.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn plugin_text(&self, node: &Node, path: &str) -> anyhow::Result<String> {
        match &self.extender {
            Extender::Process(_) => self.get_text(node.ports.plugin, path).await,
            Extender::Pods(pods) => {
                get(&format!("http://{}:9394{path}", pods.plugin(&node.name).await?.address)).await
            }
        }
    }

    /// What a node's plugin believes.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn plugin_state(&self, node: &Node) -> anyhow::Result<Value> {
        let text = match &self.extender {
            Extender::Process(_) => self.get_text(node.ports.plugin_debug, "/debug/state").await?,
            Extender::Pods(pods) => pods.plugin(&node.name).await?.inside(node, 9395, "/debug/state")?,
        };
        Ok(serde_json::from_str(&text)?)
    }

    /// The response of a program of kerf on this machine over HTTP.
    ///
    /// # Errors
    /// Where it does not answer, or not with 200.
    pub async fn get_text(&self, port: u16, path: &str) -> anyhow::Result<String> {
        get(&format!("http://127.0.0.1:{port}{path}")).await
    }

    /// The response of `/debug/state` of a program of kerf on this machine.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn state(&self, port: u16) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.get_text(port, "/debug/state").await?)?)
    }

    /// The run directory of the cluster.
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Ends everything and removes it. With `keep`, its logs are copied there.
    ///
    /// # Errors
    /// Names what could not be removed.
    pub fn down(self, keep: Option<&Path>) -> anyhow::Result<()> {
        self.place.clear(keep)
    }
}

/// The flags by which a plugin beside another, on the same host, serves metrics on this port.
pub fn beside(port: u16) -> [String; 3] {
    let listen = format!("--metrics-listen=127.0.0.1:{port}");
    [listen, "--debug-listen=127.0.0.1:0".to_owned(), "--log-format=json".to_owned()]
}

async fn get(url: &str) -> anyhow::Result<String> {
    let answer = reqwest::get(url).await?;
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status.is_success(), "{url}: {status} {text}");
    Ok(text)
}
