//! Programs that end and return in the middle of a burst.

use std::sync::Arc;

use kerf::annotation::Keys;
use serde_json::Value;

use crate::burst::{machines, settled};
use kerf_system::stack::{PATIENCE, Stack, StackConfig};
use kerf_system::workload::{container, mixed, pod};

/// Waits until `count` pods have a node.
async fn until_bound(stack: &Stack, count: usize) {
    let bound = |pods: &[Arc<Value>]| {
        (pods.iter().filter(|pod| pod["spec"]["nodeName"].is_string()).count() >= count).then_some(())
    };
    stack.api.wait_for("pods", PATIENCE, bound).await.expect("pods are bound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_extender_killed_in_a_burst_places_every_pod_once() {
    let mut stack = Stack::start(&machines(10, 8), StackConfig { seed: 3, batching: false, ..Default::default() })
        .await
        .expect("start");
    for number in 0..200 {
        stack.submit(mixed(number)).expect("pod");
    }
    for bound in [1, 40, 41, 90, 150] {
        until_bound(&stack, bound).await;
        stack.restart_extender().await.expect("extender returns");
    }
    settled(&stack, 200).await;
    let keys = Keys::default();
    let writes = stack.api.write_log();
    let bindings = writes.iter().filter(|w| w.resource == "pods/binding" && (200..300).contains(&w.code)).count();
    assert_eq!(bindings, 200, "each pod was bound once");
    let pods = stack.api.list("pods").expect("pods");
    assert!(pods.iter().all(|pod| pod["metadata"]["annotations"].get(&keys.placement).is_some()));
    stack.shutdown().await.expect("clean end");
}

/// kubelet fails pods that it admits while their plugin is away or returns, and never tries them again: replaces them
/// as a Deployment would. Panics if a pod failed for another reason.
async fn replace_failed(stack: &Stack, pods: usize) {
    let settled = |pods: &[Arc<Value>]| {
        let phase = |pod: &Value| pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
        let done = pods.iter().all(|pod| matches!(phase(pod).as_str(), "Running" | "Failed"));
        done.then(|| pods.iter().filter(|pod| phase(pod) == "Failed").cloned().collect::<Vec<_>>())
    };
    let failed = stack.api.wait_for("pods", PATIENCE, settled).await.expect("every pod runs or has failed");
    assert!(failed.len() < pods / 4, "few come in that moment");
    for old in failed {
        assert_eq!(old["status"]["reason"], "UnexpectedAdmissionError", "{old}");
        let message = old["status"]["message"].as_str().expect("message");
        // the connection was cut, or there was none
        let cut = [
            "code = Unavailable",
            "code = Internal desc = h2",
            "code = Canceled",
            "code = Cancelled",
            "code = Unknown desc = transport",
        ];
        let away = ["no healthy devices present"];
        assert!(cut.iter().chain(&away).any(|word| message.contains(word)), "{message}");
        let name = old["metadata"]["name"].as_str().expect("name");
        stack.api.force_delete("pods", "default", name).expect("deleted");
        let mut new = pod(&format!("{name}-again"), vec![], vec![]);
        new["spec"]["initContainers"] = old["spec"]["initContainers"].clone();
        new["spec"]["containers"] = old["spec"]["containers"].clone();
        stack.submit(new).expect("pod");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_plugin_restarted_in_a_burst_loses_nothing() {
    let mut stack = Stack::start(&machines(4, 8), StackConfig { seed: 7, batching: false, ..Default::default() })
        .await
        .expect("start");
    for number in 0..60 {
        stack.submit(mixed(number)).expect("pod");
    }
    until_bound(&stack, 30).await;
    let api = stack.api.clone();
    let machine = stack.machines.get_mut("node-1").expect("machine");
    machine.stop_plugin().await.expect("plugin stops");
    machine.start_plugin(&api, "node-1").await.expect("plugin returns");
    replace_failed(&stack, 60).await;
    settled(&stack, 60).await;
    stack.shutdown().await.expect("clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kubelets_restarted_in_a_burst_lose_nothing() {
    let stack = Stack::start(&machines(4, 8), StackConfig { seed: 8, batching: false, ..Default::default() })
        .await
        .expect("start");
    for number in 0..60 {
        stack.submit(mixed(number)).expect("pod");
    }
    for (bound, node) in [(5, "node-0"), (15, "node-1"), (25, "node-0"), (40, "node-2"), (50, "node-3")] {
        until_bound(&stack, bound).await;
        stack.machines[node].kubelet.restart().await.expect("kubelet returns");
    }
    settled(&stack, 60).await;
    stack.shutdown().await.expect("clean end");
}

/// They reach kubelet in one batch, in an order that is unrelated to the order of their bindings.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pods_bound_while_kubelet_is_away_get_their_recorded_cards() {
    let stack = Stack::start(&machines(2, 8), StackConfig { seed: 9, batching: true, ..Default::default() })
        .await
        .expect("start");
    let submit = |range: std::ops::Range<usize>| {
        for number in range {
            let equal = pod(&format!("equal-{number:02}"), vec![], vec![container("main", "20", "8")]);
            stack.submit(equal).expect("pod");
        }
    };
    submit(0..10);
    until_bound(&stack, 10).await;
    for machine in stack.machines.values() {
        machine.kubelet.stop().await;
    }
    submit(10..40);
    until_bound(&stack, 40).await;
    for machine in stack.machines.values() {
        machine.kubelet.restart().await.expect("kubelet returns");
    }
    settled(&stack, 40).await;
    stack.shutdown().await.expect("clean end");
}

/// Waits until the extender counts `count` GPUs as usable: it learns of them a moment after the API server.
async fn until_usable(stack: &Stack, count: usize) {
    let cluster = stack.extender().cluster();
    let mut changes = cluster.changes();
    let usable = || {
        let nodes = cluster.snapshot();
        nodes.iter().flat_map(|node| node.ledger.cards()).filter(|card| card.device().usable()).count()
    };
    let wait = async {
        while usable() != count {
            changes.changed().await.expect("extender lives");
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the extender sees the cards");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_ill_card_takes_no_pod_until_it_recovers() {
    let stack = Stack::start(&machines(1, 1), StackConfig { seed: 5, batching: false, ..Default::default() })
        .await
        .expect("start");
    let cards = &stack.machines["node-0"].cards;
    let well = std::fs::read_to_string(cards).expect("cards");
    let keys = Keys::default();
    stack.submit(pod("first", vec![], vec![container("main", "50", "10")])).expect("pod");
    settled(&stack, 1).await;
    std::fs::write(cards, format!("{well}healthy = false\n")).expect("write");
    let told = |word: &'static str| {
        let inventory = keys.inventory.clone();
        stack.api.wait_for("nodes", PATIENCE, move |nodes: &[Arc<Value>]| {
            nodes[0]["metadata"]["annotations"][&inventory].as_str()?.contains(word).then_some(())
        })
    };
    told("\"unhealthy\"").await.expect("illness is told");
    until_usable(&stack, 0).await;
    stack.submit(pod("second", vec![], vec![container("main", "20", "4")])).expect("pod");
    stack
        .scheduler
        .wait_for(PATIENCE, |queue| queue.unschedulable + queue.backing_off > 0)
        .await
        .expect("second waits");
    std::fs::write(cards, well).expect("write");
    told("\"healthy\"").await.expect("recovery is told");
    settled(&stack, 2).await;
    stack.shutdown().await.expect("clean end");
}

/// Creates another pod for each that failed, as a Deployment does.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replacements_do_not_stay_on_a_node_where_every_pod_fails() {
    const PODS: usize = 8;
    let stack = Stack::start(&machines(2, 4), StackConfig { seed: 5, batching: false, ..Default::default() })
        .await
        .expect("start");
    let decided = async |name: &str| {
        let done = |pod: Option<&Value>| pod.is_some_and(|pod| pod["status"]["phase"] != "Pending");
        let pod = stack
            .api
            .wait_for_object("pods", "default", name, PATIENCE, done)
            .await
            .expect("decided")
            .expect("there");
        let text = |at: &str| pod.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("/status/phase"), text("/spec/nodeName"), text("/status/message"))
    };
    let share = |name: &str| pod(name, Vec::new(), vec![container("main", "10", "4")]);
    stack.submit(share("first")).expect("pod");
    let (phase, bad, message) = decided("first").await;
    assert_eq!(phase, "Running", "{message}");
    // the fuller node is preferred, and would be for every replacement
    stack.machines[&bad].break_state().expect("broken");
    let mut failed = 0;
    for number in 0..PODS {
        let (phase, node, message) = {
            let name = format!("p-{number}");
            stack.submit(share(&name)).expect("pod");
            decided(&name).await
        };
        if phase == "Failed" {
            assert!(
                node == bad && message.contains("limits of the container cannot be prepared"),
                "{node}: {message}"
            );
            failed += 1;
        } else {
            assert_ne!(node, bad);
        }
    }
    assert!((1..=3).contains(&failed), "{failed} of {PODS} failed");
    stack.shutdown().await.expect("clean end");
}
