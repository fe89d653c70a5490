//! Whatever the API server sends becomes a domain value or nothing; never a panic, never a hold that the pod did
//! not ask for.

#![cfg(feature = "k8s")]
#![allow(clippy::unwrap_used, reason = "a test")]

use k8s_openapi::api::core::v1::{Node, Pod};
use kerf::annotation::{Keys, Record};
use kerf::k8s;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

const PLACEMENT: &str = r#"{"version":1,"node":"n","time":1,"containers":[{"name":"a","kind":"app","position":0,
    "whole":false,"slices":[{"gpu":"g","index":0,"compute":500,"memory":2560}]}]}"#;
const INVENTORY: &str =
    r#"{"version":1,"gpus":[{"uuid":"g","index":0,"model":"m","memory_mib":81920,"health":"healthy"}]}"#;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// A text that is right somewhere and wrong elsewhere.
fn text() -> impl Strategy<Value = String> {
    let words = [
        "",
        "0",
        "1",
        "10",
        "50",
        "100",
        "150",
        "200",
        "-1",
        "0.5",
        "1k",
        "1e30",
        "99999999999999999999",
        "x",
        "0,1",
        "0, 1",
        "true",
        "false",
        "Running",
        "Failed",
        "Always",
        "spread",
        "a",
        "n",
        PLACEMENT,
        INVENTORY,
    ];
    prop_oneof![9 => prop::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,9}"]
}

fn amounts() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec!["inspur.com/vcuda-core", "inspur.com/vcuda-memory", "cpu"]);
    prop_oneof![4 => btree_map(key, text(), 0..4).prop_map(|amounts| json!(amounts)), 1 => Just(Value::Null)]
}

fn annotations() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "inspur.com/vcuda-core-limit",
        "inspur.com/gpu-policy",
        "inspur.com/gpu-placement",
        "inspur.com/predicate-node",
        "inspur.com/predicate-time",
        "inspur.com/predicate-gpu-idx-0",
        "inspur.com/predicate-gpu-idx-1",
        "inspur.com/predicate-gpu-idx-",
        "inspur.com/predicate-gpu-idx-99999999999",
        "inspur.com/gpu-assigned",
        "inspur.com/gpu-inventory",
        "inspur.com/gpu-cordon",
        "other",
    ]);
    prop_oneof![6 => btree_map(key, text(), 0..6).prop_map(|map| json!(map)), 1 => Just(Value::Null)]
}

fn containers() -> impl Strategy<Value = Value> {
    let resources = prop_oneof![
        4 => (amounts(), amounts()).prop_map(|(limits, requests)| json!({"limits": limits, "requests": requests})),
        1 => Just(Value::Null),
    ];
    let policy = option::of(text());
    let container = (text(), resources, policy).prop_map(
        |(name, resources, policy)| json!({"name": name, "resources": resources, "restartPolicy": policy}),
    );
    vec(container, 0..4).prop_map(Value::Array)
}

fn metadata() -> impl Strategy<Value = Value> {
    (option::of(text()), option::of(text()), option::of(text()), annotations()).prop_map(
        |(name, namespace, uid, annotations)| {
            json!({"name": name, "namespace": namespace, "uid": uid, "annotations": annotations})
        },
    )
}

fn pod() -> impl Strategy<Value = Value> {
    let spec = (option::of(text()), containers(), containers())
        .prop_map(|(node, inits, apps)| json!({"nodeName": node, "initContainers": inits, "containers": apps}));
    let spec = prop_oneof![9 => spec, 1 => Just(Value::Null)];
    (metadata(), spec, option::of(text()))
        .prop_map(|(metadata, spec, phase)| json!({"metadata": metadata, "spec": spec, "status": {"phase": phase}}))
}

fn node() -> impl Strategy<Value = Value> {
    let status =
        prop_oneof![4 => amounts().prop_map(|amounts| json!({"capacity": amounts})), 1 => Just(Value::Null)];
    (metadata(), status).prop_map(|(metadata, status)| json!({"metadata": metadata, "status": status}))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_pod_is_translated_and_only_a_record_that_serves_it_is_believed(value in pod()) {
        let Ok(pod) = serde_json::from_value::<Pod>(value) else { return Ok(()) };
        let named = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        let Some(view) = k8s::pod(&pod, &Keys::default()) else {
            prop_assert!(!named(&pod.metadata.uid) || pod.metadata.name.is_none());
            return Ok(());
        };
        match (&view.request, &view.record) {
            (Ok(Some(request)), Record::Placed(placement)) => prop_assert!(placement.plan.serves(request)),
            (Ok(Some(_)), _) | (_, Record::Absent) => {}
            (_, record) => prop_assert!(false, "a record without a request: {:?}", record),
        }
        prop_assert_eq!(view.node.is_some(), pod.spec.is_some_and(|spec| named(&spec.node_name)));
    }

    #[test]
    fn any_node_is_translated(value in node()) {
        let Ok(node) = serde_json::from_value::<Node>(value) else { return Ok(()) };
        let view = k8s::node(&node, &Keys::default());
        prop_assert_eq!(view.is_some(), node.metadata.name.is_some());
        if let Some(Ok(inventory)) = view.map(|view| view.inventory) {
            prop_assert!(inventory.devices().len() <= 64);
        }
    }

    #[test]
    fn any_json_is_translated_or_refused(text in "[\\[\\]{}:,\"a-z0-9]{0,40}") {
        for text in [text.clone(), format!(r#"{{"metadata":{{"name":"a","uid":"u","annotations":{text}}}}}"#)] {
            if let Ok(pod) = serde_json::from_str::<Pod>(&text) {
                k8s::pod(&pod, &Keys::default());
            }
            if let Ok(node) = serde_json::from_str::<Node>(&text) {
                k8s::node(&node, &Keys::default());
            }
        }
    }
}

#[test]
fn a_node_with_an_inventory_that_cannot_be_read_has_no_cards_rather_than_guessed_ones() {
    let value = |text: &str| {
        let annotations = json!({"inspur.com/gpu-inventory": text, "inspur.com/gpu-cordon": "0"});
        json!({
            "metadata": {"name": "n", "annotations": annotations},
            "status": {"capacity": {"inspur.com/vcuda-core": "800", "inspur.com/vcuda-memory": "800"}},
        })
    };
    let view = |text: &str| k8s::node(&serde_json::from_value(value(text)).unwrap(), &Keys::default()).unwrap();
    assert!(view("").inventory.is_err());
    assert!(view(&"9".repeat(1 << 20)).inventory.is_err());
    let read = view(INVENTORY).inventory.unwrap();
    assert!(!read.devices()[0].usable(), "the cordon is applied to what was read");
}

#[test]
fn pods_of_daemon_sets_and_of_kubelet_itself_belong_to_their_nodes() {
    let resident = |owners: Value| {
        let pod = json!({ "metadata": { "name": "p", "ownerReferences": owners } });
        k8s::resident(&serde_json::from_value(pod).unwrap())
    };
    let owner = |kind: &str, controller: bool| json!([{ "apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "controller": controller }]);
    assert!(resident(owner("DaemonSet", true)));
    assert!(resident(owner("Node", true)));
    assert!(!resident(owner("ReplicaSet", true)));
    assert!(!resident(owner("DaemonSet", false)));
    assert!(!resident(json!([])));
}
