//! One series for each GPU that is not offered and each reason.

use kerf::ids::NodeName;
use prometheus::GaugeVec;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::publish::metrics::gauge::gauge;
use crate::state::left_out::LeftOut;

/// Computed from the last discovery of each profile when scraped.
pub struct LeftOutGauge {
    left_out: LeftOut,
    node: NodeName,
    descs: Vec<Desc>,
}

impl LeftOutGauge {
    /// # Errors
    /// Where a name or label is not legal.
    pub fn new(left_out: LeftOut, node: NodeName) -> prometheus::Result<Self> {
        let descs = blank()?.desc().into_iter().cloned().collect();
        Ok(Self { left_out, node, descs })
    }
}

fn blank() -> prometheus::Result<GaugeVec> {
    gauge(
        "kerf_plugin_gpu_left_out",
        "1 for each GPU of this machine that the profile does not offer, with the reason; kerf-plugin doctor says more.",
        &["node", "profile", "gpu", "reason"],
    )
}

impl Collector for LeftOutGauge {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // its name and labels were legal at the start
        let Ok(gauge) = blank() else { return Vec::new() };
        for (profile, remark) in self.left_out.all() {
            gauge.with_label_values(&[self.node.as_str(), profile, &remark.subject, remark.why.code()]).set(1.0);
        }
        gauge.collect()
    }
}
