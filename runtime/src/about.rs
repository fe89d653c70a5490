//! What a program says of itself among its metrics: its version, and since when it runs.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, Opts};

/// `kerf_build_info` and `process_start_time_seconds`.
pub struct About {
    build: GaugeVec,
    start: Gauge,
}

impl About {
    /// For a program that starts now.
    ///
    /// # Errors
    /// Where a name is invalid.
    pub fn new(program: &str) -> prometheus::Result<Self> {
        let build = Opts::new("kerf_build_info", "1, with the program and its version.");
        let build = GaugeVec::new(build, &["program", "version"])?;
        build.with_label_values(&[program, env!("CARGO_PKG_VERSION")]).set(1.0);
        // the name that Prometheus' own clients have for it
        let start = Gauge::new("process_start_time_seconds", "Time at which the program started, since 1970.")?;
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        Ok(Self { build, start })
    }
}

impl Collector for About {
    fn desc(&self) -> Vec<&Desc> {
        self.build.desc().into_iter().chain(self.start.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.build.collect().into_iter().chain(self.start.collect()).collect()
    }
}
