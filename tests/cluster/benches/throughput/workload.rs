//! The pods that are created.

use serde_json::{Value, json};

use kerf_bench_support::objects::pending_pod;

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

/// Label of all the pods.
pub const LABEL: &str = "app=bench";

pub fn pod(number: usize) -> Value {
    let (core, memory) = SHAPES[number % SHAPES.len()];
    let mut pod = pending_pod(&format!("bench-{number:05}"), core, memory);
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
