//! Pods of all shapes that a bug could confuse.

use kerf::annotation::Keys;
use serde_json::{Value, json};

/// A container with these amounts; an empty `memory` is left out.
pub fn container(name: &str, core: &str, memory: &str) -> Value {
    let keys = Keys::default();
    let mut limits = json!({ &keys.core: core });
    if !memory.is_empty() {
        limits[&keys.memory] = memory.into();
    }
    json!({ "name": name, "image": "example/none", "resources": { "limits": limits, "requests": limits } })
}

/// A pod with these init containers and containers.
pub fn pod(name: &str, inits: Vec<Value>, containers: Vec<Value>) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "initContainers": inits, "containers": containers },
        "status": { "phase": "Pending" },
    })
}

/// Pod `number` of a sequence that mixes equal pods, pods that differ in one resource only, several containers, init
/// containers, sidecars and whole GPUs.
pub fn mixed(number: usize) -> Value {
    let name = format!("mixed-{number:03}");
    let sidecar = |core, memory| {
        let mut container = container("side", core, memory);
        container["restartPolicy"] = "Always".into();
        container
    };
    let (inits, apps) = match number % 10 {
        0 | 1 => (vec![], vec![container("main", "20", "8")]),
        2 => (vec![], vec![container("main", "20", "4")]),
        3 => (vec![], vec![container("main", "10", "8")]),
        4 => (vec![], vec![container("one", "20", "8"), container("two", "10", "4")]),
        5 => (vec![container("init", "30", "8")], vec![container("main", "20", "8")]),
        6 => (vec![sidecar("10", "2")], vec![container("main", "20", "8")]),
        7 => (vec![container("init", "10", "2")], vec![container("one", "20", "4"), container("two", "20", "4")]),
        8 => (vec![], vec![container("main", "100", "")]),
        _ => (vec![], vec![json!({ "name": "plain", "image": "example/none" }), container("main", "20", "8")]),
    };
    pod(&name, inits, apps)
}
