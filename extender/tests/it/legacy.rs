//! `/scheduler/predicates`, for a scheduler that binds pods itself.

use std::sync::Arc;
use std::time::Duration;

use kerf::annotation::Keys;
use kerf_extender::config::Config;
use kerf_testkit::api::{Action, ApiServer, Fault, Injected};
use serde_json::{Value, json};

use crate::fixture::{World, config, node, share};

const NOT_WRITTEN: &str = "GPU placement could not be written on the pod";

#[tokio::test]
async fn one_node_is_left_and_the_record_is_on_the_pod() {
    let world = World::legacy([node("a", 1, 15_360), node("b", 2, 15_360), node("c", 0, 0)]).await;
    let pod = world.pod("p", share("50", "30")).await;
    let filtered = world.client.predicates(&pod, &world.nodes()).await.unwrap();
    assert_eq!(filtered.nodes, ["a"]);
    assert_eq!(filtered.failed["b"], "pod has been placed on another node");
    assert_eq!(filtered.unresolvable["c"], "no GPU device");
    let keys = Keys::default();
    let stored = world.api.get("pods", "default", "p").unwrap();
    assert_eq!(stored["metadata"]["annotations"][&keys.predicate_node], "a");
    assert_eq!(world.used("a"), [500], "held before the scheduler binds");
    world.api.bind("default", "p", "a").unwrap();
    world
        .until("observed", |w| {
            let nodes = w.extender.cluster().snapshot();
            nodes[0].ledger.commitments().values().all(|c| c.state.as_str() == "observed")
        })
        .await;
    assert_eq!(world.used("a"), [500]);
}

#[tokio::test]
async fn a_retried_pod_is_placed_again_and_counted_once() {
    let world = World::legacy([node("a", 1, 15_360), node("b", 2, 15_360)]).await;
    let pod = world.pod("p", share("50", "30")).await;
    assert_eq!(world.client.predicates(&pod, &world.nodes()).await.unwrap().nodes, ["a"]);
    assert_eq!(world.client.predicates(&pod, &world.nodes()).await.unwrap().nodes, ["a"]);
    let b: Vec<_> = world.nodes().into_iter().filter(|n| n["metadata"]["name"] == "b").collect();
    assert_eq!(world.client.predicates(&pod, &b).await.unwrap().nodes, ["b"]);
    assert_eq!((world.used("a"), world.used("b")), (vec![0], vec![500, 0]));
}

#[tokio::test]
async fn sixteen_back_to_back_get_eight_cards() {
    let world = World::legacy([node("n0", 8, 15_360)]).await;
    let mut placed = 0;
    for number in 0..16 {
        let pod = world.pod(&format!("p{number}"), share("100", "")).await;
        placed += world.client.predicates(&pod, &world.nodes()).await.unwrap().nodes.len();
    }
    assert_eq!(placed, 8);
    let mut cards: Vec<String> = world.placements().into_values().flatten().collect();
    cards.sort();
    cards.dedup();
    assert_eq!(cards.len(), 8);
}

#[tokio::test]
async fn without_the_right_to_patch_every_node_fails_after_one_try_and_nothing_is_held() {
    let world = World::legacy([node("a", 1, 15_360), node("b", 2, 15_360), node("c", 2, 15_360)]).await;
    let pod = world.pod("p", share("50", "30")).await;
    let refused = world.api.inject(Fault::new("patch", "pods/status", Action::Status(403)));
    let filtered = world.client.predicates(&pod, &world.nodes()).await.unwrap();
    assert!(filtered.nodes.is_empty());
    for node in ["a", "b", "c"] {
        assert_eq!(filtered.failed[node], NOT_WRITTEN);
    }
    assert_eq!(refused.hits(), 1, "it would be refused for the next node as well");
    assert_eq!((world.used("a"), world.used("b"), world.used("c")), (vec![0], vec![0, 0], vec![0, 0]));
}

#[tokio::test]
async fn it_is_served_where_it_is_asked_for_and_needs_no_more_than_the_status() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let pod = world.pod("p", share("50", "30")).await;
    let body = json!({ "Pod": *pod, "NodeNames": ["a"] });
    let answer = reqwest::Client::new().post(format!("{}/predicates", world.url)).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    assert!(world.api.writes().is_empty());
    let world = World::legacy([node("a", 1, 15_360)]).await;
    let pod = world.pod("p", share("50", "30")).await;
    assert_eq!(world.client.predicates(&pod, &world.nodes()).await.unwrap().nodes, ["a"]);
    let writes: Vec<_> = world.api.writes().into_iter().collect();
    assert_eq!(writes, [(("patch".to_owned(), "pods/status".to_owned()), 1)]);
}

#[tokio::test]
async fn a_placement_that_was_not_answered_keeps_its_cards_until_the_pod_is_placed_anew() {
    let world = World::legacy([node("a", 1, 15_360), node("b", 1, 15_360)]).await;
    let pod = world.pod("p", share("60", "30")).await;
    for action in [Action::DropAfter, Action::DropBefore] {
        let lost = world.api.inject(Fault::new("patch", "pods/status", action).times(1));
        let filtered = world.client.predicates(&pod, &world.nodes()[..1]).await.unwrap();
        assert!(filtered.nodes.is_empty());
        assert_eq!((lost.hits(), filtered.failed["a"].as_str()), (1, NOT_WRITTEN));
        assert_eq!(world.used("a"), [600], "it may stand on the pod");
        let other = world.pod(&format!("other-{action:?}").to_lowercase(), share("60", "30")).await;
        assert!(world.client.filter(&other, &world.nodes()[..1]).await.unwrap().nodes.is_empty());
        assert_eq!(world.client.predicates(&pod, &world.nodes()[1..]).await.unwrap().nodes, ["b"]);
        assert_eq!((world.used("a"), world.used("b")), (vec![0], vec![600]));
    }
}

/// Sends a pod unchanged, with one candidate; returns whether it was placed there.
async fn placed(world: &World, pod: &Value, node: &str) -> bool {
    let body = json!({ "Pod": pod, "NodeNames": [node] });
    let answer = reqwest::Client::new().post(format!("{}/predicates", world.url)).json(&body).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["Error"], "");
    answer["NodeNames"] == json!([node])
}

#[tokio::test]
async fn a_made_up_pod_reserves_and_writes_nothing() {
    let world = World::legacy([node("a", 1, 15_360), node("b", 1, 15_360)]).await;
    let [p, q] = [world.pod("p", share("50", "30")).await, world.pod("q", share("10", "1")).await];
    let changed = |at: &str, text: &str| {
        let mut pod = (*p).clone();
        *pod.pointer_mut(at).unwrap() = text.into();
        pod
    };
    let uid = q["metadata"]["uid"].as_str().unwrap();
    for pod in [
        changed("/metadata/uid", "6b2f9a3c-8f1e-4c55-9d0b-0a1b2c3d4e5f"),
        changed("/metadata/uid", uid),
        changed("/metadata/uid", ""),
        changed("/metadata/name", "nobody"),
        changed("/metadata/name", "q"),
        changed("/metadata/name", ""),
        changed("/metadata/namespace", "elsewhere"),
    ] {
        assert!(!placed(&world, &pod, "b").await, "{pod}");
        assert_eq!((world.used("a"), world.used("b")), (vec![0], vec![0]), "{pod}");
        assert!(world.api.writes().is_empty(), "{pod}");
    }
    // the API server's request counts, not the caller's
    let mut greedy = (*q).clone();
    greedy["spec"]["containers"] = share("50", "30");
    assert!(placed(&world, &greedy, "b").await);
    assert_eq!(world.used("b"), [100]);
}

#[tokio::test]
async fn a_pod_that_is_bound_runs_or_ends_is_not_placed() {
    let world = World::legacy([node("a", 1, 15_360), node("b", 1, 15_360)]).await;
    for state in ["bound", "running", "ending"] {
        let pod = world.pod(state, share("30", "10")).await;
        world.bind(&pod, "a").await.unwrap();
        match state {
            "running" => {
                drop(world.api.patch_status("pods", "default", state, json!({ "phase": "Running" })).unwrap());
            }
            "ending" => world.api.delete("pods", "default", state).unwrap(),
            _ => {}
        }
        let (used, writes) = (world.used("a"), world.api.writes());
        for node in ["a", "b"] {
            assert!(!placed(&world, &pod, node).await, "{state} {node}");
        }
        assert_eq!((world.used("a"), world.used("b"), world.api.writes()), (used, vec![0], writes), "{state}");
    }
}

/// An extender whose requests to the API server may take long, with a fault that holds some of them.
async fn held(verb: &str, resource: &str) -> (Arc<World>, Injected) {
    let api = ApiServer::start().await.unwrap();
    for name in ["a", "b"] {
        api.create("nodes", node(name, 1, 15_360)).unwrap();
    }
    let fault = api.inject(Fault::new(verb, resource, Action::Hold));
    let config = Config { legacy: true, write_timeout: Duration::from_secs(5), ..config() };
    (Arc::new(World::on(api, config).await), fault)
}

#[tokio::test]
async fn a_binding_under_way_or_in_doubt_keeps_its_cards() {
    let (world, held) = held("create", "pods/binding").await;
    let pod = world.pod("p", share("60", "30")).await;
    let binding = tokio::spawn({
        let (world, pod) = (world.clone(), pod.clone());
        async move { world.bind(&pod, "a").await }
    });
    world.until("under way", |w| w.used("a") == [600]).await;
    for node in ["a", "b"] {
        assert!(!placed(&world, &pod, node).await, "{node}");
        assert_eq!((world.used("a"), world.used("b")), (vec![600], vec![0]), "{node}");
    }
    assert!(world.bind(&pod, "b").await.unwrap_err().contains("another call"));
    held.remove();
    binding.await.unwrap().unwrap();
    assert_eq!(world.used("a"), [600]);

    let doubt = world.pod("doubt", share("60", "30")).await;
    let unanswered = world.api.inject(Fault::new("create", "pods/binding", Action::DropBefore).times(1));
    assert!(world.bind(&doubt, "b").await.unwrap_err().contains("unknown"));
    assert_eq!(unanswered.hits(), 1);
    assert!(!placed(&world, &doubt, "b").await);
    assert_eq!(world.used("b"), [600], "the binding may still be written");
}

#[tokio::test]
async fn one_call_at_a_time_places_a_pod() {
    let (world, held) = held("patch", "pods/status").await;
    let pod = world.pod("p", share("60", "30")).await;
    let first = tokio::spawn({
        let (world, pod) = (world.clone(), pod.clone());
        async move { placed(&world, &pod, "a").await }
    });
    world.until("under way", |w| w.used("a") == [600]).await;
    assert!(!placed(&world, &pod, "b").await);
    assert!(world.bind(&pod, "b").await.unwrap_err().contains("another call"));
    assert_eq!((world.used("a"), world.used("b")), (vec![600], vec![0]));
    held.remove();
    assert!(first.await.unwrap());
    assert_eq!(world.api.writes().values().sum::<u64>(), 1);
    // afterwards it may be placed elsewhere, or bound
    assert!(placed(&world, &pod, "b").await);
    assert_eq!((world.used("a"), world.used("b")), (vec![0], vec![600]));
    world.bind(&pod, "b").await.unwrap();
    assert_eq!((world.used("a"), world.used("b")), (vec![0], vec![600]));
}
