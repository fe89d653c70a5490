//! What Prometheus sees. Counters are kept as things happen; all else is computed from the state when scraped, so
//! a series ends with its pod. A scrape asks no driver: it shows the last measurement.

pub mod containers;
pub mod gpus;

use kerf::ids::NodeName;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::follow::watchdog::Kind;
use crate::state::State;

/// How old the watches' news is.
pub const WATCH_AGE: &str = "kerf_plugin_watch_age_seconds";

/// Everything that is counted. Clones count together.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Registrations with kubelet, by `resource` and `outcome` (`registered`, `failed`).
    pub registrations: IntCounterVec,
    /// Calls of Allocate, by `resource` and `outcome` (`granted`, `repeated`, or why refused).
    pub allocations: IntCounterVec,
    /// Calls of PreStartContainer, by `outcome` (`known`, `adopted`, `unknown`).
    pub starts: IntCounterVec,
    /// Pairs of pods that changed places.
    pub swaps: IntCounter,
    /// Containers that kubelet gave other cards than were recorded.
    pub moves: IntCounter,
    /// Comparisons with kubelet's list that failed.
    pub reconcile_errors: IntCounter,
    /// Questions that a driver did not answer, by `kind` (`unavailable`, `failed`, `slow`).
    pub backend_errors: IntCounterVec,
    /// Breaches that the watchdog saw begin, by `kind` (`memory`, `unlimited`).
    pub breaches: IntCounterVec,
    /// Calls to the API server that failed, by `call` (`watch`, `list`, `pod`, `node`, `event`).
    pub api_errors: IntCounterVec,
}

impl Counters {
    /// Registers them.
    ///
    /// # Errors
    /// Where a name is taken already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let vec = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(format!("kerf_plugin_{name}"), help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let one = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("kerf_plugin_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counters = Self {
            registrations: vec("registrations_total", "Registrations with kubelet.", &["resource", "outcome"])?,
            allocations: vec("allocations_total", "Answers to Allocate.", &["resource", "outcome"])?,
            starts: vec("container_starts_total", "Answers to PreStartContainer.", &["outcome"])?,
            swaps: one("allocation_swaps_total", "Pairs of equal pods whose GPUs were exchanged.")?,
            moves: one(
                "allocation_moves_total",
                "Containers that kubelet gave other GPUs than were recorded; the record follows.",
            )?,
            reconcile_errors: one(
                "reconcile_errors_total",
                "Comparisons with kubelet's list of allocations that failed.",
            )?,
            backend_errors: vec(
                "backend_errors_total",
                "Questions that the GPU driver did not answer.",
                &["kind"],
            )?,
            breaches: vec("breaches_total", "Breaches of limits that began.", &["kind"])?,
            api_errors: vec("api_errors_total", "Calls to the API server that failed.", &["call"])?,
        };
        // an alert needs the series before the first time
        for call in ["watch", "list", "pod", "node", "event"] {
            counters.api_errors.with_label_values(&[call]);
        }
        for kind in Kind::ALL {
            counters.breaches.with_label_values(&[kind.as_str()]);
        }
        Ok(counters)
    }
}

/// Computes gauges from the state when scraped.
pub struct Gauges {
    state: State,
    node: NodeName,
    descs: Vec<Desc>,
}

/// Gauges of one scrape.
type Family = Vec<GaugeVec>;

impl Gauges {
    /// Of `state`, on `node`.
    ///
    /// # Errors
    /// Where a name or label is not legal.
    pub fn new(state: State, node: NodeName) -> prometheus::Result<Self> {
        let mut gauges = Self { state, node, descs: Vec::new() };
        gauges.descs = gauges.compute()?.iter().flat_map(|gauge| gauge.desc()).cloned().collect();
        Ok(gauges)
    }

    fn compute(&self) -> prometheus::Result<Family> {
        let (cards, sample) = (self.state.roster(), self.state.sample());
        let (pods, allocated) = self.state.allocations(|allocations| {
            let allocated = cards.hosts().map(|host| allocations.allocated(&host.device.id)).collect::<Vec<_>>();
            (allocations.view(), allocated)
        });
        let mut family = gpus::gauges(cards.hosts(), &allocated, &self.state.cordoned(), &sample.usage)?;
        family.extend(containers::gauges(&pods, &sample, &self.node)?);
        family.push(containers::breaches(&self.state.breaches())?);
        Ok(family)
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        match self.compute() {
            Ok(family) => family.iter().flat_map(Collector::collect).collect(),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be computed");
                Vec::new()
            }
        }
    }
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
    GaugeVec::new(Opts::new(name, help), labels)
}

/// For reports only: an `f64` holds every count of bytes that exists to the byte.
#[allow(clippy::cast_precision_loss, reason = "below 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}

/// A counter that is kept elsewhere: contents of the simulated cards' file that could not be used.
///
/// # Errors
/// Where the name is not legal.
pub fn complaints<F>(read: F) -> prometheus::Result<impl Collector>
where
    F: Fn() -> u64 + Send + Sync + 'static,
{
    let counter = IntCounter::new(
        "kerf_plugin_simulated_file_errors_total",
        "Contents of the simulated GPUs' file that could not be used.",
    )?;
    Ok(Complaints { counter, read })
}

struct Complaints<F> {
    counter: IntCounter,
    read: F,
}

impl<F: Fn() -> u64 + Send + Sync> Collector for Complaints<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.counter.inc_by((self.read)().saturating_sub(self.counter.get()));
        self.counter.collect()
    }
}
