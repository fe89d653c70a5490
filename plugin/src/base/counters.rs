//! Counters for Prometheus, incremented as events happen.

use prometheus::{
    IntCounter, IntCounterVec, Registry, register_int_counter_vec_with_registry, register_int_counter_with_registry,
};

/// Clones count together.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Registrations with kubelet, by `resource` and `outcome` (`registered`, `failed`).
    pub registrations: IntCounterVec,
    /// Calls of Allocate, by `resource` and `outcome` (`granted`, `repeated`, or the reason of the refusal).
    pub allocations: IntCounterVec,
    /// Calls of PreStartContainer, by `outcome` (`known`, `adopted`, `unknown`).
    pub starts: IntCounterVec,
    /// Pairs of pods that changed places.
    pub swaps: IntCounter,
    /// Containers that kubelet allocated other GPUs than were recorded.
    pub moves: IntCounter,
    /// Comparisons with kubelet's list that failed.
    pub reconcile_errors: IntCounter,
    /// Questions that a driver did not answer, by `kind` (`unavailable`, `failed`, `slow`).
    pub backend_errors: IntCounterVec,
    /// Breaches that the watchdog saw begin, by `kind`.
    pub breaches: IntCounterVec,
    /// Calls to the API server that failed, by `call` (`watch`, `list`, `pod`, `node`, `event`).
    pub api_errors: IntCounterVec,
}

impl Counters {
    /// # Errors
    /// Where a name is already registered.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let vec = |name: &str, help: &str, labels: &[&str]| {
            register_int_counter_vec_with_registry!(format!("kerf_plugin_{name}"), help, labels, registry)
        };
        let one = |name: &str, help: &str| {
            register_int_counter_with_registry!(format!("kerf_plugin_{name}"), help, registry)
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
        // an alert needs the series before the first event
        for call in ["watch", "list", "pod", "node", "event"] {
            counters.api_errors.with_label_values(&[call]);
        }
        for kind in ["unavailable", "failed", "slow"] {
            counters.backend_errors.with_label_values(&[kind]);
        }
        for outcome in ["known", "adopted", "unknown"] {
            counters.starts.with_label_values(&[outcome]);
        }
        Ok(counters)
    }

    /// A resource is offered: its series begin at zero. `refusals`: why a call of Allocate for it can be refused.
    pub fn offered(&self, resource: &str, refusals: impl Iterator<Item = &'static str>) {
        let begin =
            |counters: &IntCounterVec, outcome| drop(counters.get_metric_with_label_values(&[resource, outcome]));
        for outcome in ["registered", "failed"] {
            begin(&self.registrations, outcome);
        }
        for outcome in ["granted", "repeated"].into_iter().chain(refusals) {
            begin(&self.allocations, outcome);
        }
    }
}
