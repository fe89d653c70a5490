//! The isolation that a pod demands and gets, and the reports when it uses more: from the scheduler's request to the
//! container's files, and back from the host's view.

use std::fmt::Write as _;
use std::sync::Arc;

use kerf::annotation::Keys;
use kerf_limiter_contract::path;
use serde_json::Value;

use kerf_system::stack::{MachineSpec, PATIENCE, Stack, StackConfig};
use kerf_system::workload::{container, pod};

/// `with` has the limiter, `without` has not, and is the larger, empty machine.
async fn stack() -> Stack {
    let with = MachineSpec::equal("with", 1, "Simulated", 16_384);
    let without = MachineSpec { limiter: false, ..MachineSpec::equal("without", 4, "Simulated", 16_384) };
    Stack::start(&[with, without], StackConfig::default()).await.expect("start")
}

fn demanding(name: &str, isolation: &str, core: &str) -> Value {
    let mut pod = pod(name, vec![], vec![container("main", core, "8")]);
    pod["metadata"]["annotations"] = serde_json::json!({ Keys::default().isolation: isolation });
    pod
}

async fn until_found<T>(stack: &Stack, resource: &str, find: impl Fn(&Value) -> Option<T>) -> T {
    let found = |objects: &[Arc<Value>]| objects.iter().find_map(|object| find(object));
    stack.api.wait_for(resource, PATIENCE, found).await.expect("found in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_demand_for_isolation_decides_the_node_or_keeps_the_pod_waiting() {
    let stack = stack().await;
    for number in 0..4 {
        stack.submit(demanding(&format!("held-{number}"), "limiter", "20")).expect("pod");
    }
    stack.until_running(4).await.expect("all run");
    // the record is written after the start
    let recorded =
        |pod: &Value| pod["metadata"]["annotations"][Keys::default().isolated.as_str()] == r#"{"main":"limiter"}"#;
    let all =
        |pods: &[Arc<Value>]| (pods.len() == 4 && pods.iter().all(|pod| recorded(pod))).then(|| pods.to_vec());
    let pods = stack.api.wait_for("pods", PATIENCE, all).await.expect("all recorded");
    assert!(pods.iter().all(|pod| pod["spec"]["nodeName"] == "with"));
    // compute is left on both machines; neither has the demanded isolation
    stack.submit(demanding("beyond", "driver", "10")).expect("pod");
    stack.submit(demanding("wrong", "mig", "10")).expect("pod");
    for (name, reason) in [
        ("beyond", "no GPU of the node has the isolation that the pod demands"),
        ("wrong", "annotation isolation: mig is for whole GPUs"),
    ] {
        let waits = |pod: &Value| {
            let own = pod["metadata"]["name"] == name;
            let conditions = pod["status"]["conditions"].as_array().filter(|_| own)?;
            let said = |condition: &&Value| condition["message"].as_str().is_some_and(|text| text.contains(reason));
            conditions.iter().find(said).map(drop)
        };
        until_found(&stack, "pods", waits).await;
    }
    // a whole GPU is not shared, so any GPU will do
    stack.submit(demanding("whole", "mig", "100")).expect("pod");
    stack.until_running(5).await.expect("the whole card too");
    stack.shutdown().await.expect("clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_breach_is_heard_by_the_pods_owner_and_by_prometheus() {
    let stack = stack().await;
    stack.submit(demanding("greedy", "limiter", "20")).expect("pod");
    stack.until_running(1).await.expect("it runs");
    let machine = &stack.machines["with"];
    let given = machine.kubelet.container("default", "greedy", "main").expect("kubelet has it");
    let mounted: Vec<&str> = given.mounts.iter().map(|mount| mount.container_path.as_str()).collect();
    for inside in [path::HOST_DIRECTORY, path::STATE, path::LIBRARY, path::PRELOAD] {
        assert!(mounted.contains(&inside), "{mounted:?}");
    }
    let mut cards = std::fs::read_to_string(&machine.cards).expect("cards");
    let process = "gpu = \"GPU-with-0\"\nmemory_mib = 9000\npod = \"default/greedy\"\ncontainer = \"main\"";
    write!(cards, "\n[[process]]\npid = {}\n{process}\n", std::process::id()).expect("text");
    std::fs::write(&machine.cards, cards).expect("cards");
    for reason in ["GPUMemoryAboveShare", "GPULimiterNotLoaded"] {
        let of_pod = |event: &Value| {
            let own = event["reason"] == reason && event["involvedObject"]["name"] == "greedy";
            (own && event["source"]["host"] == "with").then_some(())
        };
        until_found(&stack, "events", of_pod).await;
    }
    let metrics = reqwest::get(format!("http://{}/metrics", machine.listening.metrics)).await.expect("metrics");
    let metrics = metrics.text().await.expect("text");
    for line in
        [r#"kerf_plugin_breaches_total{kind="memory"} 1"#, r#"kerf_plugin_breaches_total{kind="unlimited"} 1"#]
    {
        assert!(metrics.contains(line), "{line}");
    }
    stack.shutdown().await.expect("clean end");
}
