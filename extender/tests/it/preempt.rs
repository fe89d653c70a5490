//! Preempt: of whom the cards have to be freed.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::fixture::{World, node, pod, share};

async fn preempt(world: &World, body: &Value) -> Value {
    let answer = reqwest::Client::new().post(format!("{}/preempt", world.url)).json(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

fn uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// A pod of this priority with a share of so much core.
fn asking(world: &World, name: &str, core: &str, priority: i32) -> Arc<Value> {
    let mut object = pod(name, share(core, "10"));
    object["spec"]["priority"] = priority.into();
    world.api.create("pods", object).unwrap()
}

/// Two cards: `a` and `c` fill the first, `b` takes 60 of the second. 40 are free, on one card.
async fn full() -> (World, [String; 3]) {
    let world = World::new([node("n", 2, 15_360)]).await;
    let mut uids = Vec::new();
    for (name, core) in [("a", "60"), ("c", "40"), ("b", "60")] {
        let pod = asking(&world, name, core, 0);
        world.bind(&pod, "n").await.unwrap();
        uids.push(uid(&pod));
    }
    let observed = |world: &World| {
        let nodes = world.extender.cluster().snapshot();
        nodes
            .iter()
            .flat_map(|node| node.ledger.commitments().values())
            .filter(|c| c.state.as_str() == "observed")
            .count()
            == 3
    };
    world.until("all three are seen bound", observed).await;
    assert_eq!(world.used("n"), [1000, 600]);
    (world, uids.try_into().unwrap())
}

fn pods(answer: &Value) -> Vec<String> {
    let pods = answer["NodeNameToMetaVictims"]["n"]["Pods"].as_array().cloned().unwrap_or_default();
    pods.iter().map(|pod| pod["UID"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn who_would_go_for_nothing_stays_and_who_frees_a_card_goes() {
    let (world, [a, c, b]) = full().await;
    let preemptor = asking(&world, "p", "50", 10);
    // by the node's totals it would be enough if "c" went; a pod without cards goes for something else
    let meta = json!({ "n": { "Pods": [{ "UID": c }, { "UID": "without-cards" }], "NumPDBViolations": 3 } });
    let victims = json!({ "n": { "Pods": [{ "metadata": { "uid": c } }, { "metadata": { "uid": "without-cards" } }], "NumPDBViolations": 3 } });
    for body in [
        json!({ "Pod": *preemptor, "NodeNameToVictims": null, "NodeNameToMetaVictims": meta }),
        json!({ "pod": *preemptor, "nodeNameToMetaVictims": meta }),
        json!({ "Pod": *preemptor, "NodeNameToVictims": victims, "NodeNameToMetaVictims": null }),
    ] {
        let answer = preempt(&world, &body).await;
        let gone = pods(&answer);
        assert!(
            gone == [a.clone(), "without-cards".into()] || gone == [b.clone(), "without-cards".into()],
            "{answer}"
        );
        assert_eq!(answer["NodeNameToMetaVictims"]["n"]["NumPDBViolations"], 3);
    }
}

#[tokio::test]
async fn victims_for_something_else_than_cards_stay_as_they_are() {
    let (world, [_, c, _]) = full().await;
    let preemptor = asking(&world, "p", "30", 10);
    let meta = json!({ "n": { "Pods": [{ "UID": c }, { "UID": "x" }], "NumPDBViolations": 0 } });
    let answer = preempt(&world, &json!({ "Pod": *preemptor, "NodeNameToMetaVictims": meta })).await;
    assert_eq!(pods(&answer), [c, "x".into()]);
    // other pods are none of kerf's business
    let other = json!({ "metadata": { "name": "q", "uid": "q" }, "spec": { "containers": [] } });
    let answer = preempt(&world, &json!({ "Pod": other, "NodeNameToMetaVictims": meta })).await;
    assert_eq!(answer["NodeNameToMetaVictims"], meta);
}

#[tokio::test]
async fn a_node_where_evictions_do_not_help_is_no_candidate() {
    let (world, [a, ..]) = full().await;
    let meta = json!({
        "n": { "Pods": [{ "UID": a }], "NumPDBViolations": 0 },
        "unknown": { "Pods": [{ "UID": "y" }], "NumPDBViolations": 0 },
    });
    let nothing = json!({ "NodeNameToMetaVictims": {} });
    // of equals nobody goes
    let equal = asking(&world, "p", "50", 0);
    assert_eq!(preempt(&world, &json!({ "Pod": *equal, "NodeNameToMetaVictims": meta })).await, nothing);
    // three cards were never there
    let large = asking(&world, "q", "300", 10);
    assert_eq!(preempt(&world, &json!({ "Pod": *large, "NodeNameToMetaVictims": meta })).await, nothing);
    let invalid = asking(&world, "r", "150", 10);
    assert_eq!(preempt(&world, &json!({ "Pod": *invalid, "NodeNameToMetaVictims": meta })).await, nothing);
    assert_eq!(preempt(&world, &json!({ "NodeNameToMetaVictims": 7 })).await, nothing);
    assert_eq!(
        preempt(&world, &json!({ "Pod": *large, "NodeNameToMetaVictims": { "n": { "Pods": null } } })).await,
        nothing
    );
}
