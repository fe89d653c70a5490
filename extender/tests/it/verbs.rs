//! Filter and prioritize.

use std::num::NonZeroU16;

use kerf::annotation::Keys;
use kerf_extender::config::Config;
use kerf_testkit::api::ApiServer;
use serde_json::{Value, json};

use crate::fixture::{World, bare_node, config, node, share};

async fn post(world: &World, verb: &str, body: &Value) -> Value {
    let answer = reqwest::Client::new().post(format!("{}/{verb}", world.url)).json(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

#[tokio::test]
async fn names_and_objects_and_both_key_cases_get_the_same_answer() {
    let world = World::new([node("a", 1, 15_360), node("b", 0, 0)]).await;
    let pod = world.pod("p", share("50", "10")).await;
    let nodes: Vec<Value> = world.nodes().iter().map(|node| (**node).clone()).collect();
    for body in [
        json!({ "Pod": *pod, "Nodes": null, "NodeNames": ["a", "b"] }),
        json!({ "pod": *pod, "nodenames": ["a", "b"] }),
        json!({ "pod": *pod, "nodeNames": ["a", "b"] }),
    ] {
        let answer = post(&world, "filter", &body).await;
        assert_eq!(answer["NodeNames"], json!(["a"]));
        assert_eq!(answer["Nodes"], Value::Null);
        assert_eq!(answer["FailedAndUnresolvableNodes"], json!({ "b": "no GPU device" }));
        assert_eq!(answer["FailedNodes"], json!({}));
        assert_eq!(answer["Error"], "");
    }
    for key in ["Nodes", "nodes"] {
        let answer = post(&world, "filter", &json!({ "Pod": *pod, key: { "items": nodes } })).await;
        assert_eq!(answer["NodeNames"], Value::Null);
        assert_eq!(answer["Nodes"]["items"], json!([nodes[0]]), "the node comes back as it was sent");
    }
}

#[tokio::test]
async fn the_best_node_alone_scores_ten() {
    let world = World::new((0..5).map(|i| node(&format!("n{i}"), i + 1, 15_360))).await;
    let pod = world.pod("p", share("50", "10")).await;
    let scores = world.client.prioritize(&pod, &world.nodes()).await.unwrap();
    let scores: Vec<(String, i64)> = scores.into_iter().map(|s| (s.host, s.score)).collect();
    let expected = [("n0", 10), ("n1", 9), ("n2", 8), ("n3", 8), ("n4", 7)];
    assert_eq!(scores, expected.map(|(node, score)| (node.to_owned(), score)));
}

/// A world where filter leaves this many nodes to the scheduler.
async fn leaving(candidates: u16, nodes: impl IntoIterator<Item = Value>) -> World {
    let api = ApiServer::start().await.unwrap();
    nodes.into_iter().for_each(|node| drop(api.create("nodes", node).unwrap()));
    World::on(api, Config { candidates: NonZeroU16::new(candidates), ..config() }).await
}

#[tokio::test]
async fn filter_leaves_the_best_nodes_and_calls_the_others_neither_fit_nor_unfit() {
    let world = leaving(2, (0..5).rev().map(|i| node(&format!("n{i}"), i, 15_360))).await;
    let pod = world.pod("p", share("50", "10")).await;
    let names = json!(["n4", "n3", "n0", "n2", "n1"]);
    let answer = post(&world, "filter", &json!({ "Pod": *pod, "NodeNames": names })).await;
    assert_eq!(answer["NodeNames"], json!(["n2", "n1"]), "in the order in which they came");
    assert_eq!(answer["FailedNodes"], json!({}));
    assert_eq!(answer["FailedAndUnresolvableNodes"], json!({ "n0": "no GPU device" }));
    // where no more fit than may be left, all that fit come back
    let answer = post(&world, "filter", &json!({ "Pod": *pod, "NodeNames": ["n4", "n0", "n3"] })).await;
    assert_eq!(answer["NodeNames"], json!(["n4", "n3"]));
}

#[tokio::test]
async fn one_node_alone_is_where_the_pod_is_expected() {
    let world = leaving(1, [node("a", 1, 15_360), node("b", 2, 15_360)]).await;
    let nodes = world.nodes();
    let chosen = async |name: &str| {
        let pod = world.pod(name, share("60", "10")).await;
        world.client.filter(&pod, &nodes).await.unwrap().nodes
    };
    let name = |nodes: Vec<String>| nodes.concat();
    assert_eq!(name(chosen("first").await), "a");
    assert_eq!(name(chosen("second").await), "b", "the first is expected on a, though nobody asked for scores");
}

#[tokio::test]
async fn the_next_pod_is_planned_as_if_the_last_one_were_bound() {
    let world = World::new([node("a", 1, 15_360), node("b", 2, 15_360)]).await;
    let nodes = world.nodes();
    let best = async |name: &str| {
        let pod = world.pod(name, share("60", "10")).await;
        assert_eq!(world.client.filter(&pod, &nodes).await.unwrap().nodes.len(), 2, "it never refuses");
        let scores = world.client.prioritize(&pod, &nodes).await.unwrap();
        scores.into_iter().find(|s| s.score == 10).unwrap().host
    };
    assert_eq!(best("first").await, "a");
    assert_eq!(best("second").await, "b", "the first is expected on a, where no second one has room");
}

#[tokio::test]
async fn a_filter_that_leaves_one_node_is_an_intent() {
    let world = World::new([node("a", 1, 15_360), node("b", 2, 15_360)]).await;
    let nodes = world.nodes();
    let first = world.pod("first", share("60", "10")).await;
    let hinted: Vec<_> = nodes.iter().filter(|n| n["metadata"]["name"] == "a").cloned().collect();
    assert_eq!(world.client.filter(&first, &hinted).await.unwrap().nodes, ["a"]);
    let second = world.pod("second", share("60", "10")).await;
    let scores = world.client.prioritize(&second, &nodes).await.unwrap();
    assert_eq!(scores.iter().find(|s| s.score == 10).unwrap().host, "b");
}

#[tokio::test]
async fn a_pod_may_choose_its_policy() {
    let world = World::new([node("a", 1, 15_360), node("b", 2, 15_360)]).await;
    let mut pod = crate::fixture::pod("p", share("50", "10"));
    pod["metadata"]["annotations"] = json!({ &Keys::default().policy: "spread" });
    let pod = world.api.create("pods", pod).unwrap();
    let scores = world.client.prioritize(&pod, &world.nodes()).await.unwrap();
    assert_eq!(scores[0].host, "b");
}

#[tokio::test]
async fn pods_without_gpu_pass_everywhere() {
    let world = World::new([node("a", 1, 15_360), node("b", 0, 0)]).await;
    let pod = world.pod("p", json!([{ "name": "main" }])).await;
    let answer = post(&world, "filter", &json!({ "Pod": *pod, "NodeNames": ["a", "b", "unknown"] })).await;
    assert_eq!(answer["NodeNames"], json!(["a", "b", "unknown"]));
}

#[tokio::test]
async fn reasons_name_the_container_and_the_rule_and_carry_no_amounts() {
    let world = World::new([node("a", 2, 15_360), bare_node("old", "50", "10")]).await;
    let names = json!(["a", "old", "ghost"]);
    for (core, memory, on_a) in [
        ("150", "10", r#"container "main": vcuda-core must be 1..99 or a multiple of 100"#),
        ("50", "", r#"container "main": a share (vcuda-core below 100) needs vcuda-memory"#),
        ("-5", "1", r#"container "main": vcuda-core must not be negative"#),
        ("50", "1.5", r#"container "main": vcuda-memory must be a whole number"#),
    ] {
        let pod = crate::fixture::pod("p", share(core, memory));
        let answer = post(&world, "filter", &json!({ "Pod": pod, "NodeNames": names })).await;
        assert_eq!(answer["Error"], "");
        assert_eq!(answer["NodeNames"], json!([]));
        assert_eq!(answer["FailedAndUnresolvableNodes"], json!({ "a": on_a, "old": on_a, "ghost": on_a }));
    }
    let pod = crate::fixture::pod("p", share("50", "61"));
    let answer = post(&world, "filter", &json!({ "Pod": pod, "NodeNames": names })).await;
    assert_eq!(
        answer["FailedAndUnresolvableNodes"],
        json!({
            "a": r#"container "main": vcuda-memory is larger than any GPU of the node"#,
            "old": "no GPU device",
            "ghost": "node is unknown to the GPU extender",
        })
    );
    let mut limited = crate::fixture::pod("p", share("50", "10"));
    for limit in ["49", "101", "x", "-1", ""] {
        limited["metadata"]["annotations"] = json!({ &Keys::default().core_limit: limit });
        let answer = post(&world, "filter", &json!({ "Pod": limited, "NodeNames": ["a"] })).await;
        let reason = answer["FailedAndUnresolvableNodes"]["a"].as_str().unwrap();
        assert!(reason.contains("vcuda-core-limit"), "{reason}");
    }
}

#[tokio::test]
async fn what_it_shows_is_there() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let pod = world.pod("p", share("50", "10")).await;
    world.client.filter(&pod, &world.nodes()).await.unwrap();
    world.bind(&pod, "a").await.unwrap();
    let get = async |path: &str| world.text(path).await;
    assert_eq!(get("/livez").await, "ok\n");
    assert_eq!(get("/readyz").await, "ok\n");
    assert!(get("/version").await.contains("kerf-extender"));
    let metrics = get("/metrics").await;
    for line in [
        r#"kerf_extender_gpu_compute_committed_ratio{gpu="GPU-a-0",index="0",model="Test",node="a"} 0.5"#,
        r#"kerf_extender_gpu_compute_free_ratio{gpu="GPU-a-0",index="0",model="Test",node="a"} 0.5"#,
        r#"kerf_extender_binds_total{outcome="bound"} 1"#,
        "kerf_extender_binds_in_doubt 0",
        // what an alert watches is there before anything happened
        r#"kerf_extender_unfit_total{reason="core"} 0"#,
        r#"kerf_extender_invalid_requests_total{rule="policy"} 0"#,
        r#"kerf_extender_requests_total{outcome="error",verb="preempt"} 0"#,
        r#"kerf_extender_request_duration_seconds_count{verb="preempt"} 0"#,
        r#"kerf_extender_commitments{state="assumed"} 0"#,
        r#"kerf_extender_watch_failures_total{kind="nodes"} 0"#,
        concat!("kerf_build_info{program=\"kerf-extender\",version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "\nprocess_start_time_seconds ",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let state: Value = serde_json::from_str(&get("/debug/state").await).unwrap();
    assert_eq!(state["nodes"]["a"]["gpus"][0]["used_compute"], 500);
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    assert_eq!(state["nodes"]["a"]["pods"][uid]["containers"], json!({ "main": ["GPU-a-0"] }));
}
