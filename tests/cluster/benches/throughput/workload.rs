//! The pods that are created.

use serde_json::{Value, json};

use kerf_bench_support::objects::pending_pod;

use crate::setup::UnknownWord;

kerf::words! {
    /// The nodes and the pods.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Workload or UnknownWord {
        /// 2,000 pods, mostly of shares, on nodes of eight free GPUs.
        Mixed = "mixed",
        /// Pods of one whole GPU each, half as many as there is room for: on the nodes that come last, one in fifty, both GPUs are free;
        /// on all others each of both has a share, so that their totals have room and no GPU has.
        Scarce = "scarce",
    }
}

impl Workload {
    /// The name of its table.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Mixed => "throughput",
            Self::Scarce => "scarce",
        }
    }

    /// GPUs of a node.
    pub const fn cards(self) -> u32 {
        match self {
            Self::Mixed => 8,
            Self::Scarce => 2,
        }
    }

    /// How many of so many nodes are there from the beginning, and have no GPU free where there are occupants.
    pub const fn occupied(self, nodes: usize) -> usize {
        match self {
            Self::Mixed => nodes,
            Self::Scarce => nodes - nodes.div_ceil(50),
        }
    }

    /// Pods that are there before.
    pub const fn occupants(self, nodes: usize) -> usize {
        match self {
            Self::Mixed => 0,
            Self::Scarce => 2 * self.occupied(nodes),
        }
    }

    /// The pods that are measured. `few`: so many that it takes no time.
    pub const fn pods(self, nodes: usize, few: bool) -> usize {
        match self {
            Self::Mixed if few => 60,
            Self::Mixed => 2_000,
            Self::Scarce => nodes - self.occupied(nodes),
        }
    }

    pub fn pod(self, number: usize) -> Value {
        let (core, memory) = match self {
            Self::Mixed => SHAPES[number % SHAPES.len()],
            Self::Scarce => ("100", ""),
        };
        pod(&format!("bench-{number:05}"), core, memory)
    }
}

/// Requests of the pods, in turns: `vcuda-core` and `vcuda-memory`. Mostly shares, some whole GPUs.
const SHAPES: [(&str, &str); 10] = [
    ("50", "20"),
    ("25", "10"),
    ("30", "30"),
    ("100", ""),
    ("60", "20"),
    ("20", "15"),
    ("50", "30"),
    ("200", ""),
    ("10", "5"),
    ("75", "40"),
];

/// Label of the pods that are measured.
pub const LABEL: &str = "app=bench";
/// Label of those before.
pub const OCCUPANT: &str = "app=occupant";

/// Half of a GPU, and more than half of its memory.
pub fn occupant(number: usize) -> Value {
    let mut pod = pod(&format!("occupant-{number:05}"), "50", "31");
    pod["metadata"]["labels"]["app"] = json!("occupant");
    pod
}

fn pod(name: &str, core: &str, memory: &str) -> Value {
    let mut pod = pending_pod(name, core, memory);
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    // the API server sets the uid, and no token is mounted
    pod["metadata"].as_object_mut().map(|meta| meta.remove("uid"));
    pod["spec"]["automountServiceAccountToken"] = json!(false);
    // not every pod fits into a GPU's memory when many ask for host memory as well
    for kind in ["limits", "requests"] {
        pod["spec"]["containers"][0]["resources"][kind]["cpu"] = json!("2");
        pod["spec"]["containers"][0]["resources"][kind]["memory"] = json!("8Gi");
    }
    pod
}
