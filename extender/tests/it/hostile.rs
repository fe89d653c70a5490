//! Bad input gets an answer with a reason, and changes no state.

use kerf::annotation::Keys;
use kerf::unfit::Unfit;
use serde_json::{Value, json};

use crate::fixture::{World, bare_node, node, pod, share};

async fn raw(world: &World, verb: &str, body: impl Into<reqwest::Body>) -> Value {
    let answer = reqwest::Client::new().post(format!("{}/{verb}", world.url)).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200, "with any other status the pod's event has no reason");
    answer.json().await.unwrap()
}

#[tokio::test]
async fn malformed_and_huge_bodies_are_named_and_the_next_call_works() {
    let world = World::legacy([node("a", 1, 15_360)]).await;
    let deep = "[".repeat(200_000);
    let bodies = ["", "x", "{", "null", "[]", "{\"Pod\":7}", "{\"Pod\":{},\"NodeNames\":7}", deep.as_str()];
    for body in bodies {
        for verb in ["filter", "predicates"] {
            let answer = raw(&world, verb, body.to_owned()).await;
            assert!(answer["Error"].as_str().unwrap().contains("cannot be read"), "{verb} {answer}");
        }
        assert!(raw(&world, "bind", body.to_owned()).await["Error"].as_str().unwrap().contains("cannot be read"));
        // preempt has other fields for nodes, and a pod without GPUs is none of its business
        for verb in
            ["prioritize", "preempt"].into_iter().filter(|verb| *verb != "preempt" || !body.contains("NodeNames"))
        {
            let post = reqwest::Client::new().post(format!("{}/{verb}", world.url)).body(body.to_owned());
            let answer = post.send().await.unwrap();
            assert_eq!(answer.status(), 400, "{verb}");
            assert!(answer.text().await.unwrap().contains("cannot be read"), "{verb}");
        }
    }
    let huge = raw(&world, "filter", vec![b' '; 5 << 20]).await;
    assert!(huge["Error"].as_str().unwrap().contains("larger than 4 MiB"), "{huge}");
    let p = world.pod("p", share("50", "10")).await;
    assert_eq!(world.client.filter(&p, &world.nodes()).await.unwrap().nodes, ["a"]);
}

#[tokio::test]
async fn a_node_object_without_name_is_named() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let body = json!({ "Pod": pod("p", share("50", "10")), "Nodes": { "items": [{ "metadata": {} }] } });
    assert!(raw(&world, "filter", body.to_string()).await["Error"].as_str().unwrap().contains("node"));
}

#[tokio::test]
async fn bind_to_an_unknown_node_or_of_an_unknown_pod_is_refused() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let p = world.pod("p", share("50", "10")).await;
    assert!(world.bind(&p, "ghost").await.unwrap_err().contains("unknown"));
    let mut stranger = (*p).clone();
    stranger["metadata"]["name"] = "nobody".into();
    stranger["metadata"]["uid"] = "00".into();
    assert!(world.bind(&stranger, "a").await.unwrap_err().contains("gone"));
    assert_eq!(world.used("a"), [0]);
    world.bind(&p, "a").await.unwrap();
}

#[tokio::test]
async fn an_invalid_pod_is_never_bound() {
    let world = World::new([node("a", 2, 15_360)]).await;
    let p = world.pod("p", share("150", "10")).await;
    assert!(world.bind(&p, "a").await.unwrap_err().contains("multiple of 100"));
    assert!(world.api.writes().is_empty());
}

#[tokio::test]
async fn records_that_cannot_be_believed_take_their_amount_of_every_card() {
    let keys = Keys::default();
    let good = r#"{"version":1,"node":"a","time":1,"containers":[{"name":"main","kind":"app","position":0,"whole":false,"slices":[{"gpu":"GPU-a-0","index":0,"compute":600,"memory":2560}]}]}"#;
    let idx = format!("{}0", keys.predicate_gpu_idx);
    let records = [
        (&keys.placement, good.replace("\"version\":1", "\"version\":7")),
        (&keys.placement, good.replace("600", "10")),
        (&keys.placement, good.replace("\"node\":\"a\"", "\"node\":\"b\"")),
        (&keys.placement, "x".repeat(10 << 20)),
        (&keys.placement, "{}".into()),
        (&idx, "-1".into()),
        (&idx, "x".into()),
        (&idx, "0,1".into()),
        (&idx, "99999999999999999999".into()),
    ];
    for (key, value) in records {
        let world = World::new([node("a", 2, 15_360)]).await;
        let mut hostile = pod("hostile", share("60", "10"));
        hostile["metadata"]["annotations"] = json!({ key: value });
        hostile["spec"]["nodeName"] = "a".into();
        world.api.create("pods", hostile).unwrap();
        world.until("seen", |w| w.used("a") == [600, 600]).await;
        let p = world.pod("p", share("50", "10")).await;
        assert!(world.client.filter(&p, &world.nodes()).await.unwrap().nodes.is_empty());
    }
}

#[tokio::test]
async fn odd_nodes_take_what_they_can_and_disturb_nobody() {
    let keys = Keys::default();
    let mut bad = node("bad", 1, 15_360);
    bad["metadata"]["annotations"][&keys.inventory] = "{\"version\":99,\"gpus\":[]}".into();
    let world =
        World::new([node("a", 1, 15_360), bad, bare_node("old", "250", "120"), bare_node("half", "50", "10")])
            .await;
    let p = world.pod("p", share("50", "10")).await;
    let filtered = world.client.filter(&p, &world.nodes()).await.unwrap();
    assert_eq!(filtered.nodes, ["a", "old"]);
    assert_eq!(filtered.unresolvable["bad"], "GPU inventory of the node cannot be read");
    assert_eq!(filtered.unresolvable["half"], "no GPU device");
}

#[tokio::test]
async fn a_card_that_vanishes_or_falls_ill_keeps_its_pods_and_takes_no_new_one() {
    let keys = Keys::default();
    let world = World::new([node("a", 2, 15_360)]).await;
    let p = world.pod("p", share("60", "10")).await;
    world.bind(&p, "a").await.unwrap();
    let healthy = node("a", 2, 15_360)["metadata"]["annotations"][&keys.inventory].as_str().unwrap().to_owned();
    let ill = healthy.replace("healthy", "unhealthy");
    let vanished = node("a", 0, 0)["metadata"]["annotations"][&keys.inventory].as_str().unwrap().to_owned();
    let q = world.pod("q", share("10", "1")).await;
    for (inventory, unfit) in [(ill, Unfit::NoHealthyCard), (vanished, Unfit::NoCards)] {
        let patch = json!({ "metadata": { "annotations": { &keys.inventory: inventory } } });
        world.api.patch("nodes", "", "a", &patch).unwrap();
        let refused = |w: &World| {
            let mut planner = kerf::placement::Planner::default();
            let (cluster, uid) = (w.extender.cluster(), q["metadata"]["uid"].as_str().unwrap().into());
            cluster.waiting(&uid).is_some_and(|waiting| {
                cluster.asking(&waiting.pod, Default::default()).fit(&mut planner, "a") == Err(unfit)
            })
        };
        world.until("refused", refused).await;
        let filtered = world.client.filter(&q, &world.nodes()).await.unwrap();
        assert_eq!(filtered.unresolvable["a"], unfit.reason());
    }
    let patch = json!({ "metadata": { "annotations": { &keys.inventory: healthy } } });
    world.api.patch("nodes", "", "a", &patch).unwrap();
    world.until("back", |w| w.used("a") == [600, 0]).await;
}

#[tokio::test]
async fn a_cordoned_card_takes_no_new_pod() {
    let keys = Keys::default();
    let mut cordoned = node("a", 2, 15_360);
    cordoned["metadata"]["annotations"][&keys.cordon] = "GPU-a-0".into();
    let world = World::new([cordoned]).await;
    let p = world.pod("p", share("60", "10")).await;
    world.bind(&p, "a").await.unwrap();
    assert_eq!(world.used("a"), [0, 600]);
}
