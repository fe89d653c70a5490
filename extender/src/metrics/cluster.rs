//! The ledgers as gauges, read at scrape.

use std::collections::HashMap;
use std::sync::Arc;

use kerf::device::Health;
use kerf::ledger::{Basis, State};
use kerf_runtime::series::GaugeTable;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

use crate::clock::Clock;
use crate::cluster::Cluster;

/// Name and help of the gauges of a card.
const GPU: [(&str, &str); 11] = [
    ("kerf_extender_gpu_usable", "1 where the GPU takes new pods: healthy, not cordoned, and listed by its node"),
    ("kerf_extender_gpu_healthy", "1 where the node reports the GPU as healthy"),
    ("kerf_extender_gpu_cordoned", "1 where an administrator has taken the GPU out of service"),
    ("kerf_extender_gpu_compute_capacity_ratio", "Compute of the GPU; 1 is one GPU"),
    ("kerf_extender_gpu_compute_committed_ratio", "Compute that pods hold"),
    ("kerf_extender_gpu_compute_free_ratio", "Largest share of compute that a new pod can have"),
    ("kerf_extender_gpu_memory_capacity_bytes", "Memory of the GPU"),
    ("kerf_extender_gpu_memory_committed_bytes", "Memory that pods hold"),
    ("kerf_extender_gpu_memory_free_bytes", "Largest share of memory that a new pod can have"),
    ("kerf_extender_gpu_pods", "Pods that hold a part of the GPU"),
    ("kerf_extender_gpu_overcommitted", "1 where pods hold more than the GPU has"),
];
const GPU_LABELS: [&str; 4] = ["gpu", "index", "model", "node"];

/// Name and help of the gauges of a card's offers.
const SHARES: [(&str, &str); 2] = [
    ("kerf_extender_gpu_shares", "Shares by count that the GPU is offered as"),
    ("kerf_extender_gpu_shares_free", "Shares by count of the GPU that a new pod can have"),
];
const SHARES_LABELS: [&str; 3] = ["gpu", "node", "resource"];

/// Name and help of the gauge of a node with cards.
const NODE: [(&str, &str); 1] = [(
    "kerf_extender_pods_unconfirmed",
    "Pods bound to the node with a placement that the node has not confirmed: its plugin has not given them their GPUs yet",
)];

/// What describes these gauges.
pub(super) fn described(gauges: &[(&str, &str)], labels: &[&str]) -> prometheus::Result<Vec<Desc>> {
    let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    let desc = |(name, help): &(&str, &str)| {
        Desc::new((*name).to_owned(), (*help).to_owned(), labels.clone(), HashMap::new())
    };
    gauges.iter().map(desc).collect()
}

pub(super) fn descs() -> prometheus::Result<Vec<Desc>> {
    let mut descs = described(&GPU, &GPU_LABELS)?;
    descs.extend(described(&SHARES, &SHARES_LABELS)?);
    descs.extend(described(&NODE, &["node"])?);
    descs.extend(Gauges::new()?.descs());
    Ok(descs)
}

/// The series of every card of the cluster.
#[allow(clippy::cast_precision_loss, reason = "Prometheus has floats; bytes of a card are far below 2^53")]
pub(crate) fn cards(cluster: &Cluster) -> impl Iterator<Item = String> + Send + use<> {
    let mut table = GaugeTable::new(GPU);
    let mut shares = GaugeTable::new(SHARES);
    let mut nodes = GaugeTable::new(NODE);
    cluster.each_node(|node, ledger| {
        let unconfirmed = ledger.commitments().values().filter(|known| known.unconfirmed()).count();
        if unconfirmed > 0 || !ledger.cards().is_empty() {
            nodes.row([("node", node.as_str())], [unconfirmed as f64]);
        }
        for card in ledger.cards() {
            let device = card.device();
            for (resource, offered) in card.offered() {
                let values = [device.id.as_str(), node.as_str(), resource.as_str()];
                shares.row(
                    SHARES_LABELS.into_iter().zip(values),
                    [f64::from(offered.per_gpu), f64::from(offered.free)],
                );
            }
            let index = device.index.to_string();
            let (capacity, used, free) = (device.capacity(), card.used(), card.free());
            table.row(
                GPU_LABELS.into_iter().zip([device.id.as_str(), &index, &device.model, node.as_str()]),
                [
                    f64::from(u8::from(card.usable())),
                    f64::from(u8::from(device.health == Health::Healthy)),
                    f64::from(u8::from(device.cordoned)),
                    capacity.compute.ratio(),
                    used.compute.ratio(),
                    free.compute.ratio(),
                    capacity.memory.bytes() as f64,
                    used.memory.bytes() as f64,
                    free.memory.bytes() as f64,
                    f64::from(card.pods()),
                    f64::from(u8::from(card.overcommitted())),
                ],
            );
        }
    });
    table.into_text().chain(shares.into_text()).chain(nodes.into_text())
}

pub(super) struct ClusterCollector {
    cluster: Arc<Cluster>,
    clock: Arc<Clock>,
    descs: Vec<Desc>,
}

struct Gauges {
    commitments: GaugeVec,
    counted: GaugeVec,
    in_doubt: GaugeVec,
    nodes: GaugeVec,
}

impl Gauges {
    fn new() -> prometheus::Result<Self> {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            GaugeVec::new(Opts::new(format!("kerf_extender_{name}"), help), labels)
        };
        Ok(Self {
            commitments: gauges("commitments", "Pods that hold GPUs, by state", &["state"])?,
            counted: gauges(
                "pods_counted",
                "Pods that hold GPUs, by what they are counted: their record, their amounts on every GPU, or everything",
                &["by"],
            )?,
            in_doubt: gauges("binds_in_doubt", "Bindings whose outcome is overdue", &[])?,
            nodes: gauges("nodes", "Nodes known, with and without GPUs", &[])?,
        })
    }

    fn descs(&self) -> Vec<Desc> {
        self.all().into_iter().flat_map(Collector::desc).cloned().collect()
    }

    fn all(&self) -> [&GaugeVec; 4] {
        [&self.commitments, &self.counted, &self.in_doubt, &self.nodes]
    }
}

impl ClusterCollector {
    pub(super) fn new(cluster: Arc<Cluster>, clock: Arc<Clock>) -> prometheus::Result<Self> {
        Ok(Self { cluster, clock, descs: Gauges::new()?.descs() })
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
        gauges.nodes.with_label_values::<&str>(&[]).set(0.0);
        for word in State::WORDS {
            gauges.commitments.with_label_values(&[word]).set(0.0);
        }
        for basis in Basis::ALL {
            gauges.counted.with_label_values(&[basis.as_str()]).set(0.0);
        }
        self.cluster.each_node(|_, ledger| {
            gauges.nodes.with_label_values::<&str>(&[]).inc();
            for commitment in ledger.commitments().values().filter(|known| ledger.concerns(known)) {
                gauges.commitments.with_label_values(&[commitment.state.as_str()]).inc();
                gauges.counted.with_label_values(&[commitment.basis().as_str()]).inc();
                if commitment.state.overdue(now) {
                    gauges.in_doubt.with_label_values::<&str>(&[]).inc();
                }
            }
        });
        let families = gauges.all().into_iter().flat_map(Collector::collect);
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }
}
