//! What a pod holds itself never blocks it.

use std::sync::Arc;

use kerf_testkit::api::{Action, Fault};
use serde_json::{Value, json};

use crate::fixture::{World, node, pod, share};

/// Calls bind, and the write is lost before the API server has read it, so that the cards stay held.
async fn lose(world: &World, pod: &Value, node: &str) {
    let before = world.used(node);
    world.api.inject(Fault::new("create", "pods/binding", Action::DropBefore).times(1));
    let doubt = world.bind(pod, node).await.unwrap_err();
    assert!(doubt.contains("unknown"), "{doubt}");
    assert_ne!(world.used(node), before, "held while in doubt");
}

async fn left(world: &World, pod: &Arc<Value>, nodes: &[&str]) -> Vec<String> {
    let of = |node: &Arc<Value>| nodes.contains(&node["metadata"]["name"].as_str().unwrap());
    let nodes: Vec<Arc<Value>> = world.nodes().into_iter().filter(of).collect();
    world.client.filter(pod, &nodes).await.unwrap().nodes
}

/// Requests of which a card has room for only one.
fn shapes() -> Vec<(&'static str, Value)> {
    let container = |name: &str, core: &str, memory: &str| {
        let mut container = share(core, memory)[0].clone();
        container["name"] = name.into();
        container
    };
    let mut init = pod("init", json!([container("main", "10", "10")]));
    init["spec"]["initContainers"] = json!([container("before", "60", "30")]);
    let mut sidecar = pod("sidecar", json!([container("main", "30", "10")]));
    sidecar["spec"]["initContainers"] = json!([container("beside", "30", "10")]);
    sidecar["spec"]["initContainers"][0]["restartPolicy"] = "Always".into();
    let two = pod("two", json!([container("one", "40", "20"), container("two", "40", "20")]));
    vec![
        ("share", pod("share", share("60", "30"))),
        ("whole", pod("whole", share("100", ""))),
        ("init", init),
        ("sidecar", sidecar),
        ("two", two),
    ]
}

#[tokio::test]
async fn a_pod_whose_binding_was_lost_still_fits_where_it_holds_cards() {
    for (shape, object) in shapes() {
        let world = World::new([node("a", 1, 15_360)]).await;
        let pod = world.api.create("pods", object).unwrap();
        lose(&world, &pod, "a").await;
        assert_eq!(left(&world, &pod, &["a"]).await, ["a"], "{shape}");
        let other = world.pod("other", share("60", "30")).await;
        assert!(left(&world, &other, &["a"]).await.is_empty(), "{shape}: it is held for nobody else");
        world.bind(&pod, "a").await.unwrap();
        assert_eq!(world.placements().len(), 1);
    }
}

#[tokio::test]
async fn where_it_holds_cards_it_goes_first_and_another_node_will_do() {
    let world = World::new([node("a", 1, 15_360), node("b", 1, 15_360), node("c", 4, 15_360)]).await;
    let pod = world.pod("p", share("60", "30")).await;
    lose(&world, &pod, "c").await;
    let scores = world.client.prioritize(&pod, &world.nodes()).await.unwrap();
    assert_eq!(scores.first().map(|best| (best.host.as_str(), best.score)), Some(("c", 10)));
    assert_eq!(left(&world, &pod, &["a", "b", "c"]).await, ["a", "b", "c"]);
    // the scheduler may have another reason against the other node
    assert_eq!(left(&world, &pod, &["b"]).await, ["b"]);
    world.bind(&pod, "b").await.unwrap();
    assert_eq!((world.used("b"), world.used("c")), (vec![600], vec![0; 4]));
}

#[tokio::test]
async fn a_hold_elsewhere_makes_no_room_where_there_is_none() {
    let world = World::new([node("a", 1, 15_360), node("b", 1, 15_360)]).await;
    let pod = world.pod("p", share("60", "30")).await;
    lose(&world, &pod, "a").await;
    let full = world.pod("full", share("60", "30")).await;
    world.bind(&full, "b").await.unwrap();
    assert_eq!(left(&world, &pod, &["a", "b"]).await, ["a"]);
    assert!(left(&world, &pod, &["b"]).await.is_empty());
}

#[tokio::test]
async fn predicates_gives_a_large_share_the_same_node_again() {
    let world = World::legacy([node("a", 1, 15_360), node("b", 1, 15_360)]).await;
    let pod = world.pod("p", share("60", "30")).await;
    for _ in 0..3 {
        assert_eq!(world.client.predicates(&pod, &world.nodes()).await.unwrap().nodes, ["a"]);
        assert_eq!((world.used("a"), world.used("b")), (vec![600], vec![0]));
    }
}

#[tokio::test]
async fn nobody_is_evicted_for_a_card_that_the_pod_itself_holds() {
    let world = World::new([node("n", 2, 15_360)]).await;
    let asking = |name: &str, priority: i32| {
        let mut object = pod(name, share("100", ""));
        object["spec"]["priority"] = priority.into();
        world.api.create("pods", object).unwrap()
    };
    let low = asking("low", 0);
    world.bind(&low, "n").await.unwrap();
    let observed = |world: &World| {
        let nodes = world.extender.cluster().snapshot();
        nodes[0].ledger.commitments().values().any(|known| known.state.as_str() == "observed")
    };
    world.until("the first is seen bound", observed).await;
    let high = asking("high", 10);
    lose(&world, &high, "n").await;
    let answer = |victims: Value| {
        let body =
            json!({ "Pod": *high, "NodeNameToMetaVictims": { "n": { "Pods": victims, "NumPDBViolations": 0 } } });
        let post = reqwest::Client::new().post(format!("{}/preempt", world.url)).json(&body).send();
        async { post.await.unwrap().json::<Value>().await.unwrap()["NodeNameToMetaVictims"].clone() }
    };
    assert_eq!(answer(json!([])).await, json!({}));
    // the scheduler's victims are for another resource than cards
    let chosen = json!([{ "UID": "without-cards" }]);
    assert_eq!(answer(chosen.clone()).await["n"]["Pods"], chosen);
}
