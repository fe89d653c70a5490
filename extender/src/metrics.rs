//! The extender's metrics. Counters are kept; gauges of state are read from the [`Cluster`] at scrape, so that they are
//! always right.

mod cluster;
mod pending;

use std::collections::HashMap;
use std::sync::Arc;

use kerf::request::BrokenRule;
use kerf::unfit::Unfit;
use kerf_runtime::about::About;
use prometheus::core::{Collector, Desc};
use prometheus::{
    HistogramOpts, HistogramTimer, HistogramVec, IntCounter, IntCounterVec, Opts, PullingGauge, Registry,
};

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::decisions::Refusals;
use crate::verb::{BindOutcome, Outcome, Verb};
use cluster::ClusterCollector;
pub(crate) use cluster::cards;
pub(crate) use pending::pending;

/// The gauge of how old the watches' news is.
pub const WATCH_AGE: &str = "kerf_extender_watch_age_seconds";

/// Name and help of the gauge of whether this replica is the one in use.
const ACTIVE: (&str, &str) = (
    "kerf_extender_active",
    "1 where the scheduler of this pod holds the lease, so that this extender is in use; only with --scheduler-lease",
);

/// The gauge of whether this replica is the one in use.
pub(crate) fn active(is_active: impl Fn() -> bool + Send + Sync + 'static) -> prometheus::Result<PullingGauge> {
    PullingGauge::new(ACTIVE.0, ACTIVE.1, Box::new(move || f64::from(u8::from(is_active()))))
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
    /// Candidates for preemption that there was no time for.
    pub preempt_skipped: IntCounter,
    /// Calls of preempt before disruption budgets were known.
    pub without_budgets: IntCounter,
    /// Bindings with an unknown outcome that turned out not to be written.
    pub expired: IntCounter,
    /// Lists and watches that failed, by kind of object.
    pub watch_failures: IntCounterVec,
    /// Writes that make kube-scheduler try waiting pods again.
    pub retries: IntCounter,
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// Where a name is taken or invalid.
    pub fn new(registry: &Registry, cluster: Arc<Cluster>, clock: Arc<Clock>) -> prometheus::Result<Self> {
        // from a tenth of the target for 500 names to the scheduler's own time-out
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
            preempt_skipped: counter(
                "preempt_skipped_total",
                "Candidates for preemption that there was no time for",
            )?,
            without_budgets: counter(
                "preempt_without_budgets_total",
                "Calls of preempt while disruption budgets were not known",
            )?,
            expired: counter("expired_total", "Bindings in doubt that turned out not to be written")?,
            watch_failures: counters(
                "watch_failures_total",
                "Lists and watches that failed or fell silent, by kind of object",
                &["kind"],
            )?,
            retries: counter("retries_total", "Times that kube-scheduler was told to try waiting pods again")?,
        };
        metrics.begin_at_zero();
        for collector in metrics.collectors() {
            registry.register(collector)?;
        }
        registry.register(Box::new(ClusterCollector::new(cluster, clock)?))?;
        registry.register(Box::new(About::new("kerf-extender")?))?;
        Ok(metrics)
    }

    /// An alert needs the series before the first event.
    fn begin_at_zero(&self) {
        for reason in Unfit::ALL {
            self.unfit.with_label_values(&[reason.as_str()]);
        }
        for outcome in BindOutcome::ALL {
            self.binds.with_label_values(&[outcome.as_str()]);
        }
        for rule in BrokenRule::ALL {
            self.invalid.with_label_values(&[rule.as_str()]);
        }
        for verb in Verb::ALL {
            self.duration.with_label_values(&[verb.as_str()]);
            for outcome in Outcome::ALL {
                self.answers.with_label_values(&[verb.as_str(), outcome.as_str()]);
            }
        }
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let counters = [&self.answers, &self.unfit, &self.binds, &self.invalid, &self.watch_failures];
        let single = [
            &self.preempt_skipped,
            &self.without_budgets,
            &self.drift,
            &self.unreadable,
            &self.expired,
            &self.retries,
        ];
        let mut all: Vec<Box<dyn Collector>> = vec![Box::new(self.duration.clone())];
        all.extend(counters.map(|counters| Box::new(counters.clone()) as Box<dyn Collector>));
        all.extend(single.map(|counter| Box::new(counter.clone()) as Box<dyn Collector>));
        all
    }

    /// Names, help and labels of all metrics of the extender, for the reference in `docs`.
    ///
    /// # Errors
    /// Where a name is invalid.
    pub fn descs(&self) -> prometheus::Result<Vec<Desc>> {
        let collectors = self.collectors();
        let kept = collectors.iter().flat_map(|collector| collector.desc()).cloned();
        let active = Desc::new(ACTIVE.0.to_owned(), ACTIVE.1.to_owned(), Vec::new(), HashMap::new())?;
        Ok(kept.chain(cluster::descs()?).chain(pending::descs()?).chain([active]).collect())
    }

    /// Times one call, until dropped.
    pub(crate) fn timer(&self, verb: Verb) -> HistogramTimer {
        self.duration.with_label_values(&[verb.as_str()]).start_timer()
    }

    pub(crate) fn answered(&self, verb: Verb, outcome: Outcome) {
        self.answers.with_label_values(&[verb.as_str(), outcome.as_str()]).inc();
    }

    pub(crate) fn unfit(&self, refusals: &Refusals) {
        for (reason, count) in refusals.iter() {
            self.unfit.with_label_values(&[reason.as_str()]).inc_by(count.into());
        }
    }

    pub(crate) fn bound(&self, outcome: BindOutcome) {
        self.binds.with_label_values(&[outcome.as_str()]).inc();
    }
}
