//! The metrics for Prometheus. Counters are kept as events happen ([`crate::base::counters`]); gauges are computed
//! from the state when scraped, so a series ends with its pod. A scrape does not call the driver: it shows the last
//! measurement.

mod containers;
mod gauge;
mod gpus;
mod left_out;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kerf::ids::NodeName;
use prometheus::IntCounter;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::publish::metrics::gauge::Family;
use crate::state::State;

pub use crate::publish::metrics::left_out::LeftOutGauge;

/// The time since each watch's last news.
pub const WATCH_AGE: &str = "kerf_plugin_watch_age_seconds";

/// Computes gauges from the state when scraped.
pub struct Gauges {
    state: State,
    node: NodeName,
    descs: Vec<Desc>,
}

impl Gauges {
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
        let mut family =
            gpus::gauges(cards.hosts(), &allocated, &self.state.cordoned(), &sample.usage, &self.node)?;
        family.extend(containers::gauges(&pods, &sample, &self.node)?);
        family.push(containers::breaches(&self.state.breaches(), &self.node)?);
        family.push(containers::flags(&pods, &self.state.limiter_flags(), &self.node)?);
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

/// A counter that is kept elsewhere: how often the file of simulated GPUs could not be used.
pub struct Complaints {
    counter: IntCounter,
    errors: Arc<AtomicU64>,
}

impl Complaints {
    /// # Errors
    /// Where the name is not legal.
    pub fn new(errors: Arc<AtomicU64>) -> prometheus::Result<Self> {
        let counter = IntCounter::new(
            "kerf_plugin_simulated_file_errors_total",
            "Contents of the simulated GPUs' file that could not be used.",
        )?;
        Ok(Self { counter, errors })
    }
}

impl Collector for Complaints {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.counter.inc_by(self.errors.load(Ordering::Relaxed).saturating_sub(self.counter.get()));
        self.counter.collect()
    }
}
