//! The tasks of the plugin, by their purpose.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kerf_runtime::admin::{self, Admin};
use kerf_runtime::feed::{Ages, Feed};
use kerf_runtime::readiness::{Condition, Readiness};
use kerf_runtime::shutdown::Tasks;
use kerf_runtime::version;
use kube::Client;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::api::client::Cluster;
use crate::base::counters::Counters;
use crate::config::Config;
use crate::device::cards::Cards;
use crate::follow::access::Access;
use crate::follow::guarded::GuardedBackend;
use crate::front::limits::Limits;
use crate::front::offers::Front;
use crate::front::records::Records;
use crate::front::vcuda_controller::{Roots, Tkestack};
use crate::isolation::enforcers::Enforcers;
use crate::offer::contract::Contract;
use crate::offer::{Offer, Offers};
use crate::publish::labels::write::Options as LabelOptions;
use crate::publish::labels::write::Target;
use crate::publish::metrics::Gauges;
use crate::reconcile::Reconciler;
use crate::state::State;
use crate::state::answers::Answers;
use crate::{follow, front, publish};

/// What the tasks have in common.
pub struct Parts {
    pub tasks: Tasks,
    pub state: State,
    pub registry: Registry,
    pub counters: Counters,
    readiness: Readiness,
    /// `None` without a connection to the API server or a name of the Node.
    cluster: Option<Cluster>,
    /// Reads pods' placements, for `vcuda` and placed profiles.
    pub reconciler: Option<Reconciler>,
    /// With [`Parts::reconciler`]: met where kubelet is new enough to list the pod that it is admitting.
    supported: Option<Condition>,
}

impl Parts {
    pub fn new(config: &Config, client: Option<Client>, tasks: Tasks) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let (counters, state, readiness) = (Counters::new(&registry)?, State::default(), Readiness::default());
        registry.register(Box::new(Gauges::new(state.clone(), config.node.clone())?))?;
        let named = client.filter(|_| !config.node.as_str().is_empty());
        let cluster = named.map(|client| Cluster::new(client, config.node.clone(), config.keys.clone()));
        let (mut reconciler, mut supported) = (None, None);
        if config.vcuda.is_some() || config.placed {
            let cluster = cluster.clone().context("the profile vcuda and --placed need the API server")?;
            let met = readiness.condition(version::CONDITION);
            let asked = cluster.clone();
            let ask = move || {
                let cluster = asked.clone();
                async move { Ok(cluster.kubelet_version().await?) }
            };
            tasks.spawn_short(version::follow("kubelet", ask, met.clone(), tasks.token().clone()));
            let directory = &config.pod_resources_dir;
            reconciler = Some(Reconciler::new(state.clone(), cluster, counters.clone(), directory));
            supported = Some(met);
        }
        Ok(Self { tasks, state, registry, counters, readiness, cluster, reconciler, supported })
    }

    fn stop(&self) -> CancellationToken {
        self.tasks.token().clone()
    }

    /// Offers the resources of all contracts to kubelet; returns the GPUs that each offers.
    pub fn serve_contracts(&self, config: &Config) -> Vec<(&'static str, State)> {
        let reconciler = self.reconciler.clone().filter(|_| config.placed);
        let records = reconciler.map(|reconciler| Records { state: self.state.clone(), reconciler, limits: None });
        let serve = |contract: &Contract| {
            let directory = config.device_plugins_dir.clone();
            (contract.name, self.serve_contract(Arc::new(contract.clone()), records.clone(), directory))
        };
        config.contracts.iter().map(serve).collect()
    }

    /// Offers a contract's resources, from GPUs of its own, which it returns. With `records` they are also GPUs of
    /// the node's roster.
    fn serve_contract(&self, contract: Arc<Contract>, records: Option<Records>, directory: PathBuf) -> State {
        let (name, period) = (contract.name, contract.period);
        let state = records.as_ref().map(|records| records.state.beside(Arc::clone(&contract))).unwrap_or_default();
        let backend = GuardedBackend::new(contract.backend.open(), self.counters.clone());
        let found = self.readiness.condition("gpus");
        // nothing holds a contract's containers to a share: they have no limits
        let nothing = Enforcers::none();
        let health = follow::devices::follow_health(backend, nothing, state.clone(), period, found, self.stop());
        self.tasks.spawn("health", health);
        self.serve(Front {
            name,
            offers: move |cards: &Cards| contract.offers(cards),
            state: state.clone(),
            records,
            counters: self.counters.clone(),
            directory,
            ready: self.readiness.condition(name),
        });
        state
    }

    /// Keeps offers registered with kubelet.
    fn serve<F: Fn(&Cards) -> Offers + Send + Sync + 'static>(&self, front: Front<F>) {
        let supported = self.supported.clone().filter(|_| front.records.is_some());
        self.tasks.spawn(front.name, once(supported, front.follow(self.stop()), self.stop()));
    }

    /// Publishes the health of each offer's GPUs on the Node, and labels it.
    pub fn publish(
        &self,
        offers: Vec<(&'static str, State)>,
        labels: &LabelOptions,
        period: Duration,
    ) -> anyhow::Result<()> {
        if let Some(cluster) = &self.cluster {
            for (name, state) in &offers {
                let kind = publish::condition::condition_type(name);
                let (cluster, state, counters) = (cluster.clone(), state.clone(), self.counters.clone());
                let health = publish::health::follow(cluster, kind, state, counters, period, self.stop());
                self.tasks.spawn("node-health", health);
            }
        }
        let states = offers.into_iter().map(|(_, state)| state).collect();
        if let Some(target) = Target::of(labels, self.cluster.clone())? {
            let (style, counters) = (labels.style.clone(), self.counters.clone());
            let written = publish::labels::write::follow(target, states, style, counters, period, self.stop());
            self.tasks.spawn("labels", written);
        }
        Ok(())
    }

    pub async fn serve_admin(&self, listen: SocketAddr) -> anyhow::Result<SocketAddr> {
        let listener = admin::listen(listen).await?;
        let address = listener.local_addr()?;
        let state = self.state.clone();
        let routes = admin::router(Admin {
            registry: self.registry.clone(),
            series: None,
            readiness: self.readiness.clone(),
            debug: Arc::new(move || publish::debug::state(&state)),
            program: "kerf-plugin",
            draining: self.stop(),
        });
        tracing::info!(%address, "serving HTTP");
        self.tasks.spawn("admin", admin::serve(listener, routes, self.stop()));
        Ok(address)
    }

    /// Follows this node's Node and pods, compares them with kubelet's list, and writes the resulting corrections.
    pub fn follow_pods(&self, reconciler: &Reconciler, config: &Config) -> anyhow::Result<()> {
        let feed = |kind| Feed::new(kind, config.patience, self.counters.api_errors.with_label_values(&["watch"]));
        let (pods, nodes) = (feed("pods"), feed("nodes"));
        let ages = Ages::new(publish::metrics::WATCH_AGE, [pods.clone(), nodes.clone()])?;
        self.registry.register(Box::new(ages))?;
        let (cluster, state, counters) = (reconciler.cluster(), &self.state, &self.counters);

        let (latest, node) = tokio::sync::watch::channel(None);
        let own = follow::own_node::follow(cluster.clone(), nodes.clone(), latest, self.stop());
        self.tasks.spawn("node", own);
        let cordon =
            publish::cordon::follow(cluster.clone(), state.clone(), node.clone(), counters.clone(), self.stop());
        self.tasks.spawn("cordon", cordon);
        let inventory =
            publish::inventory::follow(cluster.clone(), state.clone(), node, nodes, counters.clone(), self.stop());
        self.tasks.spawn("inventory", inventory);

        let lists = cluster.lists().clone();
        let access = Access { pods: pods.clone(), lists, grace: config.withdraw_after };
        let (judged, recorder) = (access.clone(), reconciler.clone());
        self.readiness.check("pods", move || judged.lacks());
        self.readiness.check("records", move || recorder.unrecorded());
        self.tasks.spawn("pods", follow::pods::follow(cluster.clone(), state.clone(), pods, self.stop()));
        self.tasks.spawn("access", access.follow(state.clone(), reconciler.clone(), self.stop()));
        let alone = self.readiness.condition("one resource domain: drain the node of pods of the other");
        self.tasks.spawn("reconcile", reconciler.clone().follow(alone, self.stop()));
        let memory = config.failure_memory;
        let failing =
            publish::failing::follow(cluster.clone(), state.clone(), memory, counters.clone(), self.stop());
        self.tasks.spawn("failing", failing);
        Ok(())
    }

    /// Keeps up what holds containers to their shares, and watches for breaches.
    pub fn enforce(&self, cluster: &Cluster, config: &Config) -> Enforcers {
        let enforcers = Enforcers::new(config.isolation.clone());
        let (state, folders) = (&self.state, enforcers.folders());
        for folder in folders.all() {
            state.allocations(|allocations| allocations.enforced(&folder.key, folder.core, folder.level));
        }
        self.tasks.spawn("pacing", follow::pacing::follow(state.clone(), folders.clone(), self.stop()));
        if config.isolation.context.0 > 0 {
            let proc_root = config.proc_root.clone();
            let overheads = follow::overheads::follow(state.clone(), folders.clone(), proc_root, self.stop());
            self.tasks.spawn("overheads", overheads);
        }
        let watchdog = follow::watchdog::follow(
            state.clone(),
            folders.clone(),
            cluster.clone(),
            self.counters.clone(),
            config.breach_margin,
            config.proc_root.clone(),
            self.stop(),
        );
        self.tasks.spawn("watchdog", watchdog);
        if let Some(mps) = enforcers.mps() {
            self.tasks.spawn("mps", follow::limits::follow_mps(mps.clone(), state.clone(), self.stop()));
        }
        if let Some(driver) = enforcers.driver() {
            let limits = follow::limits::follow_driver(
                driver.clone(),
                state.clone(),
                folders.clone(),
                cluster.clone(),
                self.counters.clone(),
                self.stop(),
            );
            self.tasks.spawn("driver-limits", limits);
        }
        self.tasks.spawn("limits", follow::limits::sweep(folders.clone(), state.clone(), self.stop()));
        enforcers
    }

    /// Follows health and usage of the GPUs of `vcuda`.
    pub fn follow_devices(&self, backend: GuardedBackend, enforcers: &Enforcers, config: &Config) {
        let (state, found) = (self.state.clone(), self.readiness.condition("gpus"));
        let (asked, period) = (backend.clone(), config.health_period);
        let health =
            follow::devices::follow_health(asked, enforcers.clone(), state.clone(), period, found, self.stop());
        self.tasks.spawn("health", health);
        let (proc_root, period) = (config.proc_root.clone(), config.sample_period);
        let usage = follow::devices::follow_usage(backend, state, period, proc_root, self.stop());
        self.tasks.spawn("usage", usage);
    }

    /// Offers both resources of `vcuda` to kubelet, and serves tkestack's library where configured.
    pub fn serve_vcuda(
        &self,
        offers: [Offer; 2],
        reconciler: Reconciler,
        enforcers: Enforcers,
        answers: Answers,
        config: Config,
    ) {
        let tkestack = config.tkestack.then(|| {
            let (tkestack, opened) = Tkestack::new();
            tkestack.resume(enforcers.folders());
            let roots = Roots { proc: config.proc_root, cgroup: config.isolation.cgroup_root };
            let (state, folders) = (self.state.clone(), enforcers.folders().clone());
            let serving = front::vcuda_controller::follow(opened, state, folders, roots, self.stop());
            self.tasks.spawn("tkestack", serving);
            tkestack
        });
        let limits = Some(Limits { enforcers, answers, tkestack });
        let records = Records { state: self.state.clone(), reconciler, limits };
        for (offer, ready) in offers.into_iter().zip(["kubelet-core", "kubelet-memory"]) {
            self.serve(Front {
                name: "vcuda",
                offers: move |cards: &Cards| Offers::of_all(&offer, cards),
                state: self.state.clone(),
                records: Some(records.clone()),
                counters: self.counters.clone(),
                directory: config.device_plugins_dir.clone(),
                ready: self.readiness.condition(ready),
            });
        }
    }
}

/// Does the work once the condition is met, where there is one.
async fn once(condition: Option<Condition>, work: impl Future<Output = ()>, stop: CancellationToken) {
    if let Some(condition) = condition {
        tokio::select! {
            () = condition.met() => {}
            () = stop.cancelled() => return,
        }
    }
    work.await;
}
