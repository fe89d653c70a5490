//! `simulate`, as an autoscaler calls it: about nodes that exist and nodes that it might add.

use std::num::NonZeroU16;

use kerf::annotation::Keys;
use kerf_extender::config::Config;
use kerf_testkit::api::ApiServer;
use serde_json::{Value, json};

use crate::fixture::{World, bare_node, config, node, pod, share};

async fn call(world: &World, verb: &str, body: Value) -> Value {
    let answer = reqwest::Client::new().post(format!("{}/{verb}", world.url)).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// The names of the nodes that could take the pod, and the whole answer.
async fn simulate(world: &World, pod: &Value, nodes: &[Value]) -> (Vec<String>, Value) {
    let answer = call(world, "simulate", json!({ "Pod": pod, "Nodes": { "items": nodes } })).await;
    assert_eq!(answer["Error"], "");
    let items = answer["Nodes"]["items"].as_array().unwrap();
    (items.iter().map(|node| node["metadata"]["name"].as_str().unwrap().to_owned()).collect(), answer)
}

#[tokio::test]
async fn a_node_that_does_not_exist_has_the_cards_of_its_object() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let keys = Keys::default();
    let mut odd = node("odd", 1, 15_360);
    odd["metadata"]["annotations"][&keys.inventory] = "{".into();
    // a copy of a live node without its annotations: what it offers is still known
    let mut copied = bare_node("copied", "200", "120");
    copied["status"]["conditions"] = json!([{ "type": "KerfGPUsHealthy", "status": "True" }]);
    let nodes = [
        node("new-1", 1, 15_360),
        node("new-2", 4, 15_360),
        node("cpu", 0, 0),
        bare_node("bare", "200", "120"),
        copied,
        odd,
    ];
    let (fit, answer) = simulate(&world, &pod("p", share("200", "")), &nodes).await;
    assert_eq!(fit, ["new-2", "bare", "copied"]);
    assert_eq!(answer["Nodes"]["items"][0], nodes[1], "the node comes back as it was sent");
    assert_eq!(
        answer["FailedAndUnresolvableNodes"],
        json!({
            "new-1": "node has too few GPUs, or too little memory on them",
            "cpu": "no GPU device",
            "odd": "GPU inventory of the node cannot be read",
        })
    );
    for verb in ["simulate", "filter"] {
        let both = json!({ "Pod": pod("p", share("10", "1")), "NodeNames": [], "Nodes": { "items": [node("a", 1, 15_360)] } });
        let answer = call(&world, verb, both).await;
        assert_eq!(answer["Nodes"]["items"][0]["metadata"]["name"], "a", "{verb}: an empty list of names is none");
    }
    let unknown =
        call(&world, "simulate", json!({ "Pod": pod("p", share("10", "1")), "NodeNames": ["a", "x"] })).await;
    assert_eq!(unknown["NodeNames"], json!(["a"]));
    assert_eq!(unknown["FailedAndUnresolvableNodes"], json!({ "x": "node is unknown to the GPU extender" }));
}

/// The trap of totals: each of the two cards has half of what the pod needs.
#[tokio::test]
async fn a_node_that_exists_is_taken_as_it_is_and_not_as_its_object_says() {
    let world = World::new([node("a", 2, 15_360)]).await;
    for name in ["x", "y"] {
        let placed = world.pod(name, share("60", "10")).await;
        world.bind(&placed, "a").await.unwrap();
    }
    let wanted = pod("p", share("60", "10"));
    let (fit, answer) = simulate(&world, &wanted, &[node("a", 2, 15_360), node("b", 2, 15_360)]).await;
    assert_eq!(fit, ["b"]);
    assert_eq!(answer["FailedNodes"], json!({ "a": "insufficient vcuda-core on a single GPU" }));
}

/// Autoscalers add no node where an empty one would not do.
#[tokio::test]
async fn what_an_empty_node_cannot_take_is_unresolvable_however_many_pods_are_on_it() {
    let world = World::new([node("full", 2, 15_360), node("busy", 3, 15_360)]).await;
    for (number, name) in ["full", "full", "busy"].iter().enumerate() {
        let placed = world.pod(&format!("x{number}"), share("60", "10")).await;
        world.bind(&placed, name).await.unwrap();
    }
    let containers = |cores: [&str; 2], memory: &str| {
        let [first, second] = cores.map(|core| share(core, memory)[0].clone());
        let mut both = json!([first, second]);
        both[1]["name"] = "second".into();
        pod("p", both)
    };
    let nodes =
        [node("full", 2, 15_360), node("busy", 3, 15_360), node("new-1", 1, 15_360), node("new-2", 2, 15_360)];
    let names =
        |answer: &Value, list: &str| -> Vec<String> { answer[list].as_object().unwrap().keys().cloned().collect() };
    let (fit, answer) = simulate(&world, &containers(["100", "200"], ""), &nodes).await;
    assert!(fit.is_empty());
    assert_eq!(names(&answer, "FailedNodes"), ["busy"]);
    assert_eq!(names(&answer, "FailedAndUnresolvableNodes"), ["full", "new-1", "new-2"]);
    let (fit, answer) = simulate(&world, &containers(["60", "60"], "1"), &nodes).await;
    assert_eq!(fit, ["busy", "new-2"]);
    assert_eq!(names(&answer, "FailedNodes"), ["full"]);
    assert_eq!(names(&answer, "FailedAndUnresolvableNodes"), ["new-1"]);
}

#[tokio::test]
async fn it_returns_all_that_fit_and_neither_heeds_nor_leaves_anything_of_pods_on_their_way() {
    let api = ApiServer::start().await.unwrap();
    let nodes: Vec<Value> = (0..5).map(|number| node(&format!("n{number}"), 1, 15_360)).collect();
    nodes.iter().for_each(|node| drop(api.create("nodes", node.clone()).unwrap()));
    let world = World::on(api, Config { candidates: NonZeroU16::new(1), ..config() }).await;
    // an autoscaler asks about pods that wait
    let imagined = world.pod("imagined", share("60", "10")).await;
    let all = ["n0", "n1", "n2", "n3", "n4"];
    for _ in 0..3 {
        assert_eq!(simulate(&world, &imagined, &nodes).await.0, all);
    }
    let first = world.pod("first", share("60", "10")).await;
    let chosen = async |pod: &Value| {
        let answer = call(&world, "filter", json!({ "Pod": pod, "NodeNames": all })).await;
        answer["NodeNames"].as_array().unwrap().clone()
    };
    assert_eq!(chosen(&first).await, ["n0"], "where the other would have been expected");
    let second = world.pod("second", share("60", "10")).await;
    assert_eq!(simulate(&world, &second, &nodes).await.0, all, "the first is expected on n0, and not there yet");
    assert_eq!(chosen(&second).await, ["n1"]);
    let large = pod("large", share("200", ""));
    assert!(simulate(&world, &large, &nodes).await.0.is_empty());
    let metrics = world.text("/metrics").await;
    assert!(metrics.contains(r#"kerf_extender_requests_total{outcome="ok",verb="simulate"} 5"#), "{metrics}");
    let mut unfit = metrics.lines().filter(|line| line.starts_with("kerf_extender_unfit_total"));
    assert!(unfit.all(|line| line.ends_with(" 0")), "what is imagined does not count as refused");
    let state: Value = serde_json::from_str(&world.text("/debug/state").await).unwrap();
    assert_eq!(state["decisions"], json!([]));
    assert!(world.api.writes().is_empty());
}

#[tokio::test]
async fn pods_that_ask_for_no_card_or_break_a_rule_are_answered_as_by_filter() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let nodes = [node("a", 1, 15_360), node("new", 1, 15_360)];
    assert_eq!(simulate(&world, &pod("p", json!([{ "name": "main" }])), &nodes).await.0, ["a", "new"]);
    let (fit, answer) = simulate(&world, &pod("p", share("150", "")), &nodes).await;
    assert!(fit.is_empty());
    assert!(answer["FailedAndUnresolvableNodes"]["new"].as_str().unwrap().contains("multiple of 100"));
}
