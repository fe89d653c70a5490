//! The objects of a large cluster.

use kerf::annotation::{self, Keys};

use kerf::plan::{ContainerGrant, DeviceRef, Grant, Placement, Plan};
use kerf::request::ContainerKind;
use kerf::units::Share;
use serde_json::{Value, json};

/// Memory of each GPU: 60 units.
const MEMORY_MIB: u64 = 15_360;

fn uuid(node: usize, card: u32) -> String {
    format!("GPU-{node:08x}-0000-4000-8000-{card:012x}")
}

fn name(node: usize) -> String {
    format!("gpu-node-{node:05}.cluster.example")
}

/// A node with an inventory of linked GPUs and the usual annotations and labels.
pub fn node(number: usize, cards: u32) -> Value {
    node_of(number, &vec![MEMORY_MIB / 256; cards as usize])
}

/// The same with one GPU for each of `units`, of that much memory.
pub fn node_of(number: usize, units: &[u64]) -> Value {
    let keys = Keys::default();
    let cards = u32::try_from(units.len()).unwrap_or_default();
    let gpus: Vec<Value> = (0..)
        .zip(units)
        .map(|(index, units): (u32, &u64)| {
            let links: serde_json::Map<String, Value> = (0..cards)
                .filter(|peer| *peer != index)
                .map(|peer| (peer.to_string(), if peer / 4 == index / 4 { "NV4" } else { "SYS" }.into()))
                .collect();
            json!({ "uuid": uuid(number, index), "index": index, "model": "NVIDIA Tesla V100-SXM2-16GB",
                    "memory_mib": units * 256, "numa": index / 4, "health": "healthy", "links": links })
        })
        .collect();
    let amounts = json!({ "cpu": "96", "memory": "768Gi", "pods": "110",
        &keys.core: (cards * 100).to_string(), &keys.memory: units.iter().sum::<u64>().to_string() });
    json!({
        "metadata": { "name": name(number),
            "labels": { "kubernetes.io/hostname": name(number), "kubernetes.io/arch": "amd64",
                        "topology.kubernetes.io/zone": format!("zone-{}", number % 3) },
            "annotations": { &keys.inventory: json!({ "version": 1, "gpus": gpus }).to_string() } },
        "status": { "capacity": amounts, "allocatable": amounts,
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
            "images": (0..20).map(|i| json!({ "names": [format!("registry.example/team/image-{i}:v1")], "sizeBytes": 1 << 28 })).collect::<Vec<_>>() },
    })
}

/// A running pod with its placement: shares of several sizes, spread over all nodes and GPUs.
pub fn placed_pod(number: usize, nodes: usize) -> Value {
    let (node, round) = (number % nodes, number / nodes);
    let card = u32::try_from((round * 3 + node) % 8).unwrap_or_default();
    let core = [20u32, 30, 50, 60][(number / 7) % 4];
    placed_on(number, node, card, core, u64::from(core / 2))
}

/// A running pod with a share of this GPU.
pub fn placed_on(number: usize, node: usize, card: u32, core: u32, memory: u64) -> Value {
    let keys = Keys::default();
    let share = Share::new(core * 10, memory * 256);
    let gpus = Grant::Share { device: DeviceRef { id: uuid(node, card).into(), index: card }, share };
    let grant = ContainerGrant { container: "main".into(), kind: ContainerKind::App, position: 0, gpus };
    let placement =
        Placement::new(name(node), 1_700_000_000_000_000_000 + number as u64, Plan { grants: vec![grant] });
    let mut pod = pending_pod(&format!("placed-{number:05}"), &core.to_string(), &memory.to_string());
    let mut annotations = annotation::write(&placement, &keys);
    annotations.insert(keys.gpu_assigned, "true".into());
    pod["metadata"]["annotations"] = json!(annotations);
    pod["spec"]["nodeName"] = name(node).into();
    pod["status"] = json!({ "phase": "Running" });
    pod
}

/// A pod that waits for a node.
pub fn pending_pod(name: &str, core: &str, memory: &str) -> Value {
    let keys = Keys::default();
    let mut limits = json!({ "cpu": "4", "memory": "16Gi", &keys.core: core });
    if !memory.is_empty() {
        limits[&keys.memory] = memory.into();
    }
    json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": { "app": "bench" } },
        "spec": { "containers": [{ "name": "main", "image": "registry.example/team/train:v1",
            "command": ["python", "train.py"], "resources": { "limits": limits, "requests": limits } }] },
        "status": { "phase": "Pending" },
    })
}
