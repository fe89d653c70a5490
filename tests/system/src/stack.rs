//! All of kerf in one process: a stand-in API server, scheduler and kubelets, and the real extender and plugins,
//! joined by real sockets. Used by the system tests and by the demo.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use kerf::annotation::Keys;
use kerf_extender::Extender;
use kerf_plugin::Plugin;
use kerf_runtime::admin::Listening;
use kerf_runtime::shutdown::Tasks;
use kerf_testkit::api::ApiServer;
use kerf_testkit::kubelet::{Kubelet, KubeletConfig};
use kerf_testkit::scheduler::{ExtenderConfig, Scheduler, SchedulerConfig};
use kerf_testkit::tree::Tree;
use kube::Client;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; a passing test never waits this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

const LIBRARY: &str = "libkerf_limiter.so";

/// A machine with simulated GPUs.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// Name of the Node.
    pub name: String,
    /// Its GPUs, in the simulated backend's format.
    pub cards: String,
    /// Whether it has the limiter: a text file in its place, since no container runs here.
    pub limiter: bool,
    /// Shares by count that it offers, and the GPUs for them; `None`: no such shares.
    pub placed: Option<PlacedSpec>,
}

/// Profiles whose pods the extender places, on GPUs of a fixture tree.
#[derive(Clone, Debug)]
pub struct PlacedSpec {
    /// Description of the fixture tree.
    pub tree: serde_json::Value,
    /// `--profile` and related flags.
    pub flags: Vec<String>,
    /// The resources that result from tree and flags.
    pub resources: Vec<String>,
}

impl MachineSpec {
    /// A machine with `count` equal GPUs.
    pub fn equal(name: &str, count: usize, model: &str, memory_mib: u64) -> Self {
        let cards = format!(
            "[[gpu]]\ncount = {count}\nuuid = \"GPU-{name}\"\nmodel = \"{model}\"\nmemory_mib = {memory_mib}\n\
             device_nodes = [\"/dev/null\"]\n"
        );
        Self { name: name.to_owned(), cards, limiter: true, placed: None }
    }

    /// A machine with the GPUs of a fixture tree.
    pub fn placed(name: &str, tree: serde_json::Value, flags: &[&str], resources: &[&str]) -> Self {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let placed = PlacedSpec { tree, flags: owned(flags), resources: owned(resources) };
        Self { name: name.to_owned(), cards: String::new(), limiter: true, placed: Some(placed) }
    }

    /// Resources that kubelet knows once all plugins are registered.
    fn resources(&self) -> Vec<String> {
        let keys = Keys::default();
        self.placed.as_ref().map_or_else(|| vec![keys.core, keys.memory], |placed| placed.resources.clone())
    }
}

/// The behaviour of the stand-ins.
#[derive(Clone, Debug, Default)]
pub struct StackConfig {
    /// Seeds every random order of scheduler and kubelets.
    pub seed: u64,
    /// Whether the scheduler reuses its list of nodes for equal pods.
    pub batching: bool,
    /// More flags of the extender.
    pub extender: Vec<String>,
}

/// A kubelet and a plugin on one machine.
pub struct Machine {
    /// The kubelet stand-in of this machine.
    pub kubelet: Kubelet,
    /// The file that the simulated backend reads.
    pub cards: PathBuf,
    /// Addresses of the plugin's metrics and of its state.
    pub listening: Listening,
    folder: PathBuf,
    placed: Option<PlacedSpec>,
    plugin: Option<(Plugin, CancellationToken)>,
}

/// Where extender and plugins serve metrics and their state: on free ports.
const FREE: [&str; 2] = ["--metrics-listen=127.0.0.1:0", "--debug-listen=127.0.0.1:0"];

/// The extender in a runtime of its own, so that it can be killed at any instant.
struct ExtenderLife {
    flags: Vec<String>,
    runtime: Option<Runtime>,
    extender: Arc<Extender>,
}

/// All of kerf with its stand-ins, running.
pub struct Stack {
    /// The stand-in API server.
    pub api: Arc<ApiServer>,
    /// The stand-in scheduler.
    pub scheduler: Scheduler,
    /// The machines, by node name.
    pub machines: BTreeMap<String, Machine>,
    extender: ExtenderLife,
    folder: tempfile::TempDir,
}

/// A client of the API server that never retries.
pub async fn client(api: &ApiServer) -> anyhow::Result<Client> {
    let mut config = kube::Config::new(api.url().parse()?);
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

impl ExtenderLife {
    async fn start(api: &ApiServer, listen: SocketAddr, flags: Vec<String>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let own = ["kerf-extender", "--listen", &listen.to_string(), FREE[0], FREE[1]].map(str::to_owned);
        let args = kerf_extender::config::Args::try_parse_from(own.into_iter().chain(flags.clone()))?;
        let config = kerf_extender::config::Config::try_from(&args)?;
        let url = api.url();
        let started = runtime.spawn(async move {
            let mut kube = kube::Config::new(url.parse()?);
            kube.default_retry = false;
            let tasks = Tasks::default();
            let extender = kerf_extender::start(&config, Client::try_from(kube)?, tasks).await?;
            extender.ready().await;
            anyhow::Ok(Arc::new(extender))
        });
        let extender = tokio::time::timeout(PATIENCE, started).await.context("extender is not ready")???;
        Ok(Self { flags, runtime: Some(runtime), extender })
    }

    /// Ends it at once: no request is finished, no answer is sent.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for ExtenderLife {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Machine {
    async fn start(api: &ApiServer, spec: &MachineSpec, folder: &Path, seed: u64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let cards = folder.join("cards.toml");
        std::fs::write(&cards, &spec.cards)?;
        if let Some(placed) = &spec.placed {
            Tree::new(placed.tree.clone())?.write(&folder.join("tree"))?;
        }
        if spec.limiter {
            std::fs::write(folder.join(LIBRARY), "a stand-in")?;
        }
        let mut config = KubeletConfig::new(&spec.name, api.url(), folder);
        config.seed = seed;
        let kubelet = Kubelet::start(config).await.with_context(|| format!("kubelet of {}", spec.name))?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let listening = Listening { metrics: nowhere, debug: nowhere };
        let (folder, placed) = (folder.to_owned(), spec.placed.clone());
        let mut machine = Self { kubelet, cards, listening, folder, placed, plugin: None };
        machine.start_plugin(api, &spec.name).await?;
        Ok(machine)
    }

    /// Starts the plugin; it finds the files of its previous run.
    pub async fn start_plugin(&mut self, api: &ApiServer, node: &str) -> anyhow::Result<()> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (folder, cards) = (text(&self.folder), text(&self.cards));
        let [state, run, library] = ["state", "run", LIBRARY].map(|name| text(&self.folder.join(name)));
        let [sys, dev, proc, cdi] =
            ["sys", "dev", "proc", "cdi"].map(|name| text(&self.folder.join("tree").join(name)));
        let roots = ["--sys-root", &sys, "--dev-root", &dev, "--proc-root", &proc, "--cdi-dir", &cdi];
        let simulated = ["--backend", "simulated", "--simulated-file", &cards];
        let own: Vec<&str> = match &self.placed {
            Some(placed) => roots.into_iter().chain(placed.flags.iter().map(String::as_str)).collect(),
            None => simulated.into(),
        };
        let args = ["kerf-plugin", "--node-name", node, FREE[0], FREE[1]]
            .into_iter()
            .chain(["--kubelet-dir", &folder, "--health-period", "250ms"])
            .chain(["--state-dir", &state, "--run-dir", &run, "--limiter-library", &library])
            .chain(["--sample-period", "500ms", "--nvml-library", "/nonexistent/libnvidia-ml.so.1"])
            .chain(own);
        let config = kerf_plugin::config::Config::try_from(kerf_plugin::config::Args::try_parse_from(args)?)?;
        let token = CancellationToken::new();
        let plugin = kerf_plugin::start(config, Some(client(api).await?), token.clone()).await?;
        self.listening = plugin.listening();
        self.plugin = Some((plugin, token));
        Ok(())
    }

    /// Makes it impossible to write limits of containers, as a broken disk does.
    pub fn break_state(&self) -> std::io::Result<()> {
        let state = self.folder.join("state");
        std::fs::remove_dir_all(&state)?;
        std::fs::write(&state, "")
    }

    /// Stops the plugin; its streams to kubelet end.
    pub async fn stop_plugin(&mut self) -> anyhow::Result<()> {
        if let Some((plugin, token)) = self.plugin.take() {
            token.cancel();
            tokio::time::timeout(PATIENCE, plugin.finished()).await.context("plugin does not stop")??;
        }
        Ok(())
    }
}

impl Stack {
    /// Starts everything and waits until every node has its GPUs.
    pub async fn start(specs: &[MachineSpec], config: StackConfig) -> anyhow::Result<Self> {
        let api = Arc::new(ApiServer::start().await?);
        // short: socket paths must fit into 107 bytes
        let folder = tempfile::Builder::new().prefix("kerf").tempdir()?;
        let mut machines = BTreeMap::new();
        for (number, spec) in specs.iter().enumerate() {
            let seed = config.seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
            let machine = Machine::start(&api, spec, &folder.path().join(number.to_string()), seed).await?;
            machines.insert(spec.name.clone(), machine);
        }
        let keys = Keys::default();
        let mut managed = BTreeSet::new();
        for spec in specs {
            let resources = spec.resources();
            let names: Vec<&str> = resources.iter().map(String::as_str).collect();
            machines[&spec.name].kubelet.wait_registered(&names, PATIENCE).await?;
            managed.extend(resources);
        }
        let managed: Vec<&str> = managed.iter().map(String::as_str).collect();
        let inventory = keys.inventory.clone();
        let everywhere = move |nodes: &[Arc<serde_json::Value>]| {
            let told = |node: &serde_json::Value| node["metadata"]["annotations"].get(&inventory).is_some();
            nodes.iter().all(|node| told(node)).then_some(())
        };
        api.wait_for("nodes", PATIENCE, everywhere).await.context("inventories")?;
        let extender = ExtenderLife::start(&api, ([127, 0, 0, 1], 0).into(), config.extender).await?;
        let url = format!("http://{}/scheduler", extender.extender.address());
        let mut scheduling = SchedulerConfig::new(api.url(), Some(ExtenderConfig::new(&url, &managed)));
        scheduling.seed = config.seed;
        scheduling.initial_backoff = Duration::from_millis(50);
        scheduling.max_backoff = Duration::from_millis(500);
        scheduling.flush_after = Duration::from_secs(2);
        scheduling.opportunistic_batching = config.batching;
        scheduling.journal_limit = 100_000;
        let scheduler = Scheduler::start(scheduling).await?;
        Ok(Self { api, scheduler, machines, extender, folder })
    }

    /// The running extender.
    pub fn extender(&self) -> &Extender {
        &self.extender.extender
    }

    /// Kills the extender at once.
    pub fn kill_extender(&mut self) {
        self.extender.kill();
    }

    /// Kills the extender at once, if it runs, and starts another on the same address.
    pub async fn restart_extender(&mut self) -> anyhow::Result<()> {
        let address = self.extender.extender.address();
        let flags = self.extender.flags.clone();
        self.extender.kill();
        let mut tries = 0;
        self.extender = loop {
            // the killed one's socket closes when its runtime's threads are done
            match ExtenderLife::start(&self.api, address, flags.clone()).await {
                Ok(extender) => break extender,
                Err(error) if tries == 200 => return Err(error),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        Ok(())
    }

    /// Creates a pod.
    pub fn submit(&self, pod: serde_json::Value) -> anyhow::Result<()> {
        self.api.create("pods", pod).map(|_| ())
    }

    /// Waits until `count` pods run and have been confirmed by their nodes.
    pub async fn until_running(&self, count: usize) -> anyhow::Result<()> {
        let keys = Keys::default();
        let running = move |pods: &[Arc<serde_json::Value>]| {
            let done = |pod: &&Arc<serde_json::Value>| {
                pod["status"]["phase"] == "Running"
                    && pod["metadata"]["annotations"].get(&keys.gpu_assigned).is_some_and(|v| v == "true")
            };
            (pods.iter().filter(done).count() >= count).then_some(())
        };
        if self.api.wait_for("pods", PATIENCE, running).await.is_ok() {
            return Ok(());
        }
        anyhow::bail!("not all of {count} pods run:\n{}", self.stragglers()?)
    }

    /// Pods that do not run, or that their nodes have not confirmed, with the known state of each.
    fn stragglers(&self) -> anyhow::Result<String> {
        let keys = Keys::default();
        let mut text = String::new();
        for pod in self.api.list("pods")? {
            let confirmed = &pod["metadata"]["annotations"][&keys.gpu_assigned];
            let (name, phase, node) = (&pod["metadata"]["name"], &pod["status"]["phase"], &pod["spec"]["nodeName"]);
            if phase != "Running" || confirmed != "true" {
                let name = name.as_str().unwrap_or_default();
                let attempts = self.scheduler.attempts_of("default", name);
                let last = attempts.last().map(|attempt| format!("{:?}", attempt.outcome));
                let status = &pod["status"]["message"];
                text += &format!(
                    "{name} {phase} on {node}, confirmed {confirmed}, {status}, {} attempts, last {last:?}\n",
                    attempts.len()
                );
            }
        }
        text += &format!("{:?}", self.scheduler.queue());
        Ok(text)
    }

    /// Stops everything in order.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        self.scheduler.shutdown().await;
        for mut machine in self.machines.into_values() {
            machine.stop_plugin().await?;
            machine.kubelet.shutdown().await;
        }
        self.extender.kill();
        self.api.shutdown().await;
        self.folder.close()?;
        Ok(())
    }
}
