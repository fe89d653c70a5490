//! Why a pod got its node and GPUs, in `/debug/state`.

use std::sync::Arc;

use kerf_testkit::api::ApiServer;
use serde_json::{Value, json};

use crate::fixture::{World, config, node, share};

/// Calls filter, prioritize and bind as the scheduler does; returns the node.
async fn place(world: &World, pod: &Arc<Value>) -> String {
    let left = world.client.filter(pod, &world.nodes()).await.unwrap().nodes;
    let nodes: Vec<_> = world
        .nodes()
        .into_iter()
        .filter(|node| left.iter().any(|name| node["metadata"]["name"] == **name))
        .collect();
    let scores = world.client.prioritize(pod, &nodes).await.unwrap();
    let best = scores.iter().max_by_key(|score| score.score).unwrap().host.clone();
    world.bind(pod, &best).await.unwrap();
    best
}

async fn decisions(world: &World) -> Vec<Value> {
    let state: Value = serde_json::from_str(&world.text("/debug/state").await).unwrap();
    state["decisions"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_decision_is_told_with_its_alternatives() {
    let api = ApiServer::start().await.unwrap();
    for (name, gpus) in [("a", 1), ("b", 1), ("full", 1), ("none", 0)] {
        api.create("nodes", node(name, gpus, 15_360)).unwrap();
    }
    let world = World::on(api, config()).await;
    for (name, core, node) in [("fills", "100", "full"), ("shares", "20", "b")] {
        let pod = world.pod(name, share(core, if core == "100" { "" } else { "10" })).await;
        world.bind(&pod, node).await.unwrap();
    }
    let pod = world.pod("p", share("50", "10")).await;
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    assert_eq!(place(&world, &pod).await, "b", "binpack");

    let [.., made] = &decisions(&world).await[..] else { panic!("no decision") };
    let gpus = "main: GPU-b-0 (50 core, 2560 MiB)";
    for (field, value) in [
        ("pod", json!("default/p")),
        ("uid", json!(uid)),
        ("node", json!("b")),
        ("gpus", json!(gpus)),
        ("policy", json!("binpack")),
        ("outcome", json!("bound")),
        ("score", json!(10)),
        ("fitting", json!(2)),
        ("runners_up", json!([{ "node": "a", "score": 9 }])),
        ("refused", json!({ "no-gpu": 1, "core": 1 })),
    ] {
        assert_eq!(made[field], value, "{field}: {made}");
    }
}

#[tokio::test]
async fn the_last_decisions_are_kept() {
    let world = World::new([node("a", 8, 15_360)]).await;
    for number in 0..70 {
        let pod = world.pod(&format!("p{number}"), share("5", "1")).await;
        world.bind(&pod, "a").await.unwrap();
    }
    let made = decisions(&world).await;
    assert_eq!(made.len(), 64);
    assert_eq!((&made[0]["pod"], &made[63]["pod"]), (&json!("default/p6"), &json!("default/p69")));
    assert_eq!((&made[63]["score"], &made[63]["runners_up"]), (&Value::Null, &json!([])), "nobody asked before");
}
