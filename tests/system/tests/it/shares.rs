//! Shares by count from the scheduler's request to the container's device files: the extender chooses the GPU, kubelet
//! is steered to it, and the devices that kubelet really gave are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kerf::annotation::{self, Keys, Record};
use kerf::k8s;
use kerf::ledger::Held;
use kerf::plan::{Grant, Plan};
use kerf_testkit::kubelet::Container;
use serde_json::{Value, json};

use kerf_system::stack::{MachineSpec, PATIENCE, Stack, StackConfig};

const SHARED: &str = "deepomatic.com/shared-gpu";

fn keys() -> Keys {
    Keys::default().with_shares(kerf::shares::SHARE_RESOURCES.parse().expect("names"))
}

/// A machine with two NVIDIA GPUs of four shares each; `order` is the plugin's own preference, without the extender.
fn deepomatic(name: &str, order: &str) -> MachineSpec {
    let card = |minor: u32, address: &str| {
        json!({ "vendor": "nvidia", "minor": minor, "address": address, "uuid": format!("GPU-{name}-{minor}"),
                "model": "Tesla T4" })
    };
    let tree = json!({ "cards": [card(0, "0000:3b:00.0"), card(1, "0000:af:00.0")] });
    let order = format!("--share-policy={order}");
    let flags = ["--profile=deepomatic", "--placed", "--gpu-duplication-factor=4", &order];
    MachineSpec::placed(name, tree, &flags, &[SHARED])
}

async fn start(specs: &[MachineSpec], seed: u64) -> Stack {
    Stack::start(specs, StackConfig { seed, ..Default::default() }).await.expect("start")
}

fn asks(container: &str, resource: &str, count: u32) -> Value {
    let limits = json!({ resource: count.to_string() });
    json!({ "name": container, "image": "example/none", "resources": { "limits": limits, "requests": limits } })
}

fn pod(name: &str, annotations: &Value, containers: Vec<Value>) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "default", "annotations": annotations },
        "spec": { "containers": containers },
        "status": { "phase": "Pending" },
    })
}

/// The device files of a container's GPUs.
fn cards(container: &Container) -> BTreeSet<String> {
    let nodes = container.devices.iter().map(|spec| spec.host_path.clone());
    nodes.filter(|node| node.trim_start_matches("/dev/nvidia").parse::<u32>().is_ok()).collect()
}

fn given(stack: &Stack, node: &str, pod: &str, container: &str) -> Container {
    stack.machines[node].kubelet.container("default", pod, container).expect("kubelet has it")
}

/// Record, kubelet's ids, device files and ledger of every pod agree, and no GPU has more shares than it offers.
fn agree(stack: &Stack, pods: usize) {
    let keys = keys();
    let mut taken: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut counted: BTreeMap<String, Plan> = BTreeMap::new();
    for node in stack.extender().cluster().snapshot() {
        for commitment in node.ledger.commitments().values() {
            let Held::Plan(plan) = &commitment.held else { panic!("{}: no plan", commitment.pod) };
            counted.insert(commitment.pod.name.to_string(), plan.clone());
        }
    }
    let objects = stack.api.list("pods").expect("pods");
    for object in &objects {
        let object: k8s_openapi::api::core::v1::Pod = serde_json::from_value((**object).clone()).expect("a pod");
        let view = k8s::pod(&object, &keys).expect("a pod");
        let Record::Placed(placement) = &view.record else { panic!("{}: {:?}", view.pod, view.record) };
        assert_eq!(counted.get(&*view.pod.name), Some(&placement.plan), "{}: record and ledger", view.pod);
        let node = view.node.expect("bound").to_string();
        for grant in &placement.plan.grants {
            let Grant::Counted { resource, devices } = &grant.gpus else { continue };
            let container = given(stack, &node, &view.pod.name, grant.container.as_str());
            let ids = &container.resources[resource.as_str()];
            let files: BTreeMap<String, usize> =
                devices.iter().map(|one| (format!("nvidia{}", one.device.index), one.count as usize)).collect();
            let mut held: BTreeMap<String, usize> = BTreeMap::new();
            for id in ids {
                let card = id.split("-_-").next().expect("a card").to_owned();
                *held.entry(card.clone()).or_default() += 1;
                *taken.entry((node.clone(), card)).or_default() += 1;
            }
            assert_eq!(held, files, "{}: kubelet's ids and the record", view.pod);
            let nodes: BTreeSet<String> = held.keys().map(|card| format!("/dev/{card}")).collect();
            assert_eq!(cards(&container), nodes, "{}: ids and device files", view.pod);
        }
    }
    assert!(taken.values().all(|count| *count <= 4), "{taken:?}");
    assert_eq!(objects.len(), pods);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_pods_of_two_shares_are_packed_or_spread_by_the_extenders_policy() {
    // the node's own order is the opposite each time
    for (policy, order) in [("binpack", "distributed"), ("spread", "packed")] {
        let stack = start(&[deepomatic("node", order)], 1).await;
        let mut places = Vec::new();
        for number in 0..4 {
            let name = format!("pod-{number}");
            let annotations = json!({ keys().policy: policy });
            stack.submit(pod(&name, &annotations, vec![asks("main", SHARED, 2)])).expect("pod");
            stack.until_running(number + 1).await.expect("it runs");
            places.push(cards(&given(&stack, "node", &name, "main")));
        }
        assert!(places.iter().all(|cards| cards.len() == 1), "{policy}: {places:?}");
        match policy {
            "binpack" => assert!(places[0] == places[1] && places[2] == places[3], "{places:?}"),
            _ => assert!(places[0] != places[1] && places[2] != places[3], "{places:?}"),
        }
        assert_eq!(places.iter().flatten().collect::<BTreeSet<_>>().len(), 2);
        agree(&stack, 4);
        stack.shutdown().await.expect("clean end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shares_of_one_pod_are_on_one_card_or_on_different_ones_as_it_asks() {
    let stack = start(&[deepomatic("node", "distributed")], 2).await;
    for (name, wish, wanted) in [("near", "same-card", 1), ("far", "different-cards", 2)] {
        let annotations = json!({ keys().shares: wish });
        let containers = vec![asks("one", SHARED, 1), asks("two", SHARED, 1)];
        stack.submit(pod(name, &annotations, containers)).expect("pod");
        stack.until_running(1 + usize::from(name == "far")).await.expect("it runs");
        let both: BTreeSet<String> =
            ["one", "two"].iter().flat_map(|container| cards(&given(&stack, "node", name, container))).collect();
        assert_eq!(both.len(), wanted, "{name}: {both:?}");
    }
    agree(&stack, 2);
    stack.shutdown().await.expect("clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_burst_with_a_plugin_that_restarts_ends_with_true_records() {
    let mut stack = start(&[deepomatic("a", "distributed"), deepomatic("b", "packed")], 3).await;
    for number in 0..4 {
        stack.submit(pod(&format!("first-{number}"), &json!({}), vec![asks("main", SHARED, 2)])).expect("pod");
    }
    stack.until_running(4).await.expect("half of it runs");
    for name in ["a", "b"] {
        let machine = stack.machines.get_mut(name).expect("machine");
        machine.stop_plugin().await.expect("it stops");
        machine.start_plugin(&stack.api, name).await.expect("it starts");
        machine.kubelet.wait_registered(&[SHARED], PATIENCE).await.expect("registered");
        let whole = |node: Option<&Value>| node.is_some_and(|node| node["status"]["allocatable"][SHARED] == "8");
        stack.api.wait_for_object("nodes", "", name, PATIENCE, whole).await.expect("all shares are back");
    }
    for number in 0..4 {
        let containers = vec![asks("one", SHARED, 1), asks("two", SHARED, 1)];
        stack.submit(pod(&format!("second-{number}"), &json!({}), containers)).expect("pod");
    }
    stack.until_running(8).await.expect("all of it runs");
    agree(&stack, 8);
    stack.shutdown().await.expect("clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bound_pod_without_a_record_gets_one_and_is_counted() {
    let stack = start(&[deepomatic("node", "packed")], 4).await;
    // as another scheduler would: kubelet chooses, and there is no record
    stack.submit(pod("stray", &json!({}), vec![asks("main", SHARED, 3)])).expect("pod");
    stack.api.bind("default", "stray", "node").expect("bound");
    stack.until_running(1).await.expect("it runs and has a record");
    let taken = cards(&given(&stack, "node", "stray", "main"));
    // only the other GPU has room for these
    stack
        .submit(pod("placed", &json!({ keys().shares: "same-card" }), vec![asks("main", SHARED, 2)]))
        .expect("pod");
    stack.until_running(2).await.expect("both run");
    assert!(cards(&given(&stack, "node", "placed", "main")).is_disjoint(&taken));
    agree(&stack, 2);
    stack.shutdown().await.expect("clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_card_is_never_given_by_memory_and_by_count() {
    let card = |number: u32, address: &str| json!({ "vendor": "amd", "address": address, "card": number, "render": 128 + number, "memory": 17_163_091_968u64 });
    let tree = json!({ "cards": [card(0, "0000:19:00.0"), card(1, "0000:1a:00.0"), card(2, "0000:1b:00.0")] });
    let flags = ["--profile=vcuda,amd", "--backend=amd", "--placed", "--amd-replicas=4"];
    let (keys, shared) = (keys(), "amd.com/gpu");
    let spec = MachineSpec::placed("node", tree, &flags, &[&keys.core, &keys.memory, shared]);
    let stack = start(&[spec], 5).await;
    for number in 0..6 {
        let container = match number % 2 {
            0 => asks("main", shared, 2),
            _ => kerf_system::workload::container("main", "30", "8"),
        };
        stack.submit(pod(&format!("pod-{number}"), &json!({}), vec![container])).expect("pod");
    }
    stack.until_running(6).await.expect("all run");
    let mut ways: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for pod in stack.api.list("pods").expect("pods") {
        let text = pod["metadata"]["annotations"][&keys.placement].as_str().expect("a record");
        let placement = annotation::placement::decode(text).expect("readable");
        for grant in &placement.plan.grants {
            for id in grant.gpus.ids() {
                let counted = matches!(grant.gpus, Grant::Counted { .. });
                ways.entry(id.to_string()).or_default().insert(counted);
            }
        }
    }
    assert_eq!(ways.len(), 3, "{ways:?}");
    assert!(ways.values().all(|ways| ways.len() == 1), "{ways:?}");
    // the third GPU is given by memory, and the rest of it is not given by count
    stack.submit(pod("more", &json!({}), vec![asks("main", shared, 4)])).expect("pod");
    let refused = |pods: &[Arc<Value>]| {
        let own = pods.iter().find(|pod| pod["metadata"]["name"] == "more")?;
        own["status"]["conditions"].as_array()?.iter().find(|c| c["reason"] == "Unschedulable").map(drop)
    };
    stack.api.wait_for("pods", PATIENCE, refused).await.expect("two cards by count have two shares left");
    stack.shutdown().await.expect("clean end");
}
