//! The document of a cluster, against a sample: `KERF_WRITE_VIEW=1` writes the sample anew.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use kerf::annotation::Keys;
use kerf_cli::cluster::{Builder, Cluster};
use kerf_cli::view::{ContainerUse, GpuUse, Usage, View};
use serde_json::{Value, json};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/view.json");

fn node(name: &str, inventory: Value, annotations: Value) -> Value {
    let mut all = json!({ "inspur.com/gpu-inventory": inventory.to_string() });
    all.as_object_mut().unwrap().extend(annotations.as_object().unwrap().clone());
    json!({ "metadata": { "name": name, "annotations": all },
        "spec": { "taints": [{ "key": "gpu", "value": "only", "effect": "NoSchedule" }] },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }],
            "allocatable": { "cpu": "8", "memory": "32Gi", "pods": "110" } } })
}

fn gpus(healths: &[&str]) -> Value {
    let gpu = |(index, health): (usize, &&str)| {
        json!({ "uuid": format!("GPU-{index}"), "index": index, "model": "NVIDIA T4", "memory_mib": 15360,
            "numa": 0, "health": health, "isolation": "limiter" })
    };
    json!({ "version": 1, "gpus": healths.iter().enumerate().map(gpu).collect::<Vec<_>>() })
}

fn pod(name: &str, core: u32, memory: u32) -> Value {
    let limits =
        json!({ "inspur.com/vcuda-core": core.to_string(), "inspur.com/vcuda-memory": memory.to_string() });
    json!({ "metadata": { "name": name, "namespace": "team", "uid": format!("uid-{name}"),
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "serve", "uid": "r", "controller": true }] },
        "spec": { "containers": [{ "name": "main", "resources": { "limits": limits } }] },
        "status": { "phase": "Pending" } })
}

/// The pod on GPUs of a node, by the record that gpu-manager wrote.
fn on(mut pod: Value, node: &str, gpus: &str) -> Value {
    pod["spec"]["nodeName"] = node.into();
    pod["metadata"]["annotations"] = json!({ "inspur.com/predicate-gpu-idx-0": gpus,
        "inspur.com/gpu-assigned": "true", "inspur.com/gpu-isolation": "{\"main\":\"limiter\"}" });
    pod["status"]["phase"] = "Running".into();
    pod
}

fn cluster() -> Cluster {
    let mut builder = Builder::new(Keys::default(), Duration::ZERO);
    let ill = gpus(&["healthy", "unhealthy", "healthy"]);
    builder.node(&serde_json::from_value(node("a", ill, json!({ "inspur.com/gpu-cordon": "2" }))).unwrap());
    builder.node(&serde_json::from_value(json!({ "metadata": { "name": "cpu" } })).unwrap());
    let mut waiting = pod("waits", 100, 60);
    waiting["status"]["conditions"] = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/2 nodes are available: 1 insufficient entirely free GPUs.", "lastTransitionTime": "2026-01-02T03:04:06Z" }]);
    let mut lost = on(pod("lost", 20, 4), "a", "0");
    lost["metadata"]["annotations"] = json!({});
    let mut ended = on(pod("ended", 30, 4), "a", "0");
    ended["status"] =
        json!({ "phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "Allocate failed" });
    let plain = json!({ "metadata": { "name": "plain", "namespace": "team" }, "spec": { "containers": [{ "name": "c" }] } });
    for pod in [on(pod("serves", 50, 30), "a", "0"), waiting, lost, ended, pod("wrong", 150, 1), plain] {
        builder.pod(serde_json::from_value(pod).unwrap()).unwrap();
    }
    builder.finish()
}

fn usage() -> Usage {
    let mut usage = Usage::unknown("no plugin was asked");
    let gpu = GpuUse {
        compute: Some(420),
        memory_mib: Some(6000),
        temperature_celsius: Some(61.0),
        power_watts: Some(55.5),
    };
    usage.gpus.insert(("a".into(), "GPU-0".into()), gpu);
    let key = |container: &str, gpu: &str| ("team".into(), "serves".into(), container.into(), gpu.into());
    usage.containers.insert(key("main", "GPU-0"), ContainerUse { compute: Some(100), memory_mib: Some(2000) });
    usage
}

#[test]
fn everything_that_is_known_is_in_the_document() {
    let view = View::of(&cluster(), &usage());
    let text = serde_json::to_string_pretty(&view).unwrap() + "\n";
    if std::env::var_os("KERF_WRITE_VIEW").is_some() {
        std::fs::write(SAMPLE, &text).unwrap();
    }
    let sample = std::fs::read_to_string(SAMPLE).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&sample).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
}

#[test]
fn what_is_not_measured_is_null_and_said() {
    let view = serde_json::to_value(View::of(&cluster(), &Usage::unknown("no right"))).unwrap();
    assert_eq!(view["unmeasured"], json!([{ "node": "a", "why": "no right" }]));
    assert_eq!((&view["totals"]["used"], &view["nodes"][0]["gpus"][0]["used"]), (&Value::Null, &Value::Null));
    assert_eq!(view["pods"][2]["used"], Value::Null);
}

#[test]
fn sums_are_those_of_the_gpus() {
    let view = View::of(&cluster(), &usage());
    let totals = &view.totals;
    assert_eq!((totals.nodes, totals.gpus, totals.usable_gpus), (1, 3, 1));
    assert_eq!((totals.unhealthy_gpus, totals.cordoned_gpus, totals.empty_gpus), (1, 1, 0));
    // two pods on GPU 0; the one without a record counts on every GPU
    assert_eq!((totals.holding_pods, totals.waiting_pods), (2, 2));
    assert_eq!((totals.granted.compute, totals.free.compute), (500 + 3 * 200, 300));
    assert_eq!(totals.largest_free.compute, 300);
    assert_eq!(totals.measured_gpus, 1);
    let holders = &view.nodes[0].gpus[0].holders;
    assert_eq!(
        holders.iter().map(|own| (&*own.pod, own.certain)).collect::<Vec<_>>(),
        [("serves", true), ("lost", false)]
    );
}

#[test]
fn an_empty_cluster_has_a_document() {
    let view = View::of(&Builder::new(Keys::default(), Duration::ZERO).finish(), &Usage::default());
    assert_eq!((view.nodes.len(), view.pods.len(), view.totals.gpus), (0, 0, 0));
}
