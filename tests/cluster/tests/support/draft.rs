//! Pods that tests create.

use serde_json::{Value, json};

/// Prints what the container was given, then waits for SIGTERM.
const PROBE: &str = "kerf-probe; trap exit TERM; sleep 2147483647 & wait";

/// A pod under construction.
#[derive(Clone, Debug)]
pub struct Draft {
    pub name: String,
    value: Value,
}

/// A pod without containers so far.
pub fn pod(name: impl Into<String>) -> Draft {
    let name = name.into();
    let value = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "annotations": {} },
        "spec": {
            "terminationGracePeriodSeconds": 2, "automountServiceAccountToken": false,
            "enableServiceLinks": false, "initContainers": [], "containers": [],
        },
    });
    Draft { name, value }
}

fn container(name: &str, core: u32, memory: u32, script: &str) -> Value {
    let mut limits = serde_json::Map::new();
    for (resource, amount) in [("inspur.com/vcuda-core", core), ("inspur.com/vcuda-memory", memory)] {
        if amount > 0 {
            limits.insert(resource.to_owned(), amount.into());
        }
    }
    json!({
        "name": name, "image": "busybox:1.37", "imagePullPolicy": "Never", "command": ["sh", "-c", script],
        "resources": { "limits": limits },
    })
}

impl Draft {
    fn push(mut self, list: &str, container: Value) -> Self {
        if let Some(list) = self.value["spec"][list].as_array_mut() {
            list.push(container);
        }
        self
    }

    /// Adds a container that runs until SIGTERM. An amount of zero is not requested.
    pub fn app(self, name: &str, core: u32, memory: u32) -> Self {
        self.push("containers", container(name, core, memory, PROBE))
    }

    /// Adds a container that runs a script.
    pub fn runs(self, name: &str, core: u32, memory: u32, script: &str) -> Self {
        self.push("containers", container(name, core, memory, script))
    }

    /// Adds a limit to the last container.
    pub fn asks(mut self, resource: &str, amount: u64) -> Self {
        let containers = self.value["spec"]["containers"].as_array_mut();
        if let Some(container) = containers.and_then(|containers| containers.last_mut()) {
            container["resources"]["limits"][resource] = amount.into();
        }
        self
    }

    /// Sets the environment of the last container.
    pub fn env(mut self, env: &Value) -> Self {
        let containers = self.value["spec"]["containers"].as_array_mut();
        if let Some(container) = containers.and_then(|containers| containers.last_mut()) {
            container["env"] = env.clone();
        }
        self
    }

    /// Adds an ordinary init container, which ends at once.
    pub fn init(self, name: &str, core: u32, memory: u32) -> Self {
        self.push("initContainers", container(name, core, memory, "kerf-probe"))
    }

    /// Adds an init container that runs as long as the pod.
    pub fn sidecar(self, name: &str, core: u32, memory: u32) -> Self {
        let mut value = container(name, core, memory, PROBE);
        value["restartPolicy"] = "Always".into();
        self.push("initContainers", value)
    }

    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.value["metadata"]["annotations"][key] = value.into();
        self
    }

    /// Sets a field of the spec.
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.value["spec"][field] = value.into();
        self
    }

    /// The same pod under another name.
    pub fn named(&self, name: &str) -> Self {
        let mut value = self.value.clone();
        value["metadata"]["name"] = name.into();
        Self { name: name.to_owned(), value }
    }

    /// Restricts the pod to one node.
    pub fn on(self, node: &str) -> Self {
        self.with("nodeSelector", json!({ "kubernetes.io/hostname": node }))
    }

    /// The object as JSON.
    pub fn value(&self) -> &Value {
        &self.value
    }
}

/// `count` pods of all shapes, `whole` of them with whole GPUs.
pub fn mixed(count: usize, whole: usize) -> Vec<Draft> {
    (0..count)
        .map(|number| {
            let name = format!("m-{number}");
            if number * whole / count != (number + 1) * whole / count {
                return pod(name).app("main", 100, 0);
            }
            match number % 7 {
                // identical ones
                0..=2 => pod(name).app("main", 10, 6),
                // the same core, other memory
                3 => pod(name).app("main", 10, 9),
                4 => pod(name).app("one", 5, 3).app("two", 8, 4),
                5 => pod(name).init("before", 12, 5).app("main", 8, 4),
                _ => pod(name).sidecar("beside", 4, 2).app("main", 6, 3),
            }
        })
        .collect()
}
