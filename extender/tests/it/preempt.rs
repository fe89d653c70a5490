//! Preempt: which pods have to leave to free cards.

use std::sync::Arc;

use kerf_testkit::api::{Action, ApiServer, Fault, Injected};
use kerf_testkit::scheduler::{ExtenderConfig, Scheduler, SchedulerConfig};
use serde_json::{Value, json};

use crate::fixture::{PATIENCE, World, config, node, pod, share};

/// What it cannot read is no answer: kube-scheduler logs the status and its reason, and evicts nobody.
async fn unreadable(world: &World, body: &Value) {
    let answer = reqwest::Client::new().post(format!("{}/preempt", world.url)).json(body).send().await.unwrap();
    assert_eq!(answer.status(), 400);
}

async fn preempt(world: &World, body: &Value) -> Value {
    let answer = reqwest::Client::new().post(format!("{}/preempt", world.url)).json(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

fn uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// A pod with this priority and a share of this much core.
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
    // by the node's totals evicting "c" would be enough; the pod without cards is a victim for another resource
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
    // kerf leaves pods without GPUs alone
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
    // no pod of equal priority is evicted
    let equal = asking(&world, "p", "50", 0);
    assert_eq!(preempt(&world, &json!({ "Pod": *equal, "NodeNameToMetaVictims": meta })).await, nothing);
    // the node never had three cards
    let large = asking(&world, "q", "300", 10);
    assert_eq!(preempt(&world, &json!({ "Pod": *large, "NodeNameToMetaVictims": meta })).await, nothing);
    let invalid = asking(&world, "r", "150", 10);
    assert_eq!(preempt(&world, &json!({ "Pod": *invalid, "NodeNameToMetaVictims": meta })).await, nothing);
    unreadable(&world, &json!({ "NodeNameToMetaVictims": 7 })).await;
    assert_eq!(
        preempt(&world, &json!({ "Pod": *large, "NodeNameToMetaVictims": { "n": { "Pods": null } } })).await,
        nothing
    );
}

#[tokio::test]
async fn nobody_leaves_for_a_pod_that_other_nodes_have_room_for() {
    let full = (0..120).map(|number| node(&format!("n{number:03}"), 1, 15_360));
    let world = World::new(full.chain([node("room", 1, 15_360)])).await;
    let mut asked = world.nodes();
    asked.retain(|node| node["metadata"]["name"] != "room");
    let filled = (0..120).map(|number| {
        let (world, name) = (&world, format!("n{number:03}"));
        async move {
            let pod = asking(world, &name, "60", 0);
            world.bind(&pod, &name).await.unwrap();
            uid(&pod)
        }
    });
    let victims: Vec<String> = futures::future::join_all(filled).await;
    let preemptor = asking(&world, "p", "50", 10);
    let meta = json!({ "n000": { "Pods": [{ "UID": victims[0] }], "NumPDBViolations": 0 } });
    let body = json!({ "Pod": *preemptor, "NodeNameToMetaVictims": meta });
    let nothing = json!({ "NodeNameToMetaVictims": {} });
    // no node was asked about yet
    assert_eq!(preempt(&world, &body).await["NodeNameToMetaVictims"], meta);
    for _ in 0..20 {
        assert!(world.client.filter(&preemptor, &asked).await.unwrap().nodes.is_empty());
        assert_eq!(preempt(&world, &body).await, nothing);
    }
    // it may not be allowed where there is room
    assert!(world.client.filter(&preemptor, &asked).await.unwrap().nodes.is_empty());
    assert_eq!(preempt(&world, &body).await["NodeNameToMetaVictims"], meta);
    // and where there is none, nothing is waited for
    let room = asking(&world, "r", "60", 0);
    world.bind(&room, "room").await.unwrap();
    let second = asking(&world, "s", "50", 10);
    assert!(world.client.filter(&second, &asked).await.unwrap().nodes.is_empty());
    let body = json!({ "Pod": *second, "NodeNameToMetaVictims": meta });
    assert_eq!(preempt(&world, &body).await["NodeNameToMetaVictims"], meta);
}

/// A node with `cards` cards and these pods on it, bound in this order: name, core, priority, labels.
async fn crowd(cards: u32, pods: &[(&str, &str, i32, Value)]) -> (World, Vec<String>) {
    let world = World::new([node("n", cards, 15_360)]).await;
    let mut uids = Vec::new();
    for (name, core, priority, labels) in pods {
        let mut object = pod(name, share(core, "10"));
        object["spec"]["priority"] = (*priority).into();
        object["metadata"]["labels"] = labels.clone();
        let pod = world.api.create("pods", object).unwrap();
        world.bind(&pod, "n").await.unwrap();
        uids.push(uid(&pod));
    }
    let described = |world: &World| {
        let nodes = world.extender.cluster().snapshot();
        let known = nodes.iter().flat_map(|node| node.ledger.commitments().values());
        known.filter(|c| c.state.as_str() == "observed").count() == pods.len()
    };
    world.until("all are seen bound", described).await;
    (world, uids)
}

#[tokio::test]
async fn the_most_important_victim_comes_first_since_the_scheduler_compares_nodes_by_it() {
    let world = World::new([node("n", 2, 15_360)]).await;
    for (name, priority) in [("low", 0), ("high", 900)] {
        let pod = asking(&world, name, "100", priority);
        world.bind(&pod, "n").await.unwrap();
    }
    // a pod without cards, of the highest priority of all
    let cpu = json!({ "metadata": { "name": "cpu", "namespace": "default" },
        "spec": { "nodeName": "n", "priority": 950, "containers": [{ "name": "main" }] } });
    let cpu = uid(&world.api.create("pods", cpu).unwrap());
    let wanted: kerf::ids::PodUid = cpu.as_str().into();
    let seen = |world: &World| {
        let nodes = world.extender.cluster().snapshot();
        let known = nodes.iter().flat_map(|node| node.ledger.commitments().values());
        known.filter(|c| c.state.as_str() == "observed").count() == 2
            && world.extender.cluster().priority_of(&wanted) == 950
    };
    world.until("all are seen bound", seen).await;
    let preemptor = asking(&world, "p", "200", 1000);
    let names: std::collections::BTreeMap<String, &str> = ["low", "high"]
        .into_iter()
        .map(|name| (uid(&world.api.get("pods", "default", name).unwrap()), name))
        .collect();
    let chosen: Vec<Value> = names.keys().chain([&cpu]).map(|uid| json!({ "UID": uid })).collect();
    let meta = json!({ "n": { "Pods": chosen, "NumPDBViolations": 0 } });
    let answer = preempt(&world, &json!({ "Pod": *preemptor, "NodeNameToMetaVictims": meta })).await;
    let found: Vec<&str> = pods(&answer).iter().map(|uid| names.get(uid).copied().unwrap_or("cpu")).collect();
    assert_eq!(found, ["cpu", "high", "low"]);
}

#[tokio::test]
async fn a_victim_that_the_scheduler_chose_for_something_else_goes_as_well() {
    let none = json!({});
    let all = [("w", "60", 5000, none.clone()), ("x", "10", 0, none.clone()), ("y", "60", 0, none)];
    let (world, uids) = crowd(2, &all).await;
    assert_eq!(world.used("n"), [700, 600]);
    let preemptor = asking(&world, "p", "50", 1000);
    // the cards' total has room for 50, so the scheduler may have chosen x for its cores
    let meta = json!({ "n": { "Pods": [{ "UID": uids[1] }], "NumPDBViolations": 0 } });
    let answer = preempt(&world, &json!({ "Pod": *preemptor, "NodeNameToMetaVictims": meta })).await;
    let mut gone = pods(&answer);
    gone.sort();
    let mut expected = vec![uids[1].clone(), uids[2].clone()];
    expected.sort();
    assert_eq!(gone, expected, "{answer}");
}

#[tokio::test]
async fn a_smaller_victim_goes_where_the_cards_are_all_that_is_missing() {
    let none = json!({});
    let all = [("s1", "50", 0, none.clone()), ("s2", "50", 0, none.clone()), ("big", "200", 0, none)];
    let (world, uids) = crowd(3, &all).await;
    let ask = |cpu: Option<&str>| {
        let mut object = pod(if cpu.is_some() { "q" } else { "p" }, share("50", "10"));
        object["spec"]["priority"] = 10.into();
        if let Some(cpu) = cpu {
            object["spec"]["containers"][0]["resources"]["requests"] = json!({ "cpu": cpu });
        }
        world.api.create("pods", object).unwrap()
    };
    let meta = json!({ "n": { "Pods": [{ "UID": uids[2] }], "NumPDBViolations": 0 } });
    let answer = preempt(&world, &json!({ "Pod": *ask(None), "NodeNameToMetaVictims": meta })).await;
    let gone = pods(&answer);
    assert!(gone.len() == 1 && uids[..2].contains(&gone[0]), "{answer}");
    // the node's cores are not known: they may be the reason
    let answer = preempt(&world, &json!({ "Pod": *ask(Some("1")), "NodeNameToMetaVictims": meta })).await;
    assert_eq!(pods(&answer), [uids[2].clone()]);
}

#[tokio::test]
async fn disruption_budgets_are_respected_and_broken_ones_counted() {
    let all = [("a", "100", 0, json!({ "app": "web" })), ("b", "100", 5, json!({}))];
    let (world, uids) = crowd(2, &all).await;
    let budget = |name: &str, selector: Value| {
        let object = json!({ "metadata": { "name": name, "namespace": "default" },
            "spec": { "selector": selector }, "status": { "disruptionsAllowed": 0 } });
        world.api.create("poddisruptionbudgets", object).unwrap()
    };
    let preemptor = asking(&world, "p", "100", 10);
    let meta = json!({ "n": { "Pods": [{ "UID": uids[0] }], "NumPDBViolations": 0 } });
    let body = json!({ "Pod": *preemptor, "NodeNameToMetaVictims": meta });
    let answers = async |expected: (&str, i64)| {
        let same = async {
            loop {
                let answer = preempt(&world, &body).await;
                let broken = answer["NodeNameToMetaVictims"]["n"]["NumPDBViolations"].as_i64();
                if pods(&answer) == [expected.0] && broken == Some(expected.1) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, same).await.expect("the budgets are seen");
    };
    answers((&uids[0], 0)).await;
    budget("web", json!({ "matchLabels": { "app": "web" } }));
    answers((&uids[1], 0)).await;
    // an empty selector is for every pod of the namespace
    budget("all", json!({}));
    answers((&uids[0], 1)).await;
}

/// The scheduler's count, which is any number on the wire.
#[tokio::test]
async fn no_count_of_broken_budgets_is_too_large_or_too_small() {
    let (world, uids) = crowd(1, &[("a", "100", 0, json!({ "app": "web" }))]).await;
    let budget = json!({ "metadata": { "name": "web", "namespace": "default" },
        "spec": { "selector": { "matchLabels": { "app": "web" } } }, "status": { "disruptionsAllowed": 0 } });
    world.api.create("poddisruptionbudgets", budget).unwrap();
    let preemptor = asking(&world, "p", "100", 10);
    let answered = async |chosen: Value, count: i64| {
        let meta = json!({ "n": { "Pods": chosen, "NumPDBViolations": count } });
        let answer = preempt(&world, &json!({ "Pod": *preemptor, "NodeNameToMetaVictims": meta })).await;
        assert_eq!(pods(&answer), uids, "{count}");
        answer["NodeNameToMetaVictims"]["n"]["NumPDBViolations"].as_i64().unwrap()
    };
    let seen = async {
        while answered(json!([]), 0).await != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the budget is seen");
    let chosen = json!([{ "UID": uids[0] }]);
    for (pods, count, expected) in [
        (json!([]), i64::MAX, i64::MAX),
        (chosen.clone(), i64::MAX, i64::MAX),
        (json!([]), i64::MIN, 1),
        (chosen, i64::MIN, 1),
    ] {
        assert_eq!(answered(pods, count).await, expected, "{count}");
    }
}

/// How many cards of this node's pods are counted by what the API server shows of them.
fn observed(world: &World) -> usize {
    let nodes = world.extender.cluster().snapshot();
    let known = nodes.iter().flat_map(|node| node.ledger.commitments().values());
    known.filter(|known| known.state.as_str() == "observed").count()
}

#[tokio::test]
async fn without_the_right_to_see_budgets_only_the_schedulers_victims_are_sure_to_break_none() {
    let api = ApiServer::start().await.unwrap();
    api.create("nodes", node("n", 2, 15_360)).unwrap();
    let refused =
        ["list", "watch"].map(|verb| api.inject(Fault::new(verb, "poddisruptionbudgets", Action::Status(403))));
    let world = World::on(api, config()).await;
    let mut uids = Vec::new();
    for name in ["a", "b"] {
        let pod = asking(&world, name, "100", 0);
        world.bind(&pod, "n").await.unwrap();
        uids.push(uid(&pod));
    }
    world.until("both are seen bound", |world| observed(world) == 2).await;
    refused[0].wait_hits(1, PATIENCE).await.unwrap();
    // the cards' total has room for half of it once "a" has left, but both have to go
    let preemptor = asking(&world, "p", "200", 10);
    let meta = json!({ "n": { "Pods": [{ "UID": uids[0] }], "NumPDBViolations": 0 } });
    let body = json!({ "Pod": *preemptor, "NodeNameToMetaVictims": meta });
    let broken = async || {
        let answer = preempt(&world, &body).await;
        let mut gone = pods(&answer);
        gone.sort();
        let mut all = uids.clone();
        all.sort();
        assert_eq!(gone, all, "{answer}");
        answer["NodeNameToMetaVictims"]["n"]["NumPDBViolations"].as_i64().unwrap()
    };
    let blind = async || {
        let metrics = world.text("/metrics").await;
        let name = "kerf_extender_preempt_without_budgets_total ";
        metrics.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok()).unwrap()
    };
    assert_eq!(blind().await, 0);
    assert_eq!(broken().await, 1, "nobody knows whether the other may go");
    assert_eq!(blind().await, 1);
    // granting the rights again is enough
    refused.iter().for_each(Injected::remove);
    let known = async {
        while broken().await != 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.expect("the budgets are seen");
    let before = blind().await;
    assert_eq!(broken().await, 0);
    assert_eq!(blind().await, before);
}

#[tokio::test]
async fn the_scheduler_evicts_where_the_most_important_victim_is_the_least() {
    let world = World::new([node("mixed", 2, 15_360), node("middle", 2, 15_360)]).await;
    // in order of uid the least important is the first
    let all = [("0", "mixed", "100", 0), ("1", "mixed", "100", 900), ("2", "middle", "200", 100)];
    for (name, node, core, priority) in all {
        let mut object = pod(name, share(core, "10"));
        object["metadata"]["uid"] = name.into();
        object["spec"]["priority"] = priority.into();
        let pod = world.api.create("pods", object).unwrap();
        assert_eq!(uid(&pod), name);
        world.bind(&pod, node).await.unwrap();
    }
    world.until("all are seen bound", |world| observed(world) == all.len()).await;
    let keys = kerf::annotation::Keys::default();
    let mut extender = ExtenderConfig::new(&world.url, &[&keys.core, &keys.memory]);
    extender.preempt_verb = "preempt".into();
    let scheduler =
        Scheduler::start(SchedulerConfig::new(world.api.url(), Some(extender))).await.expect("scheduler");
    asking(&world, "p", "200", 1000);
    let nominated = |pod: Option<&Value>| pod.is_some_and(|pod| pod["status"]["nominatedNodeName"].is_string());
    let p = world.api.wait_for_object("pods", "default", "p", PATIENCE, nominated).await.unwrap().unwrap();
    assert_eq!(p["status"]["nominatedNodeName"], "middle", "{:#?}", scheduler.journal());
    let leaves = |pod: Option<&Value>| pod.is_some_and(|pod| pod["metadata"]["deletionTimestamp"].is_string());
    world.api.wait_for_object("pods", "default", "2", PATIENCE, leaves).await.unwrap();
    world.api.force_delete("pods", "default", "2").unwrap();
    let bound = |pod: Option<&Value>| pod.is_some_and(|pod| pod["spec"]["nodeName"] == "middle");
    world.api.wait_for_object("pods", "default", "p", PATIENCE, bound).await.unwrap();
    for name in ["0", "1"] {
        assert!(!leaves(Some(&world.api.get("pods", "default", name).unwrap())), "{name} stays");
    }
    scheduler.shutdown().await;
}
