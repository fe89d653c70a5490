//! Calls from other clients than kube-scheduler: they get what it would get for the same pod and node, and no more.

use kerf::annotation::Keys;
use kerf_testkit::scheduler::ExtenderBindingArgs;
use serde_json::{Value, json};

use crate::fixture::{World, node, pod, share};

const STATES: [&str; 4] = ["pending", "bound", "running", "ending"];
/// A `deletionTimestamp`.
const DELETED: &str = "2026-01-01T00:00:00Z";

fn text<'a>(pod: &'a Value, at: &str) -> &'a str {
    pod.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

fn uid(pod: &Value) -> kerf::ids::PodUid {
    text(pod, "/metadata/uid").into()
}

/// Brings a pod that was just created into one of [`STATES`], on the node `a`.
async fn bring(world: &World, pod: &Value, state: &str) {
    let name = text(pod, "/metadata/name");
    let counts = world.used("a");
    if state == "pending" {
        world.until("seen", |w| w.extender.cluster().is_pending(&uid(pod))).await;
        return;
    }
    world.bind(pod, "a").await.unwrap();
    match state {
        "running" => drop(world.api.patch_status("pods", "default", name, json!({ "phase": "Running" })).unwrap()),
        "ending" => world.api.delete("pods", "default", name).unwrap(),
        _ => {}
    }
    world.until("it waits no more", |w| !w.extender.cluster().is_pending(&uid(pod))).await;
    assert_ne!(world.used("a"), counts);
}

async fn bind(world: &World, name: &str, namespace: &str, uid: &str, node: &str) -> Result<(), String> {
    let args = ExtenderBindingArgs {
        pod_name: name.to_owned(),
        pod_namespace: namespace.to_owned(),
        pod_uid: uid.to_owned(),
        node: node.to_owned(),
    };
    world.client.bind(&args).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_pod_is_found_by_its_uid_and_its_name_in_every_state() {
    let world = World::new([node("a", 4, 15_360), node("b", 1, 15_360)]).await;
    for state in STATES {
        let p = world.pod(&format!("p-{state}"), share("50", "10")).await;
        let q = world.pod(&format!("q-{state}"), share("50", "10")).await;
        bring(&world, &p, state).await;
        bring(&world, &q, "pending").await;
        let (name, own, other) = (text(&p, "/metadata/name"), text(&p, "/metadata/uid"), text(&q, "/metadata/uid"));
        let (writes, used) = (world.api.writes(), world.used("a"));
        let strange = "6b2f9a3c-8f1e-4c55-9d0b-0a1b2c3d4e5f";
        for (name, namespace, uid, node) in [
            ("nobody", "default", own, "a"),
            (name, "elsewhere", own, "a"),
            (name, "default", strange, "a"),
            (name, "default", other, "a"),
            (text(&q, "/metadata/name"), "default", own, "a"),
            (text(&q, "/metadata/name"), "default", other, "ghost"),
        ] {
            let refused = bind(&world, name, namespace, uid, node).await;
            assert!(refused.is_err(), "{state}: {namespace}/{name} {uid} {node}");
        }
        assert_eq!((world.api.writes(), world.used("a")), (writes.clone(), used.clone()), "{state}");
        if state == "pending" {
            bind(&world, name, "default", own, "a").await.unwrap();
        } else {
            // its own binding again changes nothing, another one is refused
            bind(&world, name, "default", own, "a").await.unwrap();
            assert!(bind(&world, name, "default", own, "b").await.unwrap_err().contains("bound to node a"));
            assert_eq!((world.api.writes(), world.used("a")), (writes, used), "{state}");
        }
        assert_eq!(world.used("b"), [0], "{state}");
    }
}

#[tokio::test]
async fn a_pod_that_ends_before_it_was_bound_is_not_bound() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let mut deleted = pod("deleted", share("50", "10"));
    deleted["metadata"]["deletionTimestamp"] = DELETED.into();
    let deleted = world.api.create("pods", deleted).unwrap();
    assert!(world.bind(&deleted, "a").await.unwrap_err().contains("being deleted"));
    let failed = world.pod("failed", share("50", "10")).await;
    bring(&world, &failed, "pending").await;
    world.api.patch_status("pods", "default", "failed", json!({ "phase": "Failed" })).unwrap();
    let later = world.pod("later", share("50", "10")).await;
    bring(&world, &later, "pending").await;
    assert!(world.bind(&failed, "a").await.unwrap_err().contains("has ended"));
    assert_eq!(world.used("a"), [0]);
}

#[tokio::test]
async fn a_pod_without_gpus_is_never_bound() {
    let world = World::new([node("a", 1, 15_360)]).await;
    for state in STATES {
        let p = world.pod(&format!("p-{state}"), json!([{ "name": "main" }])).await;
        let name = text(&p, "/metadata/name");
        if state != "pending" {
            world.api.bind("default", name, "a").unwrap();
        }
        match state {
            "running" => {
                drop(world.api.patch_status("pods", "default", name, json!({ "phase": "Running" })).unwrap());
            }
            "ending" => world.api.delete("pods", "default", name).unwrap(),
            _ => {}
        }
        let answer = world.bind(&p, "a").await;
        if state == "pending" {
            assert!(answer.unwrap_err().contains("managedResources"));
        }
        assert!(world.bind(&p, "b").await.is_err(), "{state}");
        assert!(world.api.writes().is_empty(), "{state}");
    }
}

/// The watch's latest state of the pod counts, not its state at the first call.
#[tokio::test]
async fn a_pod_that_broke_the_contract_while_it_waited_is_not_bound() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let p = world.pod("p", share("50", "10")).await;
    bring(&world, &p, "pending").await;
    let patch = json!({ "metadata": { "annotations": { &Keys::default().policy: "x" } } });
    world.api.patch("pods", "default", "p", &patch).unwrap();
    world.until("seen", |w| !w.extender.cluster().is_pending(&uid(&p))).await;
    assert!(world.bind(&p, "a").await.unwrap_err().contains("gpu-policy"));
    assert!(world.api.writes().is_empty());
}

fn with_spec(name: &str, spec: Value) -> Value {
    let mut node = node(name, 2, 15_360);
    node["spec"] = spec;
    node
}

fn tolerating(name: &str, tolerations: Value) -> Value {
    let mut pod = pod(name, share("20", "5"));
    pod["spec"]["tolerations"] = tolerations;
    pod
}

#[tokio::test]
async fn a_node_is_closed_to_pods_that_do_not_tolerate_its_taints() {
    let taint = |effect: &str| json!({ "taints": [{ "key": "team", "value": "x", "effect": effect }] });
    let world = World::new([
        with_spec("reserved", taint("NoSchedule")),
        with_spec("evicting", taint("NoExecute")),
        with_spec("soft", taint("PreferNoSchedule")),
        with_spec("cordoned", json!({ "unschedulable": true })),
        node("open", 2, 15_360),
    ])
    .await;
    let nodes = ["reserved", "evicting", "soft", "cordoned", "open"];
    let unschedulable = json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Exists" });
    let cases = [
        (json!([]), vec!["reserved", "evicting", "cordoned"]),
        (json!([{ "key": "team", "operator": "Exists", "effect": "NoSchedule" }]), vec!["evicting", "cordoned"]),
        (json!([{ "key": "team", "value": "x" }]), vec!["cordoned"]),
        (json!([{ "key": "team", "value": "y" }]), vec!["reserved", "evicting", "cordoned"]),
        (json!([unschedulable]), vec!["reserved", "evicting"]),
        (json!([{ "operator": "Exists" }]), vec![]),
    ];
    for (number, (tolerations, closed)) in cases.into_iter().enumerate() {
        for at in nodes {
            let name = format!("p{number}-{at}");
            let p = world.api.create("pods", tolerating(&name, tolerations.clone())).unwrap();
            let used = world.used(at);
            let answer = world.bind(&p, at).await;
            assert_eq!(answer.is_err(), closed.contains(&at), "{at} {tolerations}: {answer:?}");
            if let Err(error) = answer {
                let why = if at == "cordoned" { "node cordoned is unschedulable" } else { "team=x:No" };
                assert!(error.contains(why), "{error}");
                assert_eq!(world.used(at), used);
                assert!(world.api.get("pods", "default", &name).unwrap()["spec"].get("nodeName").is_none());
            }
        }
    }
}

/// The scheduler that asked before gets the reason, and tries again.
#[tokio::test]
async fn a_taint_that_comes_between_filter_and_bind_is_respected_and_one_that_goes_is_forgotten() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let p = world.pod("p", share("50", "10")).await;
    assert_eq!(world.client.filter(&p, &world.nodes()).await.unwrap().nodes, ["a"]);
    let closed = |w: &World| w.extender.cluster().closed(&"a".into(), &[]).is_some();
    for spec in [json!({ "unschedulable": true }), json!({ "taints": [{ "key": "k", "effect": "NoSchedule" }] })] {
        world.api.patch("nodes", "", "a", &json!({ "spec": spec })).unwrap();
        world.until("closed", closed).await;
        assert!(world.bind(&p, "a").await.is_err());
        assert_eq!(world.used("a"), [0]);
        world.api.patch("nodes", "", "a", &json!({ "spec": { "unschedulable": null, "taints": null } })).unwrap();
        world.until("open", |w| !closed(w)).await;
    }
    world.bind(&p, "a").await.unwrap();
    // tolerations may be added to a pod that waits
    let q = world.pod("q", share("20", "5")).await;
    let taints = json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } });
    world.api.patch("nodes", "", "a", &taints).unwrap();
    world.until("closed", closed).await;
    assert!(world.bind(&q, "a").await.is_err());
    let more = json!({ "spec": { "tolerations": [{ "key": "k", "operator": "Exists" }] } });
    world.api.patch("pods", "default", "q", &more).unwrap();
    let tolerates = |w: &World| w.extender.cluster().waiting(&uid(&q)).is_some_and(|q| !q.tolerations.is_empty());
    world.until("tolerates", tolerates).await;
    world.bind(&q, "a").await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_being_deleted_takes_no_pod_and_keeps_those_it_has() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let p = world.pod("p", share("50", "10")).await;
    world.bind(&p, "a").await.unwrap();
    let q = world.api.create("pods", tolerating("q", json!([{ "operator": "Exists" }]))).unwrap();
    // a real Node would be kept by finalizers, which the stand-in does not have: so it is created again in that state
    world.api.force_delete("nodes", "", "a").unwrap();
    let mut leaving = node("a", 1, 15_360);
    leaving["metadata"]["deletionTimestamp"] = DELETED.into();
    world.api.create("nodes", leaving).unwrap();
    world.until("closed", |w| w.extender.cluster().closed(&"a".into(), &[]).is_some()).await;
    let filtered = world.client.filter(&q, &world.nodes()).await.unwrap();
    assert_eq!(filtered.unresolvable["a"], "every GPU is unhealthy or cordoned");
    assert!(world.bind(&q, "a").await.unwrap_err().contains("node a is being deleted"));
    assert_eq!(world.used("a"), [500]);
    world.api.force_delete("nodes", "", "a").unwrap();
    world.until("forgotten", |w| w.extender.cluster().closed(&"a".into(), &[]).is_none()).await;
    assert!(world.bind(&q, "a").await.unwrap_err().contains("unknown"));
}
