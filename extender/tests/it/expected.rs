//! Pods that come first are planned first: nominated ones, and those that wait between filter and bind.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::fixture::{World, node, pod, share};

/// Creates a pod and waits until the extender has seen it.
async fn create(world: &World, object: Value) -> Arc<Value> {
    let pod = world.api.create("pods", object).unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap().into();
    world.until("pod seen", |w| w.extender.cluster().is_pending(&uid)).await;
    pod
}

fn asking(name: &str, core: &str, priority: i32) -> Value {
    let mut object = pod(name, share(core, if core == "100" { "" } else { "10" }));
    object["spec"]["priority"] = priority.into();
    object
}

async fn left(world: &World, pod: &Arc<Value>) -> Vec<String> {
    world.client.filter(pod, &world.nodes()).await.unwrap().nodes
}

async fn nominate(world: &World, pod: &Value, node: &str) {
    let name = pod["metadata"]["name"].as_str().unwrap();
    world.api.patch_status("pods", "default", name, json!({ "nominatedNodeName": node })).unwrap();
}

/// Waits until filter's answer for the pod is these nodes.
async fn until_left(world: &World, pod: &Arc<Value>, nodes: &[&str]) {
    let wait = async {
        while left(world, pod).await != nodes {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::fixture::PATIENCE, wait).await.unwrap_or_else(|_| panic!("never {nodes:?}"));
}

#[tokio::test]
async fn a_freed_card_is_kept_for_the_pod_that_it_was_freed_for() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let high = create(&world, asking("high", "100", 1000)).await;
    let low = create(&world, asking("low", "20", 0)).await;
    let higher = create(&world, asking("higher", "20", 2000)).await;
    assert_eq!(left(&world, &low).await, ["a"]);
    nominate(&world, &high, "a").await;
    until_left(&world, &low, &[]).await;
    assert!(world.bind(&low, "a").await.unwrap_err().contains("no longer fits"));
    assert_eq!(left(&world, &high).await, ["a"], "not before itself");
    assert_eq!(left(&world, &higher).await, ["a"], "it need not wait for the less important");
    nominate(&world, &high, "").await;
    until_left(&world, &low, &["a"]).await;
    nominate(&world, &high, "a").await;
    until_left(&world, &low, &[]).await;
    world.api.force_delete("pods", "default", "high").unwrap();
    until_left(&world, &low, &["a"]).await;
}

#[tokio::test]
async fn what_the_nominated_pod_does_not_need_is_for_others() {
    let world = World::new([node("a", 2, 15_360), node("b", 1, 15_360)]).await;
    let high = create(&world, asking("high", "100", 1000)).await;
    nominate(&world, &high, "a").await;
    let small = create(&world, asking("small", "60", 0)).await;
    let two = create(&world, asking("two", "200", 0)).await;
    until_left(&world, &two, &[]).await;
    assert_eq!(left(&world, &small).await, ["a", "b"]);
    world.bind(&small, "a").await.unwrap();
    // on the remaining card
    let high_too = world.bind(&high, "a").await;
    assert!(high_too.is_ok(), "{high_too:?}");
}

#[tokio::test]
async fn while_the_evicted_still_run_their_card_is_planned_as_free() {
    let world = World::new([node("a", 2, 15_360)]).await;
    for (name, core) in [("victim", "90"), ("other", "70")] {
        let pod = create(&world, asking(name, core, 0)).await;
        world.bind(&pod, "a").await.unwrap();
    }
    let high = create(&world, asking("high", "100", 1000)).await;
    let on_the_other = create(&world, asking("on-the-other", "30", 0)).await;
    let on_the_victims = create(&world, asking("on-the-victims", "10", 0)).await;
    world.api.delete("pods", "default", "victim").unwrap();
    nominate(&world, &high, "a").await;
    // 10 are free beside the victim, and would keep the card from becoming free as a whole
    world.bind(&on_the_other, "a").await.unwrap();
    assert_eq!(world.used("a"), [900, 1000]);
    until_left(&world, &on_the_victims, &[]).await;
    world.api.force_delete("pods", "default", "victim").unwrap();
    world.until("the victim is gone", |w| w.used("a")[0] == 0).await;
    assert!(left(&world, &on_the_victims).await.is_empty());
    world.bind(&high, "a").await.unwrap();
}

#[tokio::test]
async fn a_nomination_of_an_invalid_request_is_none() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let mut invalid = asking("invalid", "150", 1000);
    invalid["status"]["nominatedNodeName"] = "a".into();
    world.api.create("pods", invalid).unwrap();
    let low = create(&world, asking("low", "20", 0)).await;
    assert_eq!(left(&world, &low).await, ["a"]);
    // and a pod for which no eviction makes room reserves nothing
    let large = create(&world, asking("large", "200", 1000)).await;
    nominate(&world, &large, "a").await;
    assert_eq!(left(&world, &low).await, ["a"]);
}

#[tokio::test]
async fn nobody_is_evicted_from_a_node_whose_room_is_another_ones() {
    let world = World::new([node("n", 2, 15_360)]).await;
    let victim = create(&world, asking("victim", "100", 0)).await;
    world.bind(&victim, "n").await.unwrap();
    let observed = |world: &World| {
        let nodes = world.extender.cluster().snapshot();
        nodes[0].ledger.commitments().values().any(|known| known.state.as_str() == "observed")
    };
    world.until("seen bound", observed).await;
    let middle = create(&world, asking("middle", "100", 500)).await;
    let preempt = async |names: &str| {
        let meta = json!({ "n": { "Pods": [{ "UID": names }], "NumPDBViolations": 0 } });
        let body = json!({ "Pod": *middle, "NodeNameToMetaVictims": meta });
        let post = reqwest::Client::new().post(format!("{}/preempt", world.url)).json(&body).send();
        let answer: Value = post.await.unwrap().json().await.unwrap();
        answer["NodeNameToMetaVictims"]["n"]["Pods"].clone()
    };
    let uid = victim["metadata"]["uid"].as_str().unwrap();
    // one card is free, so the victims are for another resource
    assert_eq!(preempt("else").await, json!([{ "UID": "else" }]));
    let high = create(&world, asking("high", "100", 1000)).await;
    nominate(&world, &high, "n").await;
    until_left(&world, &middle, &[]).await;
    assert_eq!(preempt(uid).await, json!([{ "UID": uid }]), "the free card is another one's");
}

#[tokio::test]
async fn the_members_of_a_group_hold_their_cards_until_they_are_bound() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let member = |name: &str| {
        let mut object = asking(name, "60", 0);
        object["metadata"]["labels"] = json!({ "scheduling.x-k8s.io/pod-group": "g" });
        object
    };
    let first = create(&world, member("first")).await;
    let second = create(&world, member("second")).await;
    let stranger = create(&world, asking("stranger", "60", 0)).await;
    assert_eq!(left(&world, &first).await, ["a"]);
    assert!(left(&world, &second).await.is_empty(), "bind would refuse it");
    assert!(left(&world, &stranger).await.is_empty());
    assert_eq!(left(&world, &first).await, ["a"], "its own place");
    world.bind(&first, "a").await.unwrap();
    assert_eq!(world.used("a"), [600], "counted once");
    let small = create(&world, asking("small", "40", 0)).await;
    assert_eq!(left(&world, &small).await, ["a"], "counted once");
}

#[tokio::test]
async fn a_pod_with_a_volume_holds_its_card_and_one_without_does_not() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let mut with = asking("with", "60", 0);
    with["spec"]["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    let with = create(&world, with).await;
    let quick = create(&world, asking("quick", "60", 0)).await;
    let last = create(&world, asking("last", "60", 0)).await;
    assert_eq!(left(&world, &quick).await, ["a"]);
    assert_eq!(left(&world, &last).await, ["a"], "an intent steers and never refuses");
    assert_eq!(left(&world, &with).await, ["a"]);
    assert!(left(&world, &last).await.is_empty());
    // a bind that fails ends the expectation
    world.api.inject(
        kerf_testkit::api::Fault::new("create", "pods/binding", kerf_testkit::api::Action::Status(403)).times(1),
    );
    assert!(world.bind(&with, "a").await.is_err());
    assert_eq!(left(&world, &last).await, ["a"]);
}

#[tokio::test]
async fn calls_for_pods_that_nobody_has_seen_hold_nothing() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let mut forged = asking("forged", "100", 1000);
    forged["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555".into();
    forged["metadata"]["labels"] = json!({ "scheduling.x-k8s.io/pod-group": "g" });
    forged["status"]["nominatedNodeName"] = "a".into();
    assert_eq!(left(&world, &Arc::new(forged)).await, ["a"]);
    let low = create(&world, asking("low", "20", 0)).await;
    assert_eq!(left(&world, &low).await, ["a"]);
}
