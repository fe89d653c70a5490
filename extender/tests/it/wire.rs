//! What a request may have: valid names, and no more of anything than a cluster has.

use kerf_extender::config::Config;
use kerf_testkit::api::ApiServer;
use serde_json::{Value, json};

use crate::fixture::{World, config, node, pod, share};

async fn send(world: &World, verb: &str, body: String) -> Value {
    let answer = reqwest::Client::new().post(format!("{}/{verb}", world.url)).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// Of a verb whose answer has no field for errors, the status tells; the text is short.
async fn refused(world: &World, verb: &str, body: String) -> String {
    let answer = reqwest::Client::new().post(format!("{}/{verb}", world.url)).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 400, "{verb}");
    short(&answer.text().await.unwrap().into()).to_owned()
}

fn hostile_names() -> Vec<String> {
    let short = [
        "?limit=500",
        "x/log?",
        "..",
        ".",
        "a/../b",
        "a b",
        "A",
        "a\0",
        "a\nb",
        "\u{430}",
        "a%2fb",
        "-",
        "a.",
        "a#",
    ];
    short.into_iter().map(str::to_owned).chain(["a".repeat(254), "\u{e4}".repeat(1 << 20)]).collect()
}

fn short(text: &Value) -> &str {
    let text = text.as_str().unwrap();
    assert!(text.chars().count() < 300, "{} characters", text.chars().count());
    text
}

#[tokio::test]
async fn bind_looks_at_every_name_before_it_does_anything() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let p = world.pod("p", share("50", "10")).await;
    let args = json!({ "PodName": "p", "PodNamespace": "default", "PodUID": p["metadata"]["uid"], "Node": "a" });
    let asked = world.api.requests();
    for field in ["PodName", "PodNamespace", "PodUID", "Node"] {
        for name in hostile_names().into_iter().chain([String::new()]) {
            // a uid may be any letters
            if field == "PodUID" && matches!(name.as_str(), "A" | "-") {
                continue;
            }
            let mut args = args.clone();
            args[field] = name.clone().into();
            let answer = send(&world, "bind", args.to_string()).await;
            let error = short(&answer["Error"]);
            assert!(error.starts_with(&format!("{field} is not a")), "{error}");
        }
    }
    assert_eq!(world.api.requests(), asked, "nothing was asked of the API server");
    assert_eq!(send(&world, "bind", args.to_string()).await["Error"], "");
}

#[tokio::test]
async fn the_pod_of_a_request_is_named_as_pods_are() {
    let world = World::new([node("a", 1, 15_360)]).await;
    for at in ["/metadata/name", "/metadata/namespace", "/metadata/uid", "/spec/containers/0/name"] {
        for name in hostile_names() {
            if at == "/metadata/uid" && matches!(name.as_str(), "A" | "-") {
                continue;
            }
            let mut hostile = pod("p", share("50", "10"));
            hostile["metadata"]["uid"] = "u".into();
            *hostile.pointer_mut(at).unwrap() = name.into();
            let body = json!({ "Pod": hostile, "NodeNames": ["a", "b"],
                               "NodeNameToMetaVictims": { "a": { "Pods": [{ "UID": "u" }] } } });
            let answer = send(&world, "filter", body.to_string()).await;
            let error = short(&answer["Error"]);
            assert!(error.contains("name") || error.contains("uid"), "{at}: {error}");
            assert!(error.contains(" is not a"), "{at}: {error}");
            for verb in ["prioritize", "preempt"] {
                assert_eq!(refused(&world, verb, body.to_string()).await, error, "{verb}");
            }
        }
    }
}

#[tokio::test]
async fn an_error_does_not_repeat_the_request() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let huge = "x".repeat(1 << 20);
    for body in [json!({ "Pod": huge }), json!({ "Pod": {}, "NodeNames": huge }), json!({ "PodName": [huge] })] {
        for verb in ["filter", "bind"] {
            let answer = send(&world, verb, body.to_string()).await;
            assert!(short(&answer["Error"]).contains("cannot be read"), "{verb}");
        }
    }
    let annotated = json!({ "metadata": { "annotations": { "inspur.com/gpu-policy": huge } },
                            "spec": { "containers": share("50", "10") } });
    let answer = send(&world, "filter", json!({ "Pod": annotated, "NodeNames": ["a"] }).to_string()).await;
    assert!(short(&answer["FailedAndUnresolvableNodes"]["a"]).contains("gpu-policy"), "{answer}");
}

async fn roomy() -> World {
    let api = ApiServer::start().await.unwrap();
    api.create("nodes", node("a", 1, 15_360)).unwrap();
    World::on(api, Config { max_body: 64 << 20, ..config() }).await
}

fn many(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn a_request_has_no_more_nodes_than_a_cluster() {
    let world = roomy().await;
    let pod = pod("p", share("50", "10"));
    let empty = |count| many(count, |_| "\"\"".to_owned());
    let filter = |names: String| format!("{{\"Pod\":{pod},\"NodeNames\":[{names}]}}");
    let answer = send(&world, "filter", filter(empty(100_000))).await;
    assert_eq!(answer["Error"], "");
    let answer = send(&world, "filter", filter(empty(100_001))).await;
    assert!(short(&answer["Error"]).contains("more than 100000 items"), "{answer}");
    assert!(refused(&world, "prioritize", filter(empty(100_001))).await.contains("more than 100000 items"));
    let objects = many(100_001, |_| "{}".to_owned());
    let answer = send(&world, "filter", format!("{{\"Pod\":{pod},\"Nodes\":{{\"items\":[{objects}]}}}}")).await;
    assert!(short(&answer["Error"]).contains("more than 100000 items"), "{answer}");
}

#[tokio::test]
async fn a_preemption_has_no_more_nodes_and_victims_than_a_cluster() {
    let world = roomy().await;
    let pod = pod("p", json!([{ "name": "main" }]));
    let metrics = world.url_of("/metrics");
    let errors = async || {
        let text = reqwest::get(&metrics).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| {
            line.strip_prefix("kerf_extender_requests_total{outcome=\"error\",verb=\"preempt\"} ")
        });
        line.map(str::to_owned)
    };
    let whole = |victims: &str| victims.replace("\"UID\":\"\"", "\"metadata\":{}");
    let victim = "{\"UID\":\"\"}";
    let nodes = many(100_001, |number| format!("\"{number}\":{{}}"));
    let pods = format!("\"a\":{{\"Pods\":[{}]}}", many(10_001, |_| victim.to_owned()));
    let full = many(10_000, |_| victim.to_owned());
    let all = many(51, |number| format!("\"{number}\":{{\"Pods\":[{full}]}}"));
    let cases = [
        ("NodeNameToMetaVictims", nodes.clone()),
        ("NodeNameToVictims", nodes),
        ("NodeNameToMetaVictims", pods.clone()),
        ("NodeNameToVictims", whole(&pods)),
        ("NodeNameToMetaVictims", all.clone()),
        ("NodeNameToVictims", whole(&all)),
    ];
    for (before, (field, victims)) in cases.into_iter().enumerate() {
        let reason = refused(&world, "preempt", format!("{{\"Pod\":{pod},\"{field}\":{{{victims}}}}}")).await;
        assert!(reason.contains("more than"), "{field}: {reason}");
        assert_eq!(errors().await, Some((before + 1).to_string()), "{field}");
    }
    let answer = send(
        &world,
        "preempt",
        format!("{{\"Pod\":{pod},\"NodeNameToMetaVictims\":{{\"a\":{{\"Pods\":[{full}]}}}}}}"),
    )
    .await;
    assert_eq!(answer["NodeNameToMetaVictims"]["a"]["Pods"].as_array().unwrap().len(), 10_000);
}

#[tokio::test]
async fn a_request_has_no_larger_pod_than_an_api_server() {
    let world = roomy().await;
    let filter = |pod: String| format!("{{\"Pod\":{pod},\"NodeNames\":[\"a\"]}}");
    let containers = |count| format!("{{\"spec\":{{\"containers\":[{}]}}}}", many(count, |_| "{}".to_owned()));
    for pod in [containers(20_000), format!("{{\"metadata\":{{\"name\":\"{}\"}}}}", "a".repeat(3 << 20))] {
        let answer = send(&world, "filter", filter(pod)).await;
        assert!(short(&answer["Error"]).contains("larger than any pod"), "{answer}");
    }
    assert_eq!(send(&world, "filter", filter(containers(19_000))).await["Error"], "");
}
