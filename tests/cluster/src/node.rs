//! A node: kubelet, containerd and kerf's plugin in a mount namespace of their own, since kubelet's directory for
//! device plugins has a fixed path, and with a `/dev` of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use serde_json::json;

use crate::cards::Cards;
use crate::containerd::{self, Containerd};
use crate::devices;
use crate::holder::Holder;
use crate::network::Network;
use crate::place::Place;
use crate::process::{Process, Spec};
use crate::programs::Programs;
use crate::tools::Tools;

/// Directories of the node that appear at fixed paths in its namespace.
const MOUNTS: [(&str, &str); 8] = [
    ("kubelet", "/var/lib/kubelet"),
    ("containerd", "/var/lib/containerd"),
    ("run-containerd", "/run/containerd"),
    ("cni", "/var/lib/cni"),
    ("log", "/var/log"),
    ("cdi", "/var/run/cdi"),
    ("state", "/var/lib/kerf"),
    ("run-kerf", "/run/kerf"),
];

/// The node's ports on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Port of kubelet's API.
    pub kubelet: u16,
    /// Port of kubelet's health endpoint.
    pub health: u16,
    /// Port of the plugin's metrics and health.
    pub plugin: u16,
    /// Port of its `/debug/state`.
    pub plugin_debug: u16,
}

impl Ports {
    pub(crate) const COUNT: usize = 4;

    /// Takes the needed ports from `free`.
    pub(crate) fn take(free: &mut impl Iterator<Item = u16>) -> anyhow::Result<Self> {
        let mut port = || free.next().context("too few ports");
        Ok(Self { kubelet: port()?, health: port()?, plugin: port()?, plugin_debug: port()? })
    }
}

/// A node of the cluster.
#[derive(Debug)]
pub struct Node {
    /// Name of the Node object.
    pub name: String,
    /// The ports of its programs.
    pub ports: Ports,
    /// The simulated GPUs of its own plugin.
    pub cards: Cards,
    /// The containerd of this node.
    pub containerd: Containerd,
    /// The process of kubelet.
    pub kubelet: Process,
    /// The process of kerf's plugin, once the node is registered.
    pub plugin: Option<Process>,
    /// Addresses of its pods.
    pods: String,
    holder: Holder,
    directory: PathBuf,
    place: Arc<Place>,
}

impl Node {
    /// Starts containerd, imports the images, starts kubelet.
    ///
    /// # Errors
    /// Where something does not start.
    pub async fn start(
        place: &Arc<Place>,
        tools: &Tools,
        (name, number): (&str, usize),
        addresses: Network,
        ports: Ports,
        cards: usize,
        images: &[PathBuf],
    ) -> anyhow::Result<Self> {
        let directory = place.dir(&format!("nodes/{name}"))?;
        let mut mounts = Vec::new();
        for (from, to) in MOUNTS {
            let from = place.dir(&format!("nodes/{name}/{from}"))?;
            mounts.push((from.display().to_string(), to.to_owned()));
        }
        let dev = directory.join("dev");
        devices::make(&dev)?;
        let cards = Cards::new(directory.join("gpus.toml"), &dev, name, cards)?;
        let holder = Holder::start(place, name, &mounts, &devices::mounts(&dev))?;
        holder.ready().await?;
        let inside = holder.pid()?;
        let network = network(&addresses.pods(number), &addresses.services()).to_string();
        place.write(&format!("nodes/{name}/net.d/10-kerf.conflist"), network)?;
        let containerd = Containerd::start(place, tools, name, &directory, inside).await?;
        images.iter().try_for_each(|image| containerd.import(image))?;
        let kubelet = kubelet(place, tools, name, (ports, addresses), &directory, inside)?;
        Ok(Self {
            name: name.to_owned(),
            ports,
            cards,
            containerd,
            kubelet,
            plugin: None,
            pods: addresses.pods(number),
            holder,
            directory,
            place: place.clone(),
        })
    }

    /// Starts the plugin with a kubeconfig and the simulated GPUs.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_plugin(&mut self, programs: &Programs, kubeconfig: &Path, log: &str) -> anyhow::Result<()> {
        let simulated = format!("--simulated-file={}", self.cards.file().display());
        let cards = ["--backend=simulated".to_owned(), simulated];
        self.plugin = Some(self.start_vcuda(programs, "simulated", kubeconfig, &cards, log)?);
        Ok(())
    }

    /// Starts a plugin that offers `vcuda` on the GPUs that the flags `cards` describe. There may be one at a time.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_vcuda(
        &self,
        programs: &Programs,
        word: &str,
        kubeconfig: &Path,
        cards: &[String],
        log: &str,
    ) -> anyhow::Result<Process> {
        let args = [
            format!("--node-name={}", self.name),
            format!("--metrics-listen=127.0.0.1:{}", self.ports.plugin),
            format!("--debug-listen=127.0.0.1:{}", self.ports.plugin_debug),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--limiter-library={}", programs.limiter.display()),
            format!("--log={log}"),
            "--log-format=json".to_owned(),
        ];
        self.start_beside(programs, word, &[&args, cards].concat())
    }

    /// Starts a plugin with these arguments, beside all others of the node. `word` makes its name unique.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_beside(&self, programs: &Programs, word: &str, args: &[String]) -> anyhow::Result<Process> {
        let spec = Spec::new(format!("kerf-plugin-{}-{word}", self.name), &programs.plugin, args);
        Process::start(&self.place, Spec { inside: Some(self.holder.pid()?), ..spec })
    }

    /// Runs `kerf-plugin doctor` with these arguments; returns its exit status and output.
    ///
    /// # Errors
    /// Where it does not run to its end.
    pub fn doctor(&self, programs: &Programs, args: &[String]) -> anyhow::Result<(i32, String)> {
        let args = [vec!["doctor".to_owned()], args.to_vec()].concat();
        let spec = Spec { inside: Some(self.holder.pid()?), ..Spec::new("doctor", &programs.plugin, &args) };
        let output = spec.command().output()?;
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Ok((output.status.code().context("doctor was killed")?, text))
    }

    /// The process of the plugin.
    ///
    /// # Errors
    /// Where it was not started.
    pub fn plugin(&self) -> anyhow::Result<&Process> {
        self.plugin.as_ref().with_context(|| format!("{} has no plugin", self.name))
    }

    /// The directory of its files, with its `/dev` in `dev`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The addresses of its pods, as a network.
    pub fn pods(&self) -> &str {
        &self.pods
    }

    /// kubelet's own directory, as seen from outside the namespace.
    pub fn kubelet_dir(&self) -> PathBuf {
        self.directory.join("kubelet")
    }

    /// The log of a container.
    ///
    /// # Errors
    /// Where there is no log of it.
    pub fn container_log(&self, namespace: &str, pod: &str, uid: &str, container: &str) -> anyhow::Result<String> {
        let directory = self.directory.join(format!("log/pods/{namespace}_{pod}_{uid}/{container}"));
        let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
            .with_context(|| directory.display().to_string())?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        files.sort();
        let text = std::fs::read_to_string(files.last().context("no log")?)?;
        // each line: time, stream, whether it is complete, text
        Ok(text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect::<Vec<_>>().join("\n"))
    }

    /// Pid of the first process of a running container.
    ///
    /// # Errors
    /// Where containerd has no such container.
    pub fn container_pid(&self, id: &str) -> anyhow::Result<u32> {
        let id = id.trim_start_matches("containerd://");
        let file = self.directory.join(crate::cleaning::BUNDLES).join(id).join("init.pid");
        Ok(std::fs::read_to_string(&file).with_context(|| file.display().to_string())?.trim().parse()?)
    }
}

/// A pair of interfaces for each pod, which leaves nothing behind when the pod ends. Pods reach the API server, by its Service;
/// those of different nodes need not reach each other.
fn network(pods: &str, services: &str) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0", "name": "kerf",
        "plugins": [{
            "type": "ptp", "ipMasq": false,
            "ipam": {
                "type": "host-local", "ranges": [[{ "subnet": pods }]], "routes": [{ "dst": services }],
            },
        }],
    })
}

fn kubelet(
    place: &Arc<Place>,
    tools: &Tools,
    name: &str,
    (ports, addresses): (Ports, Network),
    directory: &Path,
    inside: u32,
) -> anyhow::Result<Process> {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": "127.0.0.1", "port": ports.kubelet, "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1", "healthzPort": ports.health,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": place.path("certificates/authority.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "containerRuntimeEndpoint": format!("unix://{}", containerd::SOCKET),
        "cgroupDriver": "cgroupfs", "cgroupsPerQOS": false, "enforceNodeAllocatable": [],
        "failSwapOn": false, "failCgroupV1": false, "oomScoreAdj": 0,
        "evictionHard": {}, "imageGCHighThresholdPercent": 100,
        "imageMaximumGCAge": "0s",
        "makeIPTablesUtilChains": false, "resolvConf": "",
        // nobody answers there
        "clusterDNS": [addresses.dns()],
        "maxPods": 200, "kubeAPIQPS": 200, "kubeAPIBurst": 400, "serializeImagePulls": false,
        // changes are reported at once, so that tests need not wait for them
        "nodeStatusUpdateFrequency": "1s", "nodeStatusReportFrequency": "5s",
        // a failed container is restarted soon, so that tests need not wait for it
        "crashLoopBackOff": { "maxContainerRestartPeriod": "2s" },
        "featureGates": { "KubeletCrashLoopBackOffMax": true },
    });
    let config = place.write(&format!("nodes/{name}/kubelet.json"), config.to_string())?;
    let args = [
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", place.path(&format!("kubeconfig/{name}")).display()),
        format!("--hostname-override={name}"),
        format!("--cert-dir={}", directory.join("pki").display()),
        "--node-labels=nvidia-device-enable=enable".to_owned(),
        "--v=2".to_owned(),
    ];
    let env = vec![("PATH".to_owned(), tools.path())];
    let spec = Spec::new(format!("kubelet-{name}"), tools.program("kubelet"), &args);
    Process::start(place, Spec { inside: Some(inside), env, ..spec })
}
