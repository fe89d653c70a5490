//! kerf as its manifests install it: kube-scheduler and extender in the pods of a Deployment, the plugin in those of a
//! DaemonSet, all of images that are made here, or kerf's of those that `release.sh` made (`KERF_RELEASE`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kerf::k8s::lease_holder;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;

use crate::control::Control;
use crate::identity::Identity;
use crate::image;
use crate::kustomization::{Kustomization, SIMULATED_GPUS};
use crate::node::Node;
use crate::place::Place;
use crate::programs::Programs;
use crate::release;
use crate::tools::{Tools, workspace};

const NAMESPACE: &str = "kerf-system";
/// Name of the Deployment, of its pods' label, of the lease, and of the scheduler.
const SCHEDULER: &str = "kerf-scheduler";
const PLUGIN: &str = "kerf-plugin";
/// Names of the containers of its pods.
pub const CONTAINERS: [&str; 2] = ["kube-scheduler", "extender"];

/// A pod of kerf.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The node that it is bound to.
    pub node: String,
    /// Its address, which this machine reaches.
    pub address: String,
    /// Whether all its containers are ready.
    pub ready: bool,
    /// Ids of its running containers, by name.
    containers: BTreeMap<String, String>,
}

impl Member {
    fn of(pod: Pod) -> Option<Self> {
        let status = pod.status?;
        let ready = status.conditions.iter().flatten().any(|now| now.type_ == "Ready" && now.status == "True");
        let containers =
            [status.container_statuses, status.init_container_statuses].into_iter().flatten().flatten();
        let running =
            containers.filter(|container| container.state.as_ref().is_some_and(|now| now.running.is_some()));
        Some(Self {
            name: pod.metadata.name?,
            node: pod.spec?.node_name?,
            address: status.pod_ip?,
            ready,
            containers: running.filter_map(|container| Some((container.name, container.container_id?))).collect(),
        })
    }

    /// The first process of one of its containers.
    ///
    /// # Errors
    /// Where the container does not run on this node.
    pub fn process(&self, node: &Node, container: &str) -> anyhow::Result<Identity> {
        let id = self.containers.get(container).with_context(|| format!("{}: no {container} runs", self.name))?;
        Identity::of(node.container_pid(id)?).with_context(|| format!("{}: {container} is gone", self.name))
    }

    /// The response of a port that is open on loopback in the pod.
    ///
    /// # Errors
    /// Where it does not answer, or not with 200.
    pub fn inside(&self, node: &Node, port: u16, path: &str) -> anyhow::Result<String> {
        let (_, container) =
            self.containers.iter().next().with_context(|| format!("{}: nothing runs", self.name))?;
        let network = File::open(format!("/proc/{}/ns/net", node.container_pid(container)?))?;
        let asking = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
        // a thread of its own, which alone is in the pod's network
        let asked = std::thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(asking.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            anyhow::Ok(answer)
        });
        let answer = asked.join().map_err(|_| anyhow!("asking panicked"))??;
        let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.split(' ').nth(1) == Some("200"), "{path}: {status} {body}");
        Ok(body.to_owned())
    }
}

/// kerf's pods in a cluster.
#[derive(Clone)]
pub struct Bundled {
    client: Client,
    directory: PathBuf,
    /// Whether pods that name no scheduler come to kerf's. Otherwise they have to name it.
    pub routes: bool,
}

impl Bundled {
    /// Makes the images, or takes those of `KERF_RELEASE`, imports them on every node, and has kubectl apply `resources`, a directory of `manifests/`, with so
    /// many simulated GPUs: as it is, or in a kustomization as an administrator writes it, with what an older Kubernetes needs.
    ///
    /// # Errors
    /// Where an image cannot be made, or the API server does not accept the objects.
    pub async fn install(
        (place, tools): (&Place, &Tools),
        programs: &Programs,
        control: &Control,
        nodes: &[Node],
        (resources, gpus): (&str, usize),
        client: Client,
    ) -> anyhow::Result<Self> {
        let scheduler = tools.program("kube-scheduler");
        let version = image::version(&scheduler)?;
        let components = release::components(&client).await?;
        let base = std::fs::read_to_string(workspace().join("manifests/base/kustomization.yaml"))?;
        let gpus = Some(gpus).filter(|gpus| *gpus != SIMULATED_GPUS);
        let as_it_is = components.is_empty() && gpus.is_none();
        let directory = if as_it_is && base.contains(&format!("newTag: {version}\n")) {
            workspace().join("manifests").join(resources)
        } else {
            Kustomization { resources, components, tags: &[(image::SCHEDULER, &version)], gpus }.write(place)?
        };
        let own = match image::released()? {
            Some(released) => released,
            None => [
                image::extender(place, programs.extender())?,
                image::plugin(place, programs.plugin(), programs.limiter())?,
            ],
        };
        let images = [&[image::scheduler(place, &scheduler)?], &own[..]].concat();
        for node in nodes {
            images.iter().try_for_each(|archive| node.containerd.import(archive))?;
        }
        let bundled = Self { client, directory, routes: components.is_empty() };
        bundled.apply(control)?;
        Ok(bundled)
    }

    /// Has kubectl apply the kustomization, again where something of it was changed.
    ///
    /// # Errors
    /// Those of kubectl.
    pub fn apply(&self, control: &Control) -> anyhow::Result<()> {
        control.kubectl(&["apply", "-k", &self.directory.display().to_string()]).map(drop)
    }

    /// Has kubectl delete what the kustomization has, and waits until it is gone.
    ///
    /// # Errors
    /// Those of kubectl.
    pub fn remove(&self, control: &Control) -> anyhow::Result<()> {
        let directory = self.directory.display().to_string();
        control.kubectl(&["delete", "--ignore-not-found", "--timeout=120s", "-k", &directory]).map(drop)
    }

    async fn members(&self, name: &str) -> anyhow::Result<Vec<Member>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let own = pods.list(&ListParams::default().labels(&format!("app.kubernetes.io/name={name}"))).await?;
        // one that is being deleted is as good as gone
        let there = own.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(there.filter_map(Member::of).collect())
    }

    /// The pods of the scheduler that have started and stay.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn schedulers(&self) -> anyhow::Result<Vec<Member>> {
        self.members(SCHEDULER).await
    }

    /// The pod whose kube-scheduler holds the lease.
    ///
    /// # Errors
    /// Where nobody holds it, or a pod that is gone.
    pub async fn leader(&self) -> anyhow::Result<Member> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let lease = leases.get(SCHEDULER).await?;
        let holder = lease_holder(&lease);
        let found = self.schedulers().await?.into_iter().find(|member| member.name == holder);
        found.with_context(|| format!("the lease is held by {holder:?}, which does not run"))
    }

    /// The plugin's pod on a node.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn plugin(&self, node: &str) -> anyhow::Result<Member> {
        let found = self.members(PLUGIN).await?.into_iter().find(|member| member.node == node);
        found.with_context(|| format!("{node} has no plugin"))
    }

    /// Fails unless the replicas of the scheduler, on a node each, and all plugins are ready, one is elected, and pods
    /// that ask for GPUs come to it.
    ///
    /// # Errors
    /// Names what is missing.
    pub async fn ready(&self, nodes: &[Node]) -> anyhow::Result<()> {
        let schedulers = self.schedulers().await?;
        ensure!(schedulers.len() == 2 && schedulers.iter().all(|member| member.ready), "{schedulers:?}");
        let mut on: Vec<&str> = schedulers.iter().map(|member| &*member.node).collect();
        on.dedup();
        ensure!(on.len() == 2.min(nodes.len()), "all are on one node: {schedulers:?}");
        self.leader().await?;
        for node in nodes {
            let plugin = self.plugin(&node.name).await?;
            ensure!(plugin.ready, "{plugin:?}");
        }
        self.routes().await
    }

    /// Fails unless a pod that asks for a GPU would come to kerf's scheduler, or is told to name it: policies are in force a while after they
    /// were applied.
    async fn routes(&self) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        let limits = json!({ "inspur.com/vcuda-core": 1, "inspur.com/vcuda-memory": 1 });
        let pod = serde_json::from_value(json!({
            "metadata": { "name": "routed" },
            "spec": { "containers": [{ "name": "main", "image": image::BUSYBOX, "resources": { "limits": limits } }] },
        }))?;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        match (pods.create(&dry, &pod).await, self.routes) {
            (Ok(pod), true) => {
                let scheduler = pod.spec.and_then(|spec| spec.scheduler_name);
                ensure!(scheduler.as_deref() == Some(SCHEDULER), "pods come to {scheduler:?}");
                Ok(())
            }
            (Err(kube::Error::Api(status)), false) if status.message.contains("write schedulerName") => Ok(()),
            (made, routes) => bail!("with routing {routes}: {made:?}"),
        }
    }
}
