//! Anything that the API server sends becomes a domain value or nothing; never a panic, never a hold that the pod did
//! not ask for.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use kerf::annotation::{Keys, Record, Unreadable};
use kerf::k8s;
use kerf::ledger::{Held, NodeLedger};
use kerf::request::{Ask, ContainerKind, GpuRequest, RawAnnotations, RawContainer};
use kerf::unfit::Unfit;
use kerf::units::Share;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

const PLACEMENT: &str = r#"{"version":1,"node":"n","time":1,"containers":[{"name":"a","kind":"app","position":0,
    "whole":false,"slices":[{"gpu":"g","index":0,"compute":500,"memory":2560}]}]}"#;
const INVENTORY: &str =
    r#"{"version":1,"gpus":[{"uuid":"g","index":0,"model":"m","memory_mib":81920,"health":"healthy"}]}"#;

/// The annotations that a user may write.
const USERS: [&str; 4] =
    ["inspur.com/vcuda-core-limit", "inspur.com/gpu-policy", "inspur.com/isolation", "inspur.com/gpu-shares"];

fn user_annotations() -> impl Strategy<Value = BTreeMap<&'static str, String>> {
    let odd = prop::sample::select(vec!["80%", " 80", "SPREAD", "limiter ", "mig", "same-card", "different-cards"]);
    let value = prop_oneof![text(), odd.prop_map(str::to_owned), Just("x".repeat(300_000))];
    btree_map(prop::sample::select(USERS.to_vec()), value, 0..=4)
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// A text that is valid in some places and invalid in others.
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
        match (&view.holding, &view.request, &view.record) {
            (Some(holding), _, Record::Placed(placement)) => prop_assert!(placement.plan.serves(&holding.request)),
            (None, Ok(Some(request)), Record::Placed(placement)) => prop_assert!(placement.plan.serves(request)),
            (Some(_), ..) | (_, Ok(Some(_)), _) | (.., Record::Absent) => {}
            (.., record) => prop_assert!(false, "a record without a request: {:?}", record),
        }
        // once bound, a valid request counts as it is, and an invalid one still counts
        if view.node.is_some() {
            match &view.request {
                Ok(request) => prop_assert_eq!(request.as_ref(), view.holding.as_ref().map(|h| &h.request)),
                Err(_) => prop_assert!(view.holding.is_some()),
            }
        } else {
            prop_assert!(view.holding.is_none());
        }
        prop_assert_eq!(view.node.is_some(), pod.spec.is_some_and(|spec| named(&spec.node_name)));
    }

    #[test]
    fn no_annotation_of_the_users_changes_what_a_bound_pod_counts_for(
        pod in pod(),
        first in user_annotations(),
        second in user_annotations(),
    ) {
        let counts = |own: &BTreeMap<&str, String>| {
            let mut pod = pod.clone();
            pod["metadata"]["name"] = "p".into();
            pod["metadata"]["uid"] = "u".into();
            if pod["spec"].is_object() {
                pod["spec"]["nodeName"] = "n".into();
            }
            let mut annotations = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
            annotations.retain(|key, _| !USERS.contains(&key.as_str()));
            annotations.extend(own.iter().map(|(key, text)| ((*key).to_owned(), json!(text))));
            pod["metadata"]["annotations"] = json!(annotations);
            let pod = serde_json::from_value::<Pod>(pod).ok()?;
            let holding = k8s::pod(&pod, &Keys::default())?.holding?;
            Some((holding.request.containers.clone(), holding.request.priority, holding.held()))
        };
        prop_assert_eq!(counts(&first), counts(&second));
    }

    #[test]
    fn a_request_that_breaks_no_rule_counts_as_itself(
        amounts in vec((option::of(text()), option::of(text()), option::of(text())), 0..4),
        annotations in [option::of(text()), option::of(text()), option::of(text()), option::of(text())],
    ) {
        let counted: Vec<Vec<(&str, &str)>> =
            amounts.iter().map(|(.., count)| count.iter().map(|count| ("a.b/c", count.as_str())).collect()).collect();
        let raw = || amounts.iter().zip(&counted).map(|((core, memory, _), counted)| RawContainer {
            name: "c",
            kind: ContainerKind::App,
            core: core.as_deref(),
            memory: memory.as_deref(),
            counted,
        });
        let [limit, policy, isolation, arrangement] = &annotations;
        let own = RawAnnotations {
            limit: limit.as_deref(),
            policy: policy.as_deref(),
            isolation: isolation.as_deref(),
            arrangement: arrangement.as_deref(),
        };
        if let Ok(request) = GpuRequest::parse(raw(), own) {
            prop_assert_eq!(request, GpuRequest::of_bound(raw(), own));
        }
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

/// A bound pod with these containers as (list, name, limits) and annotations.
fn holding(containers: &[(&str, &str, Value)], annotations: &Value) -> Option<k8s::Holding> {
    let of = |list: &str| -> Vec<Value> {
        let own = containers.iter().filter(|(own, ..)| *own == list);
        own.map(|(_, name, limits)| json!({ "name": name, "resources": { "limits": limits } })).collect()
    };
    let pod = json!({
        "metadata": { "name": "p", "uid": "u", "annotations": annotations },
        "spec": { "nodeName": "n", "initContainers": of("init"), "containers": of("app"), "priority": 7 },
        "status": { "phase": "Running" },
    });
    k8s::pod(&serde_json::from_value(pod).unwrap(), &Keys::default()).unwrap().holding
}

fn amounts_of(core: &str, memory: &str) -> Value {
    json!({ "inspur.com/vcuda-core": core, "inspur.com/vcuda-memory": memory })
}

#[test]
fn a_record_is_believed_whatever_the_users_annotations_say() {
    let app = [("app", "a", amounts_of("50", "10"))];
    for spoiled in USERS {
        for text in ["x", "", " ", "Binpack", "1e9", "-1", "80%", "mig", "same-card"] {
            let records = [
                json!({ "inspur.com/gpu-placement": PLACEMENT }),
                json!({ "inspur.com/predicate-gpu-idx-0": "0" }),
            ];
            for mut annotations in records {
                annotations[spoiled] = text.into();
                let holding = holding(&app, &annotations).unwrap();
                assert!(matches!(holding.held(), Held::Plan(_)), "{spoiled}: {text}: {:?}", holding.record);
                assert_eq!(holding.request.priority, 7);
            }
        }
    }
}

#[test]
fn a_record_is_checked_against_node_containers_and_amounts() {
    let believed = |containers: &[(&str, &str, Value)], text: &str| {
        let annotations = json!({ "inspur.com/gpu-placement": text, "inspur.com/gpu-policy": "x" });
        holding(containers, &annotations).unwrap().record
    };
    let app = [("app", "a", amounts_of("50", "10"))];
    assert!(matches!(believed(&app, PLACEMENT), Record::Placed(_)));
    let other = |unreadable| Record::Unreadable(unreadable);
    assert_eq!(believed(&app, &PLACEMENT.replace(r#""node":"n""#, r#""node":"m""#)), other(Unreadable::OtherNode));
    for (from, to) in [("500", "400"), ("2560", "256"), (r#""name":"a""#, r#""name":"b""#), ("app", "init")] {
        assert_eq!(believed(&app, &PLACEMENT.replace(from, to)), other(Unreadable::OtherRequest), "{to}");
    }
    // one container's record is good, the other has none
    let two = [app[0].clone(), ("app", "b", amounts_of("10", "x"))];
    assert_eq!(believed(&two, PLACEMENT), other(Unreadable::OtherRequest));
    // gpu-manager's record has no card ids, so it fits any node
    let elsewhere = json!({ "inspur.com/predicate-gpu-idx-0": "0", "inspur.com/predicate-node": "m" });
    assert!(matches!(holding(&app, &elsewhere).unwrap().record, Record::Placed(_)));
}

#[test]
fn a_bound_pod_counts_for_its_amounts_in_every_container() {
    let asks = |containers: &[(&str, &str, Value)]| -> Vec<(ContainerKind, u32, Ask)> {
        let holding = holding(containers, &json!({ "inspur.com/isolation": "STRONG" })).unwrap();
        assert_eq!(holding.record, Record::Absent);
        holding.request.containers.iter().map(|c| (c.kind, c.position, c.ask.clone())).collect()
    };
    let odd = [
        ("init", "i", amounts_of("150", "0")),
        ("app", "none", json!({ "cpu": "1" })),
        ("app", "a", amounts_of("50", "10")),
        ("app", "b", json!({ "inspur.com/vcuda-core": "20" })),
        ("app", "c", json!({ "inspur.com/vcuda-memory": "4" })),
    ];
    let share = |compute, memory| Ask::Share(Share::new(compute, memory));
    assert_eq!(
        asks(&odd),
        [
            (ContainerKind::Init, 0, Ask::Whole { count: 2, memory: None }),
            (ContainerKind::App, 1, share(500, 2560)),
            (ContainerKind::App, 2, share(200, 0)),
            (ContainerKind::App, 3, share(0, 1024)),
        ]
    );
    let many: Vec<(&str, &str, Value)> = (0..70).map(|_| ("app", "a", amounts_of("1", "1"))).collect();
    assert_eq!(asks(&many).len(), 70, "more containers than a pod may have");
    assert!(holding(&[("app", "a", json!({ "cpu": "1" }))], &json!({ "inspur.com/gpu-policy": "x" })).is_none());
}

/// A Node with these parts, besides capacity for 8 cards.
fn lost_node(annotations: &Value, conditions: &Value) -> k8s::NodeView {
    let capacity = json!({ "inspur.com/vcuda-core": "800", "inspur.com/vcuda-memory": "800" });
    let node = json!({
        "metadata": { "name": "n", "annotations": annotations },
        "status": { "capacity": capacity, "conditions": conditions },
    });
    k8s::node(&serde_json::from_value(node).unwrap(), &Keys::default()).unwrap()
}

#[test]
fn cards_are_inferred_only_where_no_plugin_of_kerfs_has_served_the_node() {
    let condition = |kind: &str| json!([{ "type": kind, "status": "True" }]);
    let plain = lost_node(&json!({}), &condition("Ready"));
    assert!(plain.inferred && plain.inventory.is_ok());
    for kind in ["KerfGPUsHealthy", "KerfNvidiaGPUsHealthy"] {
        assert_eq!(lost_node(&json!({}), &condition(kind)).inventory, Err(Unreadable::Missing));
    }
    let labelled = lost_node(&json!({ "inspur.com/gpu-labels-core": "[]" }), &condition("Ready"));
    assert_eq!(labelled.inventory, Err(Unreadable::Missing));
    let many: Vec<Value> = (0..65)
        .map(|i| json!({ "uuid": format!("g{i}"), "index": i, "model": "", "memory_mib": 1, "health": "healthy" }))
        .collect();
    let many = json!({ "inspur.com/gpu-inventory": json!({ "version": 1, "gpus": many }).to_string() });
    for (view, unfit) in [
        (lost_node(&json!({}), &condition("KerfGPUsHealthy")), Unfit::LostInventory),
        (lost_node(&many, &json!([])), Unfit::TooManyCards),
        (lost_node(&json!({ "inspur.com/gpu-inventory": "" }), &json!([])), Unfit::UnreadableInventory),
    ] {
        let mut ledger = NodeLedger::default();
        view.tell(&mut ledger);
        assert_eq!(ledger.without_cards(), Some(unfit));
    }
}

#[test]
fn a_node_whose_list_is_gone_keeps_its_cards_and_takes_no_pod() {
    let listed = lost_node(&json!({ "inspur.com/gpu-inventory": INVENTORY }), &json!([]));
    let inferred = lost_node(&json!({}), &json!([]));
    let mut ledger = NodeLedger::default();
    listed.tell(&mut ledger);
    assert!(ledger.cards()[0].usable());
    inferred.tell(&mut ledger);
    assert_eq!(ledger.without_cards(), Some(Unfit::LostInventory));
    assert_eq!(
        ledger.cards().iter().map(|card| (card.device().id.as_str(), card.usable())).collect::<Vec<_>>(),
        [("g", false)]
    );
    // nor after the Node was deleted and created again
    ledger.forget_node();
    inferred.tell(&mut ledger);
    assert_eq!(ledger.without_cards(), Some(Unfit::LostInventory));
    listed.tell(&mut ledger);
    assert!(ledger.cards()[0].usable());
    // what was inferred once may be inferred again
    let mut old = NodeLedger::default();
    inferred.tell(&mut old);
    inferred.tell(&mut old);
    assert_eq!((old.without_cards(), old.cards().len()), (None, 8));
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
