//! The tasks of the plugin, by their purpose.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kerf_proto::deviceplugin::KUBELET_SOCKET;
use kerf_runtime::about::About;
use kerf_runtime::admin::{Admin, Listeners, Listening};
use kerf_runtime::feed::{Ages, Feed};
use kerf_runtime::readiness::{Condition, Readiness};
use kerf_runtime::shutdown::Tasks;
use kerf_runtime::version;
use kube::Client;
use prometheus::Registry;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{Cluster, PodEvents};
use crate::base::counters::Counters;
use crate::config::Config;
use crate::device::cards::Cards;
use crate::follow::access::Access;
use crate::follow::devices::Kept;
use crate::follow::guarded::GuardedBackend;
use crate::follow::held::Held;
use crate::follow::{devices, limits, overheads, pacing, pods, watchdog};
use crate::front::limits::Limits;
use crate::front::offers::Front;
use crate::front::records::Records;
use crate::front::vcuda_controller::{self, Roots, Tkestack};
use crate::isolation::enforcers::Enforcers;
use crate::offer::contract::Contract;
use crate::offer::{Offer, Offers};
use crate::publish::labels::write::NodeLabels;
use crate::publish::metrics::{Complaints, Gauges, LeftOutGauge, WATCH_AGE};
use crate::publish::startup_taint::{Obstacle, Offering};
use crate::publish::{condition, cordon, debug, failing, health, inventory, startup_taint};
use crate::reconcile::Reconciler;
use crate::state::State;
use crate::state::answers::Answers;
use crate::state::left_out::LeftOut;

/// A driver or disk that does not answer within this time is told of.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the tasks have in common.
pub struct Parts {
    pub config: Config,
    pub tasks: Tasks,
    pub state: State,
    registry: Registry,
    counters: Counters,
    readiness: Readiness,
    left_out: LeftOut,
    /// `None` without a connection to the API server or a name of the Node.
    cluster: Option<Cluster>,
    /// Reads pods' placements, for `vcuda` and placed profiles.
    pub reconciler: Option<Reconciler>,
    /// With [`Parts::reconciler`]: met where kubelet is new enough to list the pod that it is admitting.
    supported: Option<Condition>,
    registered: Registered,
}

/// Met while kubelet has registered the resources: for each contract, in their order, and for the two of `vcuda`.
struct Registered {
    contracts: Vec<Condition>,
    vcuda: Option<[Condition; 2]>,
}

impl Registered {
    fn new(config: &Config, readiness: &Readiness) -> Self {
        let contracts = config.contracts.iter().map(|contract| readiness.condition(contract.name)).collect();
        let names = ["kubelet-core", "kubelet-memory"];
        let vcuda = config.vcuda.as_ref().map(|_| names.map(|name| readiness.condition(name)));
        Self { contracts, vcuda }
    }
}

impl Parts {
    pub fn new(config: Config, client: Option<Client>, tasks: Tasks) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let (counters, state, readiness) = (Counters::new(&registry)?, State::default(), Readiness::default());
        registry.register(Box::new(Gauges::new(state.clone(), config.node.clone())?))?;
        registry.register(Box::new(About::new("kerf-plugin")?))?;
        let left_out = LeftOut::default();
        registry.register(Box::new(LeftOutGauge::new(left_out.clone(), config.node.clone())?))?;
        registry.register(Box::new(Complaints::new(config.simulated_file_errors.clone())?))?;
        let named = client.filter(|_| !config.node.as_str().is_empty());
        let cluster = named.map(|client| {
            Cluster::new(client, config.node.clone(), config.keys.clone(), counters.api_errors.clone())
        });
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
            let (events, waiting) = PodEvents::new();
            tasks.spawn("events", waiting.follow(cluster.clone(), tasks.token().clone()));
            reconciler = Some(Reconciler::new(state.clone(), cluster, counters.clone(), directory, events));
            supported = Some(met);
        }
        let registered = Registered::new(&config, &readiness);
        Ok(Self {
            config,
            tasks,
            state,
            registry,
            counters,
            readiness,
            left_out,
            cluster,
            reconciler,
            supported,
            registered,
        })
    }

    fn stop(&self) -> CancellationToken {
        self.tasks.token().clone()
    }

    /// Offers the resources of all contracts to kubelet; returns the GPUs that are offered, by profile.
    pub fn serve_contracts(&self) -> Vec<(&'static str, State)> {
        let contracts = self.config.contracts.iter().zip(&self.registered.contracts);
        let served = contracts.map(|(contract, registered)| {
            (contract.name, self.serve_contract(Arc::new(contract.clone()), registered.clone()))
        });
        let vcuda = self.config.vcuda.iter().map(|_| ("vcuda", self.state.clone()));
        served.chain(vcuda).collect()
    }

    /// Offers a contract's resources, from GPUs of its own, which it returns. Where its pods are placed, they are also
    /// GPUs of the node's roster.
    fn serve_contract(&self, contract: Arc<Contract>, registered: Condition) -> State {
        let reconciler = self.reconciler.clone().filter(|_| self.config.placed);
        let records = reconciler.map(|reconciler| Records { state: self.state.clone(), reconciler, limits: None });
        let (name, period) = (contract.name, contract.period);
        let state = records.as_ref().map(|records| records.state.beside(Arc::clone(&contract))).unwrap_or_default();
        // nothing holds a contract's containers to a share: they have no limits
        let found = self.readiness.condition("gpus");
        let socket = self.config.pod_resources_dir.join(KUBELET_SOCKET);
        let held = records.is_none().then(|| Held { socket, contract: Arc::clone(&contract) });
        let kept = Kept { state: state.clone(), left_out: self.left_out.of(name), found, held };
        let backend = GuardedBackend::new(&contract.backend, &self.counters);
        self.follow_health(backend, Enforcers::none(), kept, period);
        let offers = move |cards: &Cards| contract.offers(cards);
        self.serve(name, offers, &state, records, registered);
        state
    }

    fn follow_health(&self, backend: GuardedBackend, enforcers: Enforcers, kept: Kept, period: Duration) {
        self.tasks.spawn("health", devices::follow_health(backend, enforcers, kept, period, self.stop()));
    }

    /// Keeps the offers of a source's GPUs registered with kubelet. `name`: in logs.
    fn serve<F>(&self, name: &'static str, offers: F, state: &State, records: Option<Records>, ready: Condition)
    where
        F: Fn(&Cards) -> Offers + Send + Sync + 'static,
    {
        let supported = self.supported.clone().filter(|_| records.is_some());
        let front = Front {
            name,
            offers,
            state: state.clone(),
            left_out: self.left_out.of(name),
            records,
            counters: self.counters.clone(),
            directory: self.config.device_plugins_dir.clone(),
            ready,
        };
        let stop = self.stop();
        self.tasks.spawn(name, async move {
            if let Some(supported) = supported
                && stop.run_until_cancelled(supported.met()).await.is_none()
            {
                return;
            }
            front.follow(stop).await;
        });
    }

    /// Publishes the health of each profile's GPUs on the Node, and labels it.
    pub fn publish(&self, offers: Vec<(&'static str, State)>) -> anyhow::Result<()> {
        let period = self.config.report_period;
        if let Some(cluster) = &self.cluster {
            for (name, state) in &offers {
                let kind = condition::condition_type(name);
                let health = health::follow(cluster.clone(), kind, state.clone(), period, self.stop());
                self.tasks.spawn("node-health", health);
            }
        }
        let states: Vec<State> = offers.into_iter().map(|(_, state)| state).collect();
        if let Some(labels) = NodeLabels::new(&self.config.labels, self.cluster.as_ref(), &states, period)? {
            self.tasks.spawn("labels", labels.follow(self.stop()));
        }
        Ok(())
    }

    /// Only once every condition is known: what is served before would say that the plugin is ready.
    pub fn serve_admin(&self, listeners: Listeners) -> anyhow::Result<Listening> {
        let listening = listeners.addresses()?;
        let admin = Admin {
            registry: self.registry.clone(),
            series: None,
            readiness: self.readiness.clone(),
            standing: None,
            program: "kerf-plugin",
            draining: self.stop(),
        };
        let state = self.state.clone();
        let state = move || Box::new(std::iter::once(debug::state(&state).to_string())) as _;
        listeners.serve(&self.tasks, admin, Arc::new(state));
        tracing::info!(?listening, "serving HTTP");
        Ok(listening)
    }

    /// Follows this node's Node and pods, compares them with kubelet's list, and writes the resulting corrections.
    pub fn follow_pods(&self, reconciler: &Reconciler) -> anyhow::Result<()> {
        let Self { tasks, state, readiness, config, .. } = self;
        let failures = || self.counters.api_errors.with_label_values(&["watch"]);
        let [pods, nodes] = ["pods", "nodes"].map(|kind| Feed::new(kind, config.patience, failures()));
        self.registry.register(Box::new(Ages::new(WATCH_AGE, [pods.clone(), nodes.clone()])?))?;
        let cluster = || reconciler.cluster().clone();

        let (latest, node) = tokio::sync::watch::channel(None);
        tasks.spawn("node", pods::follow_node(cluster(), nodes.clone(), latest, self.stop()));
        tasks.spawn("cordon", cordon::follow(cluster(), state.clone(), node.clone(), self.stop()));
        let obstacle = Obstacle::default();
        let told = obstacle.clone();
        readiness.check("startup taint", move || told.get());
        let Registered { contracts, vcuda } = &self.registered;
        let offering = Offering {
            registered: contracts.iter().chain(vcuda.iter().flatten()).cloned().collect(),
            vcuda: vcuda.is_some(),
        };
        let (seen, feed) = (node.clone(), nodes.clone());
        let untaint = startup_taint::follow(cluster(), state.clone(), offering, obstacle, seen, feed, self.stop());
        tasks.spawn("startup-taint", untaint);
        tasks.spawn("inventory", inventory::follow(cluster(), state.clone(), node, nodes, self.stop()));
        tasks.spawn("failing", failing::follow(cluster(), state.clone(), config.failure_memory, self.stop()));

        let lists = cluster().lists().clone();
        let access = Access { pods: pods.clone(), lists, grace: config.withdraw_after };
        let (judged, recorder) = (access.clone(), reconciler.clone());
        readiness.check("pods", move || judged.lacks());
        readiness.check("records", move || recorder.unrecorded());
        tasks.spawn("pods", pods::follow(cluster(), state.clone(), pods, self.stop()));
        tasks.spawn("access", access.follow(state.clone(), reconciler.clone(), self.stop()));
        let alone = readiness.condition("one resource domain: drain the node of pods of the other");
        tasks.spawn("reconcile", reconciler.clone().follow(alone, self.stop()));
        Ok(())
    }

    /// Offers the resources of `vcuda`, once the disk and the driver have said what holds containers to their shares.
    /// Neither need answer, so they are asked on a thread of their own.
    pub fn follow_vcuda(self: &Arc<Self>, offers: [Offer; 2], reconciler: Reconciler, answers: Answers) {
        let Some(registered) = self.registered.vcuda.clone() else { return };
        let found = self.readiness.condition("gpus");
        let parts = Arc::clone(self);
        self.tasks.spawn("vcuda", async move {
            let (stop, options) = (parts.stop(), parts.config.isolation.clone());
            let mut asked = tokio::task::spawn_blocking(move || Enforcers::new(options));
            let asking = async {
                if let Ok(answered) = timeout(PATIENCE, &mut asked).await {
                    return answered;
                }
                tracing::warn!("the driver or the disk does not say what can enforce shares; waiting");
                asked.await
            };
            let enforcers = match stop.run_until_cancelled(asking).await {
                Some(Ok(enforcers)) => enforcers,
                // its panic is in the log; a task that ends ends the plugin
                Some(Err(_)) | None => return,
            };
            parts.enforce(&reconciler, &enforcers);
            parts.follow_devices(&enforcers, found);
            parts.serve_vcuda(&offers, &reconciler, enforcers, answers, registered);
            drop(parts);
            stop.cancelled().await;
        });
    }

    /// Keeps up what holds containers to their shares, and watches for breaches.
    fn enforce(&self, reconciler: &Reconciler, enforcers: &Enforcers) {
        let Self { tasks, state, config, .. } = self;
        let folders = &enforcers.folders;
        for folder in folders.all() {
            state.allocations(|allocations| allocations.enforced(&folder.key, folder.core, folder.level));
        }
        tasks.spawn("pacing", pacing::follow(state.clone(), folders.clone(), self.stop()));
        if config.isolation.context.0 > 0 {
            let proc_root = config.proc_root.clone();
            tasks.spawn("overheads", overheads::follow(state.clone(), folders.clone(), proc_root, self.stop()));
        }
        let watchdog = watchdog::follow(
            state.clone(),
            folders.clone(),
            reconciler.cluster().clone(),
            self.counters.clone(),
            watchdog::Options {
                margin: config.breach_margin,
                proc_root: config.proc_root.clone(),
                all_placed: config.contracts.is_empty() || config.placed,
            },
            self.stop(),
        );
        tasks.spawn("watchdog", watchdog);
        if let Some(mps) = &enforcers.mps {
            tasks.spawn("mps", limits::follow_mps(mps.clone(), state.clone(), self.stop()));
        }
        if let Some(driver) = &enforcers.driver {
            let (driver, folders) = (driver.clone(), folders.clone());
            let limits =
                limits::follow_driver(driver, state.clone(), folders, reconciler.events().clone(), self.stop());
            tasks.spawn("driver-limits", limits);
        }
        tasks.spawn("limits", limits::sweep(folders.clone(), state.clone(), self.stop()));
    }

    /// Follows health and usage of the GPUs of `vcuda`.
    fn follow_devices(&self, enforcers: &Enforcers, found: Condition) {
        let Self { state, config, .. } = self;
        let backend = GuardedBackend::new(&config.backend, &self.counters);
        let kept = Kept { state: state.clone(), left_out: self.left_out.of("vcuda"), found, held: None };
        self.follow_health(backend.clone(), enforcers.clone(), kept, config.health_period);
        let (proc_root, period) = (config.proc_root.clone(), config.sample_period);
        self.tasks.spawn("usage", devices::follow_usage(backend, state.clone(), period, proc_root, self.stop()));
    }

    /// Offers both resources of `vcuda` to kubelet, and serves tkestack's library where configured.
    fn serve_vcuda(
        &self,
        offers: &[Offer; 2],
        reconciler: &Reconciler,
        enforcers: Enforcers,
        answers: Answers,
        ready: [Condition; 2],
    ) {
        let Self { state, config, .. } = self;
        let tkestack = config.tkestack.then(|| {
            let (tkestack, opened) = Tkestack::new();
            tkestack.resume(&enforcers.folders);
            let roots = Roots { proc: config.proc_root.clone(), cgroup: config.isolation.cgroup_root.clone() };
            let folders = enforcers.folders.clone();
            let serving = vcuda_controller::follow(opened, state.clone(), folders, roots, self.stop());
            self.tasks.spawn("tkestack", serving);
            tkestack
        });
        let limits = Some(Limits { enforcers, answers, tkestack });
        let records = Records { state: state.clone(), reconciler: reconciler.clone(), limits };
        for (offer, ready) in offers.clone().into_iter().zip(ready) {
            let offers = move |cards: &Cards| Offers::of_all(&offer, cards);
            self.serve("vcuda", offers, state, Some(records.clone()), ready);
        }
    }
}
