//! Running pods are counted in every state, independent of their annotations.

use kerf::annotation::Keys;
use kerf::ids::PodUid;
use kerf_testkit::api::ApiServer;
use serde_json::{Value, json};

use crate::fixture::{World, config, node, pod, share};

/// Every annotation that a user may write, with texts that are invalid for every pod.
fn spoiled() -> Vec<(String, Vec<String>)> {
    let keys = Keys::default();
    let long = "x".repeat(200_000);
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).chain([long.clone()]).collect();
    vec![
        (keys.core_limit, texts(&["80%", "", "-1", "101"])),
        (keys.policy, texts(&["pack", "Binpack", " spread", ""])),
        (keys.isolation, texts(&["strong", "LIMITER", ""])),
        (keys.shares, texts(&["same-card", "x", ""])),
    ]
}

fn annotate(api: &ApiServer, name: &str, key: &str, value: impl Into<Value>) {
    let patch = json!({ "metadata": { "annotations": { key: value.into() } } });
    api.patch("pods", "default", name, &patch).unwrap();
}

/// Binds a whole-card pod to node `a` and brings it into this state.
async fn bind(world: &World, name: &str, state: &str) {
    let pod = world.pod(name, share("100", "")).await;
    world.bind(&pod, "a").await.unwrap();
    if state != "bound" {
        world.api.patch_status("pods", "default", name, json!({ "phase": "Running" })).unwrap();
    }
    if state == "ending" {
        world.api.delete("pods", "default", name).unwrap();
    }
}

#[tokio::test]
async fn no_annotation_frees_the_cards_of_a_bound_pod() {
    for state in ["bound", "running", "ending"] {
        let world = World::new([node("a", 5, 15_360)]).await;
        let spoiled = spoiled();
        let names = ["p0", "p1", "p2", "p3"];
        for name in names {
            bind(&world, name, state).await;
        }
        let held = [1000, 1000, 1000, 1000, 0];
        // each pod has another invalid annotation, with one text after the other
        for round in 0..5 {
            for (name, (key, texts)) in names.iter().zip(&spoiled) {
                annotate(&world.api, name, key, texts[round % texts.len()].clone());
            }
            world.relist().await;
            assert_eq!(world.used("a"), held, "{state} {round}");
        }
        assert_eq!(world.extender.metrics().drift.get(), 0, "an annotation is no record");
        let world = World::on(world.kill().await, config()).await;
        assert_eq!(world.used("a"), held, "{state}");
        let q = world.pod("q", share("100", "")).await;
        assert_eq!(world.client.filter(&q, &world.nodes()).await.unwrap().nodes, ["a"]);
        world.bind(&q, "a").await.unwrap();
        assert_eq!(world.placements()["q"], ["a/GPU-a-4"]);
        let r = world.pod("r", share("1", "1")).await;
        assert!(world.client.filter(&r, &world.nodes()).await.unwrap().nodes.is_empty());
        world.api.force_delete("pods", "default", "p1").unwrap();
        world.until("freed", |w| w.used("a")[1] == 0).await;
    }
}

#[tokio::test]
async fn a_pod_with_a_spoiled_annotation_frees_its_cards_when_it_ends() {
    let keys = Keys::default();
    for (phase, restart) in [("Succeeded", false), ("Failed", true)] {
        let mut world = World::new([node("a", 2, 15_360)]).await;
        bind(&world, "p", "running").await;
        annotate(&world.api, "p", &keys.policy, "x");
        if restart {
            world = World::on(world.kill().await, config()).await;
        }
        assert_eq!(world.used("a"), [1000, 0]);
        world.api.patch_status("pods", "default", "p", json!({ "phase": phase })).unwrap();
        world.until("freed", |w| w.used("a") == [0, 0]).await;
    }
}

#[tokio::test]
async fn a_pending_pod_is_not_placed_as_it_was_before_its_annotation_was_spoiled() {
    let world = World::new([node("a", 2, 15_360)]).await;
    for (key, texts) in spoiled() {
        let name = key.replace(['.', '/'], "-");
        let p = world.pod(&name, share("100", "")).await;
        let uid = PodUid::from(p["metadata"]["uid"].as_str().unwrap());
        for text in texts {
            annotate(&world.api, &name, &key, text);
            world.until("refused", |w| !w.extender.cluster().is_pending(&uid)).await;
            assert!(world.bind(&p, "a").await.unwrap_err().contains("annotation"), "{key}");
            annotate(&world.api, &name, &key, Value::Null);
            world.until("mended", |w| w.extender.cluster().is_pending(&uid)).await;
        }
        assert_eq!(world.used("a"), [0, 0]);
        world.api.force_delete("pods", "default", &name).unwrap();
    }
}

/// A pod that another client has bound to node `a`, as gpu-manager accepted them.
fn stranger(name: &str, containers: Value, annotations: Value) -> Value {
    let mut pod = pod(name, containers);
    pod["metadata"]["annotations"] = annotations;
    pod["spec"]["nodeName"] = "a".into();
    pod["status"]["phase"] = "Running".into();
    pod
}

#[tokio::test]
async fn requests_that_kerf_refuses_count_once_they_run() {
    let keys = Keys::default();
    let limit = json!({ &keys.core_limit: "150" });
    let by_index = json!({ format!("{}0", keys.predicate_gpu_idx): "1", &keys.core_limit: "150" });
    let memory_alone = json!([{ "name": "main", "resources": { "limits": { &keys.memory: "10" } } }]);
    let cases = [
        (share("50", "10"), limit, [500, 500], "amounts"),
        (share("50", "10"), by_index, [0, 500], "record"),
        (share("50", ""), json!({}), [500, 500], "amounts"),
        (memory_alone, json!({}), [0, 0], "amounts"),
        (share("150", ""), json!({}), [1000, 1000], "amounts"),
        (share("250", "7"), json!({}), [1000, 1000], "amounts"),
        (share("100000", ""), json!({}), [1000, 1000], "amounts"),
        (share("0.5", "1"), json!({}), [1000, 1000], "everything"),
        (share("-1", "1"), json!({}), [1000, 1000], "everything"),
        (share("1", "99999999999999999999"), json!({}), [1000, 1000], "everything"),
    ];
    for (containers, annotations, used, by) in cases {
        let world = World::new([node("a", 2, 15_360)]).await;
        let shown = format!("{containers} {annotations}");
        let created = world.api.create("pods", stranger("s", containers, annotations)).unwrap();
        let uid = PodUid::from(created["metadata"]["uid"].as_str().unwrap());
        let known = |w: &World| w.extender.cluster().snapshot()[0].ledger.commitments().contains_key(&uid);
        world.until("seen", known).await;
        for life in 0..2 {
            assert_eq!(world.used("a"), used, "{shown}");
            world.relist().await;
            assert_eq!(world.used("a"), used, "{shown} in life {life}");
        }
        let unreadable = world.extender.metrics().unreadable.get();
        assert_eq!(unreadable, u64::from(by != "record"), "counted once for the pod, not for each event");
        let world = World::on(world.kill().await, config()).await;
        assert_eq!(world.used("a"), used, "{shown} after a restart");
        let state = world.text("/debug/state").await;
        let state: Value = serde_json::from_str(&state).unwrap();
        assert_eq!(state["nodes"]["a"]["pods"][uid.as_str()]["counted_by"], by, "{shown}");
        let metrics = world.text("/metrics").await;
        let line = format!("kerf_extender_pods_counted{{by=\"{by}\"}} 1");
        assert!(metrics.contains(&line), "{line} in {metrics}");
        // such a pod gets only memory, without core
        if used == [0, 0] {
            let memory = world.extender.cluster().snapshot()[0].ledger.cards()[1].used().memory.0;
            assert_eq!(memory, 2560);
        }
    }
}

#[tokio::test]
async fn a_record_of_a_card_that_the_node_does_not_have_is_not_lost() {
    let keys = Keys::default();
    let world = World::new([node("a", 2, 15_360)]).await;
    let text = r#"{"version":1,"node":"a","time":1,"containers":[{"name":"main","kind":"app","position":0,"whole":false,"slices":[{"gpu":"GPU-a-2","index":2,"compute":600,"memory":2560}]}]}"#;
    let annotations = json!({ &keys.placement: text });
    let created = world.api.create("pods", stranger("s", share("60", "10"), annotations)).unwrap();
    let uid = created["metadata"]["uid"].as_str().unwrap().to_owned();
    let known = |w: &World| w.extender.cluster().snapshot()[0].ledger.commitments().contains_key(uid.as_str());
    world.until("seen", known).await;
    let state: Value = serde_json::from_str(&world.text("/debug/state").await).unwrap();
    assert_eq!(state["nodes"]["a"]["pods"][&uid]["missing_gpus"], json!(["GPU-a-2"]));
    // it is counted where it is as soon as the node has the card
    let third = node("a", 3, 15_360)["metadata"]["annotations"].clone();
    world.api.patch("nodes", "", "a", &json!({ "metadata": { "annotations": third } })).unwrap();
    world.until("counted", |w| w.used("a") == [0, 0, 600]).await;
}

/// No ledger counts what is given under a domain that the extender does not serve.
#[tokio::test]
async fn a_node_takes_no_pod_while_pods_of_another_resource_domain_hold_its_gpus() {
    let foreign = |name: &str| {
        let limits = json!({ "example.com/vcuda-core": "10", "example.com/vcuda-memory": "1" });
        json!({
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "containers": [{ "name": "main", "image": "i", "resources": { "limits": limits } }] },
            "status": { "phase": "Pending" },
        })
    };
    for state in ["bound", "running", "ending"] {
        let mut world = World::new([node("a", 2, 15_360), node("b", 2, 15_360)]).await;
        let p = world.pod("p", share("10", "1")).await;
        for name in ["first", "second", "waits"] {
            world.api.create("pods", foreign(name)).unwrap();
        }
        assert_eq!(
            world.client.filter(&p, &world.nodes()).await.unwrap().nodes,
            ["a", "b"],
            "who waits holds nothing"
        );
        for name in ["first", "second"] {
            world.api.bind("default", name, "a").unwrap();
            if state != "bound" {
                world.api.patch_status("pods", "default", name, json!({ "phase": "Running" })).unwrap();
            }
            if state == "ending" {
                world.api.delete("pods", "default", name).unwrap();
            }
        }
        let closed = |world: &World| free(world, "a") == [0, 0];
        world.until("closed", closed).await;
        for restart in [false, true] {
            if restart {
                world = World::on(world.kill().await, config()).await;
            } else {
                world.relist().await;
            }
            let answer = world.client.filter(&p, &world.nodes()).await.unwrap();
            assert_eq!(answer.nodes, ["b"], "{state}");
            assert_eq!(answer.unresolvable["a"], "pods of another resource domain hold GPUs of the node");
            let refused = world.bind(&p, "a").await.unwrap_err().to_string();
            assert!(refused.contains("another resource domain"), "{refused}");
        }
        world.api.force_delete("pods", "default", "first").unwrap();
        world.relist().await;
        assert!(closed(&world), "one is left");
        world.api.patch_status("pods", "default", "second", json!({ "phase": "Failed" })).unwrap();
        world.until("open", |world| free(world, "a") == [1000, 1000]).await;
        world.bind(&p, "a").await.unwrap();
    }
}

/// Free compute of each GPU.
fn free(world: &World, node: &str) -> Vec<u32> {
    let state = world.extender.cluster().snapshot().into_iter().find(|state| state.name.as_str() == node);
    state.into_iter().flat_map(|state| state.ledger.cards().to_vec()).map(|card| card.free().compute.0).collect()
}

const NEVER: &str = "9999-12-31T23:59:59Z";

/// A tenant may write times and depths there that the API server accepts and that cannot be parsed.
#[tokio::test]
async fn managed_fields_hide_no_pod() {
    let world = World::new([node("a", 2, 15_360)]).await;
    let p = world.pod("p", share("100", "")).await;
    world.bind(&p, "a").await.unwrap();
    let odd = json!({ "metadata": { "managedFields": [{ "manager": "x", "operation": "Update", "apiVersion": "v1",
        "time": NEVER, "fieldsType": "FieldsV1", "fieldsV1": {} }] } });
    world.api.patch("pods", "default", "p", &odd).unwrap();
    // later events still arrive
    let q = world.pod("q", share("100", "")).await;
    world.bind(&q, "a").await.unwrap();
    world.api.force_delete("pods", "default", "q").unwrap();
    world.until("freed", |w| w.used("a") == [1000, 0]).await;
    world.relist().await;
    assert_eq!(world.used("a"), [1000, 0]);
    let world = World::on(world.kill().await, config()).await;
    assert_eq!(world.used("a"), [1000, 0]);
    world.api.force_delete("pods", "default", "p").unwrap();
    world.until("freed", |w| w.used("a") == [0, 0]).await;
}

/// Its name and its node can still be read, and it may have every card there.
#[tokio::test]
async fn a_pod_that_cannot_be_read_is_counted_and_hides_no_other() {
    let world = World::new([node("a", 2, 15_360), node("b", 1, 15_360)]).await;
    let mut odd = pod("p", share("10", "1"));
    odd["metadata"]["creationTimestamp"] = NEVER.into();
    odd["spec"]["nodeName"] = "a".into();
    world.api.create("pods", odd).unwrap();
    world.until("counted", |w| w.used("a") == [1000, 1000]).await;
    let q = world.pod("q", share("100", "")).await;
    assert_eq!(world.client.filter(&q, &world.nodes()).await.unwrap().nodes, ["b"]);
    world.bind(&q, "b").await.unwrap();
    let world = World::on(world.kill().await, config()).await;
    assert_eq!((world.used("a"), world.used("b")), (vec![1000, 1000], vec![1000]));
    world.api.force_delete("pods", "default", "p").unwrap();
    world.until("freed", |w| w.used("a") == [0, 0]).await;
}
