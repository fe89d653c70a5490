//! What Prometheus sees of the extender. Counters are kept; gauges of state are read from the [`Cluster`] at
//! scrape, so none can be forgotten.

use std::sync::Arc;
use std::time::Duration;

use kerf::ledger::NodeLedger;
use kerf::placement::Unfit;
use kerf::units::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramTimer, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use crate::clock::Clock;
use crate::cluster::Cluster;

/// A verb of the extender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `/scheduler/filter`
    Filter,
    /// `/scheduler/prioritize`
    Prioritize,
    /// `/scheduler/bind`
    Bind,
    /// `/scheduler/predicates`
    Predicates,
}

impl Verb {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Prioritize => "prioritize",
            Self::Bind => "bind",
            Self::Predicates => "predicates",
        }
    }
}

/// How a bind ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// Written.
    Bound,
    /// Had been written before.
    Already,
    /// The node has no room any more.
    Unfit,
    /// The API server has refused.
    Refused,
    /// The API server has not said.
    Unknown,
    /// The pod breaks the contract.
    Invalid,
    /// The pod could not be read, or bind broke off.
    Failed,
}

impl Bind {
    const ALL: [Self; 7] =
        [Self::Bound, Self::Already, Self::Unfit, Self::Refused, Self::Unknown, Self::Invalid, Self::Failed];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Already => "already-bound",
            Self::Unfit => "no-longer-fits",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        }
    }
}

/// The extender's counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    duration: HistogramVec,
    answers: IntCounterVec,
    unfit: IntCounterVec,
    binds: IntCounterVec,
    /// Requests that break the contract, by rule.
    pub invalid: IntCounterVec,
    /// Pods whose placement changed after it was known.
    pub drift: IntCounter,
    /// Pods seen bound with a placement that cannot be read.
    pub unreadable: IntCounter,
    /// Bindings in doubt that turned out not to be written.
    pub expired: IntCounter,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// Where a name is taken or not legal.
    pub fn new(registry: &Registry, cluster: Arc<Cluster>, clock: Arc<Clock>) -> prometheus::Result<Self> {
        // from a tenth of the aim for 500 names to the scheduler's own time-out
        let buckets = vec![
            0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
            5.0,
        ];
        let counter = |name: &str, help: &str| IntCounter::new(format!("kerf_extender_{name}"), help);
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(format!("kerf_extender_{name}"), help), labels)
        };
        let metrics = Self {
            duration: HistogramVec::new(
                HistogramOpts::new("kerf_extender_request_duration_seconds", "Time to answer the scheduler")
                    .buckets(buckets),
                &["verb"],
            )?,
            answers: counters("requests_total", "Calls of the scheduler, by outcome", &["verb", "outcome"])?,
            unfit: counters("unfit_total", "Candidates that did not fit, by reason", &["reason"])?,
            binds: counters("binds_total", "Binds, by outcome", &["outcome"])?,
            invalid: counters("invalid_requests_total", "Calls for pods that break a rule, by rule", &["rule"])?,
            drift: counter("drift_total", "Pods whose placement changed after it was known")?,
            unreadable: counter("unreadable_placements_total", "Bound pods whose placement cannot be read")?,
            expired: counter("expired_total", "Bindings in doubt that turned out not to be written")?,
        };
        for reason in Unfit::ALL {
            metrics.unfit.with_label_values(&[reason.code()]);
        }
        for outcome in Bind::ALL {
            metrics.binds.with_label_values(&[outcome.as_str()]);
        }
        registry.register(Box::new(metrics.duration.clone()))?;
        for counters in [&metrics.answers, &metrics.unfit, &metrics.binds, &metrics.invalid] {
            registry.register(Box::new(counters.clone()))?;
        }
        for counter in [&metrics.drift, &metrics.unreadable, &metrics.expired] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(ClusterCollector::new(cluster, clock)?))?;
        Ok(metrics)
    }

    /// Times one call, until dropped.
    pub fn timer(&self, verb: Verb) -> HistogramTimer {
        self.duration.with_label_values(&[verb.as_str()]).start_timer()
    }

    /// Counts a call.
    pub fn answered(&self, verb: Verb, outcome: &str) {
        self.answers.with_label_values(&[verb.as_str(), outcome]).inc();
    }

    /// Counts candidates that did not fit.
    pub fn unfit<'a>(&self, reasons: impl Iterator<Item = &'a Unfit>) {
        let mut counts = [0u64; Unfit::ALL.len()];
        for reason in reasons {
            let at = Unfit::ALL.iter().position(|known| known == reason);
            if let Some(count) = at.and_then(|at| counts.get_mut(at)) {
                *count += 1;
            }
        }
        for (reason, count) in Unfit::ALL.iter().zip(counts).filter(|(_, count)| *count > 0) {
            self.unfit.with_label_values(&[reason.code()]).inc_by(count);
        }
    }

    /// Counts a bind.
    pub fn bound(&self, outcome: Bind) {
        self.binds.with_label_values(&[outcome.as_str()]).inc();
    }

    /// The mean time of `verb` so far; for reports.
    pub fn mean(&self, verb: Verb) -> Duration {
        let histogram = self.duration.with_label_values(&[verb.as_str()]);
        let count = histogram.get_sample_count().max(1);
        #[allow(clippy::cast_precision_loss, reason = "a report's mean")]
        Duration::from_secs_f64(histogram.get_sample_sum() / count as f64)
    }
}

/// Reads the ledgers at scrape.
struct ClusterCollector {
    cluster: Arc<Cluster>,
    clock: Arc<Clock>,
    descs: Vec<Desc>,
}

const GPU: [&str; 4] = ["node", "gpu", "index", "model"];

/// The per-GPU gauges, empty.
struct Gauges {
    healthy: GaugeVec,
    compute_capacity: GaugeVec,
    compute_committed: GaugeVec,
    compute_free: GaugeVec,
    memory_capacity: GaugeVec,
    memory_committed: GaugeVec,
    memory_free: GaugeVec,
    pods: GaugeVec,
    overcommitted: GaugeVec,
    commitments: GaugeVec,
    in_doubt: GaugeVec,
    nodes: GaugeVec,
}

impl Gauges {
    fn new() -> prometheus::Result<Self> {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            GaugeVec::new(Opts::new(format!("kerf_extender_{name}"), help), labels)
        };
        Ok(Self {
            healthy: gauges("gpu_usable", "1 where the GPU takes new pods: healthy and not cordoned", &GPU)?,
            compute_capacity: gauges("gpu_compute_capacity_ratio", "Compute of the GPU, 1 = one card", &GPU)?,
            compute_committed: gauges("gpu_compute_committed_ratio", "Compute that pods hold", &GPU)?,
            compute_free: gauges(
                "gpu_compute_free_ratio",
                "Largest share of compute that a new pod can have",
                &GPU,
            )?,
            memory_capacity: gauges("gpu_memory_capacity_bytes", "Memory of the GPU", &GPU)?,
            memory_committed: gauges("gpu_memory_committed_bytes", "Memory that pods hold", &GPU)?,
            memory_free: gauges("gpu_memory_free_bytes", "Largest share of memory that a new pod can have", &GPU)?,
            pods: gauges("gpu_pods", "Pods that hold a part of the GPU", &GPU)?,
            overcommitted: gauges("gpu_overcommitted", "1 where pods hold more than the GPU has", &GPU)?,
            commitments: gauges("commitments", "Pods that hold GPUs, by state", &["state"])?,
            in_doubt: gauges("binds_in_doubt", "Bindings whose outcome is overdue", &[])?,
            nodes: gauges("nodes", "Nodes known, with and without GPUs", &[])?,
        })
    }

    fn all(&self) -> [&GaugeVec; 12] {
        [
            &self.healthy,
            &self.compute_capacity,
            &self.compute_committed,
            &self.compute_free,
            &self.memory_capacity,
            &self.memory_committed,
            &self.memory_free,
            &self.pods,
            &self.overcommitted,
            &self.commitments,
            &self.in_doubt,
            &self.nodes,
        ]
    }

    #[allow(clippy::cast_precision_loss, reason = "Prometheus has floats; bytes of a card are far below 2^53")]
    fn add(&self, node: &str, ledger: &NodeLedger, now: Timestamp) {
        self.nodes.with_label_values::<&str>(&[]).inc();
        for card in ledger.cards() {
            let device = card.device();
            let index = device.index.to_string();
            let labels = [node, device.id.as_str(), &index, &device.model];
            let set = |gauges: &GaugeVec, value: f64| gauges.with_label_values(&labels).set(value);
            let (capacity, used, free) = (device.capacity(), card.used(), card.free());
            set(&self.healthy, f64::from(u8::from(device.usable())));
            set(&self.compute_capacity, capacity.compute.ratio());
            set(&self.compute_committed, used.compute.ratio());
            set(&self.compute_free, free.compute.ratio());
            set(&self.memory_capacity, capacity.memory.bytes() as f64);
            set(&self.memory_committed, used.memory.bytes() as f64);
            set(&self.memory_free, free.memory.bytes() as f64);
            set(&self.pods, f64::from(card.pods()));
            set(&self.overcommitted, f64::from(u8::from(card.overcommitted())));
        }
        for commitment in ledger.commitments().values() {
            self.commitments.with_label_values(&[commitment.state.as_str()]).inc();
            if commitment.state.overdue(now) {
                self.in_doubt.with_label_values::<&str>(&[]).inc();
            }
        }
    }
}

impl ClusterCollector {
    fn new(cluster: Arc<Cluster>, clock: Arc<Clock>) -> prometheus::Result<Self> {
        let descs = Gauges::new()?.all().into_iter().flat_map(|gauges| gauges.desc()).cloned().collect();
        Ok(Self { cluster, clock, descs })
    }
}

impl Collector for ClusterCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(gauges) = Gauges::new() else { return Vec::new() };
        let now = self.clock.now();
        gauges.in_doubt.with_label_values::<&str>(&[]).set(0.0);
        self.cluster.each_node(|node, ledger| gauges.add(node.as_str(), ledger, now));
        gauges
            .all()
            .into_iter()
            .flat_map(Collector::collect)
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}
