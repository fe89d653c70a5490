//! Helpers that build gauges.

use prometheus::{GaugeVec, Opts};

pub(super) type Family = Vec<GaugeVec>;

pub(super) fn gauge(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
    GaugeVec::new(Opts::new(name, help), labels)
}

/// For metrics only: below 2^53 an `f64` holds every count of bytes exactly.
#[allow(clippy::cast_precision_loss, reason = "below 2^53")]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}
