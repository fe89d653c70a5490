//! The scheduler calls an extender as kube-scheduler does.

#![allow(clippy::expect_used, clippy::panic, reason = "a failing test may stop at once, its helpers too")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use kerf_testkit::api::{Action, ApiServer, Fault};
use kerf_testkit::scheduler::{
    Attempt, ExtenderClient, ExtenderConfig, ExtenderError, Outcome, Scheduler, SchedulerConfig,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
const RESOURCE: &str = "example.com/gpu";

type Rule = Box<dyn Fn(&Value) -> Value + Send + Sync>;

/// An extender whose answers a test sets, and which remembers the calls.
struct Extender {
    rules: Mutex<BTreeMap<&'static str, Rule>>,
    asked: Mutex<Vec<(String, Value)>>,
}

impl Extender {
    async fn start() -> (Arc<Self>, ExtenderConfig) {
        let extender = Arc::new(Self { rules: Mutex::default(), asked: Mutex::default() });
        extender.on("filter", |args| json!({ "Nodes": args["Nodes"], "NodeNames": args["NodeNames"], "FailedNodes": {}, "FailedAndUnresolvableNodes": {}, "Error": "" }));
        extender.on("prioritize", |args| {
            let names = args["NodeNames"].as_array().cloned().unwrap_or_default();
            names.iter().map(|name| json!({ "Host": name, "Score": 0 })).collect()
        });
        async fn serve(extender: Arc<Extender>, verb: &'static str, body: String) -> String {
            let args: Value = serde_json::from_str(&body).expect("json");
            extender.asked.lock().expect("lock").push((verb.to_owned(), args.clone()));
            let rules = extender.rules.lock().expect("lock");
            rules.get(verb).map_or(json!({ "Error": "" }), |rule| rule(&args)).to_string()
        }
        let route = |verb: &'static str| {
            post(move |State(extender): State<Arc<Extender>>, body: String| serve(extender, verb, body))
        };
        let app = Router::new()
            .route("/x/filter", route("filter"))
            .route("/x/predicates", route("predicates"))
            .route("/x/prioritize", route("prioritize"))
            .route("/x/bind", route("bind"))
            .route("/x/preempt", route("preempt"))
            .with_state(extender.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}/x", listener.local_addr().expect("address"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (extender, ExtenderConfig::new(&url, &[RESOURCE]))
    }

    fn on(&self, verb: &'static str, rule: impl Fn(&Value) -> Value + Send + Sync + 'static) {
        self.rules.lock().expect("lock").insert(verb, Box::new(rule));
    }

    fn asked(&self, verb: &str) -> Vec<Value> {
        let asked = self.asked.lock().expect("lock");
        asked.iter().filter(|(name, _)| name == verb).map(|(_, args)| args.clone()).collect()
    }
}

fn pod(name: &str, amount: u64) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "ns" },
        "spec": { "containers": [{ "name": "main", "image": "i", "resources": { "limits": { RESOURCE: amount.to_string() } } }] },
        "status": { "phase": "Pending" },
    })
}

fn node(name: &str, amount: u64) -> Value {
    json!({ "metadata": { "name": name, "labels": { "name": name } }, "status": { "allocatable": { RESOURCE: amount.to_string() } } })
}

async fn cluster(nodes: &[(&str, u64)]) -> ApiServer {
    let server = ApiServer::start().await.expect("start");
    for (name, amount) in nodes {
        server.create("nodes", node(name, *amount)).expect("node");
    }
    server
}

fn quick(server: &ApiServer, extender: Option<ExtenderConfig>) -> SchedulerConfig {
    SchedulerConfig { initial_backoff: Duration::from_millis(20), ..SchedulerConfig::new(server.url(), extender) }
}

async fn node_of(server: &ApiServer, name: &str) -> String {
    let pod = server
        .wait_for_object("pods", "ns", name, SOON, |pod| pod.is_some_and(|pod| pod["spec"]["nodeName"].is_string()))
        .await
        .expect("bound");
    pod.expect("pod")["spec"]["nodeName"].as_str().expect("name").to_owned()
}

async fn last(scheduler: &Scheduler, name: &str, wanted: impl Fn(&Outcome) -> bool) -> Attempt {
    let mut found = None;
    scheduler
        .wait_for(SOON, |_| {
            found = scheduler.attempts_of("ns", name).into_iter().rfind(|attempt| wanted(&attempt.outcome));
            found.is_some()
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}: {:#?}", scheduler.journal()));
    found.expect("found")
}

#[tokio::test]
async fn an_extender_is_asked_with_names_and_the_default_binder_binds() {
    let server = cluster(&[("a", 4), ("b", 4), ("full", 1)]).await;
    let (extender, mut config) = Extender::start().await;
    config.bind_verb.clear();
    config.weight = 3;
    extender.on("prioritize", |_| json!([{ "Host": "a", "Score": 2 }, { "Host": "b", "Score": 7 }]));
    let scheduler = Scheduler::start(quick(&server, Some(config))).await.expect("start");
    server.create("pods", pod("p", 2)).expect("pod");
    assert_eq!(node_of(&server, "p").await, "b");
    let attempt = last(&scheduler, "p", |outcome| *outcome == Outcome::Bound).await;
    assert_eq!(attempt.in_tree, BTreeMap::from([("full".into(), vec![format!("Insufficient {RESOURCE}")])]));
    assert_eq!(attempt.asked, ["a", "b"]);
    assert_eq!(attempt.scores, BTreeMap::from([("a".into(), 60), ("b".into(), 210)]));
    let asked = extender.asked("filter").remove(0);
    assert_eq!((&asked["Nodes"], &asked["NodeNames"]), (&Value::Null, &json!(["a", "b"])));
    assert_eq!(asked["Pod"]["metadata"]["name"], "p");
    assert!(asked["Pod"].get("kind").is_none(), "typed objects of the scheduler have no kind");
    let bound = server.get("pods", "ns", "p").expect("pod");
    assert_eq!(bound["status"]["conditions"][0]["status"], "True");
    assert_eq!(server.writes(), BTreeMap::from([(("create".into(), "pods/binding".into()), 1)]));
    scheduler.shutdown().await;
}

#[tokio::test]
async fn an_extender_that_is_not_node_cache_capable_gets_whole_nodes() {
    let server = cluster(&[("a", 4)]).await;
    let (extender, mut config) = Extender::start().await;
    config.node_cache_capable = false;
    config.bind_verb.clear();
    let _scheduler = Scheduler::start(quick(&server, Some(config.clone()))).await.expect("start");
    server.create("pods", pod("p", 1)).expect("pod");
    assert_eq!(node_of(&server, "p").await, "a");
    let asked = extender.asked("filter").remove(0);
    assert_eq!(asked["NodeNames"], Value::Null);
    assert_eq!(asked["Nodes"]["items"][0]["metadata"]["name"], "a");
    assert!(extender.asked("prioritize").is_empty(), "one node is left, nobody is asked for scores");

    let client = ExtenderClient::new(config).expect("client");
    extender.on("predicates", |args| json!({ "nodes": { "items": args["Nodes"]["items"] }, "failedNodes": null }));
    let nodes = server.list("nodes").expect("nodes");
    let pod = server.get("pods", "ns", "p").expect("pod");
    assert_eq!(client.predicates(&pod, &nodes).await.expect("predicates").nodes, ["a"]);
    assert!(matches!(
        client.send::<Value>("nothing", &json!({})).await,
        Err(ExtenderError::Status { code: 404, .. })
    ));
}

#[tokio::test]
async fn pods_without_managed_resources_never_reach_the_extender() {
    let server = cluster(&[("a", 4)]).await;
    let (extender, config) = Extender::start().await;
    let _scheduler = Scheduler::start(quick(&server, Some(config.clone()))).await.expect("start");
    let mut plain = pod("p", 0);
    plain["spec"]["containers"][0]["resources"] = json!({ "limits": { "cpu": "1" } });
    server.create("pods", plain).expect("pod");
    node_of(&server, "p").await;
    assert!(extender.asked.lock().expect("lock").is_empty());
    let client = ExtenderClient::new(config).expect("client");
    let mut init = pod("q", 0);
    init["spec"]["initContainers"] = json!([{ "name": "i", "resources": { "requests": { RESOURCE: "1" } } }]);
    init["spec"]["containers"][0]["resources"] = Value::Null;
    assert!(client.is_interested(&init), "init containers and requests count");
}

#[tokio::test]
async fn the_extender_binds_and_refusals_are_tried_again() {
    let server = Arc::new(cluster(&[("a", 4)]).await);
    let (extender, config) = Extender::start().await;
    let refusals = Mutex::new(2);
    let api = server.clone();
    extender.on("bind", move |args| {
        let mut left = refusals.lock().expect("lock");
        if *left > 0 {
            *left -= 1;
            return json!({ "Error": "lost a race" });
        }
        let text = |field: &str| args[field].as_str().expect("text").to_owned();
        api.bind(&text("PodNamespace"), &text("PodName"), &text("Node")).expect("bind");
        json!({ "Error": "" })
    });
    let scheduler = Scheduler::start(quick(&server, Some(config))).await.expect("start");
    let made = server.create("pods", pod("p", 4)).expect("pod");
    assert_eq!(node_of(&server, "p").await, "a");
    last(&scheduler, "p", |outcome| *outcome == Outcome::Bound).await;
    let outcomes: Vec<Outcome> =
        scheduler.attempts_of("ns", "p").into_iter().map(|attempt| attempt.outcome).collect();
    let lost = Outcome::BindFailed("lost a race".into());
    assert_eq!(outcomes, [lost.clone(), lost, Outcome::Bound]);
    assert_eq!(
        extender.asked("bind")[0],
        json!({ "PodName": "p", "PodNamespace": "ns", "PodUID": made["metadata"]["uid"], "Node": "a" })
    );
    let idle = scheduler.wait_idle(SOON).await.expect("idle");
    assert_eq!((idle.bound, idle.unschedulable), (1, 0));
}

#[tokio::test]
async fn assumed_pods_count_before_their_bind_ends() {
    let server = cluster(&[("a", 4), ("b", 4)]).await;
    let slow = server.inject(Fault::new("create", "pods/binding", Action::Hold));
    let scheduler = Scheduler::start(quick(&server, None)).await.expect("start");
    for name in ["p", "q", "r"] {
        server.create("pods", pod(name, 3)).expect("pod");
    }
    slow.wait_hits(2, SOON).await.expect("two binds at once");
    let refused = last(&scheduler, "r", |outcome| matches!(outcome, Outcome::Unschedulable(_))).await;
    assert_eq!(
        refused.outcome,
        Outcome::Unschedulable(format!("0/2 nodes are available: 2 Insufficient {RESOURCE}."))
    );
    slow.release();
    assert_ne!(node_of(&server, "p").await, node_of(&server, "q").await);
    // Its reason is in its condition, and the end of another pod wakes it.
    server
        .wait_for_object("pods", "ns", "r", SOON, |pod| {
            pod.is_some_and(|pod| {
                pod["status"]["conditions"][0]["message"]
                    == format!("0/2 nodes are available: 2 Insufficient {RESOURCE}.")
            })
        })
        .await
        .expect("condition");
    server.patch_status("pods", "ns", "p", json!({ "phase": "Succeeded" })).expect("end");
    node_of(&server, "r").await;
}

#[tokio::test]
async fn refusals_of_the_extender_are_reasons_and_errors_are_not() {
    let server = cluster(&[("a", 4), ("b", 4), ("c", 4), ("small", 0)]).await;
    let (extender, config) = Extender::start().await;
    extender.on("filter", |_| json!({
        "NodeNames": null, "Nodes": null,
        "FailedNodes": { "a": "no card", "b": "no card" }, "FailedAndUnresolvableNodes": { "b": "wrong model", "c": "wrong model" }, "Error": "",
    }));
    let scheduler = Scheduler::start(quick(&server, Some(config))).await.expect("start");
    server.create("pods", pod("p", 1)).expect("pod");
    let refused = last(&scheduler, "p", |outcome| matches!(outcome, Outcome::Unschedulable(_))).await;
    let message = format!("0/4 nodes are available: 1 Insufficient {RESOURCE}, 1 no card, 2 wrong model.");
    assert_eq!(refused.outcome, Outcome::Unschedulable(message.clone()));
    assert!(refused.to_string().contains("no card"), "{refused}");
    extender.on("filter", |_| json!({ "Error": "not ready" }));
    server.patch("nodes", "", "a", &json!({ "metadata": { "annotations": { "x": "y" } } })).expect("patch");
    last(&scheduler, "p", |outcome| *outcome == Outcome::Failed("not ready".into())).await;
    extender.on("filter", |_| json!({ "NodeNames": ["elsewhere"] }));
    last(
        &scheduler,
        "p",
        |outcome| matches!(outcome, Outcome::Failed(why) if why.contains("claims a filtered node \"elsewhere\"")),
    )
    .await;
    extender.on("filter", |_| json!({ "NodeNames": ["c"] }));
    extender.on("bind", |_| json!({ "Error": "enough" }));
    last(&scheduler, "p", |outcome| *outcome == Outcome::BindFailed("enough".into())).await;
}

#[tokio::test]
async fn in_tree_checks_see_flags_selectors_taints_and_ignored_resources() {
    let server = cluster(&[("cordoned", 4), ("tainted", 4), ("other", 4), ("empty", 0)]).await;
    server.patch("nodes", "", "cordoned", &json!({ "spec": { "unschedulable": true } })).expect("patch");
    server
        .patch(
            "nodes",
            "",
            "tainted",
            &json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] } }),
        )
        .expect("patch");
    let (_extender, mut config) = Extender::start().await;
    config.bind_verb.clear();
    config.managed_resources[0].ignored_by_scheduler = true;
    let scheduler = Scheduler::start(quick(&server, Some(config))).await.expect("start");
    let mut picky = pod("picky", 1);
    picky["spec"]["nodeSelector"] = json!({ "name": "empty" });
    server.create("pods", picky).expect("pod");
    assert_eq!(node_of(&server, "picky").await, "empty", "the resource is not the scheduler's business");
    let attempt = last(&scheduler, "picky", |outcome| *outcome == Outcome::Bound).await;
    let reasons: Vec<&str> = attempt.in_tree.values().flatten().map(String::as_str).collect();
    assert_eq!(
        reasons,
        [
            "node(s) were unschedulable",
            "node(s) didn't match Pod's node affinity/selector",
            "node(s) had untolerated taint(s) {k: v}"
        ]
    );
    let mut tolerant = pod("tolerant", 1);
    tolerant["spec"]["nodeSelector"] = json!({ "name": "tainted" });
    tolerant["spec"]["tolerations"] = json!([{ "operator": "Exists" }]);
    server.create("pods", tolerant).expect("pod");
    assert_eq!(node_of(&server, "tolerant").await, "tainted");
}

#[tokio::test]
async fn equal_pods_go_down_the_list_of_the_first_one() {
    let server = cluster(&[("a", 1), ("b", 1), ("c", 1)]).await;
    let (extender, mut config) = Extender::start().await;
    config.bind_verb.clear();
    extender.on("prioritize", |args| {
        let score = |name: &Value| match name.as_str() {
            Some("a") => 9,
            Some("b") => 5,
            _ => 1,
        };
        args["NodeNames"]
            .as_array()
            .expect("names")
            .iter()
            .map(|name| json!({ "Host": name, "Score": score(name) }))
            .collect()
    });
    let hold = server.inject(Fault::new("list", "pods", Action::Hold).times(1));
    for name in ["p", "q", "r"] {
        server.create("pods", pod(name, 1)).expect("pod");
    }
    let config = SchedulerConfig { opportunistic_batching: true, ..quick(&server, Some(config)) };
    let (scheduler, ()) = tokio::join!(Scheduler::start(config), async {
        hold.wait_hits(1, SOON).await.expect("list");
        hold.release();
    });
    let scheduler = scheduler.expect("start");
    for name in ["p", "q", "r"] {
        node_of(&server, name).await;
    }
    let attempts = scheduler.journal();
    let seen: Vec<(Vec<String>, bool, Option<&str>)> =
        attempts.iter().map(|attempt| (attempt.asked.clone(), attempt.hinted, attempt.chosen.as_deref())).collect();
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        seen,
        [
            (names(&["a", "b", "c"]), false, Some("a")),
            (names(&["b"]), true, Some("b")),
            (names(&["c"]), true, Some("c"))
        ]
    );
    assert_eq!(extender.asked("prioritize").len(), 1);
}

#[tokio::test]
async fn a_bind_without_an_answer_is_not_repeated_once_the_pod_is_seen_bound() {
    let server = cluster(&[("a", 4)]).await;
    server.inject(Fault::new("create", "pods/binding", Action::DropAfter).times(1));
    let scheduler = Scheduler::start(SchedulerConfig {
        initial_backoff: Duration::from_millis(200),
        ..SchedulerConfig::new(server.url(), None)
    })
    .await
    .expect("start");
    server.create("pods", pod("p", 3)).expect("pod");
    node_of(&server, "p").await;
    let idle = scheduler.wait_for(SOON, |state| state.attempts == 1 && state.is_idle()).await.expect("idle");
    assert_eq!(idle.unschedulable, 0);
    server.create("pods", pod("q", 3)).expect("pod");
    last(&scheduler, "q", |outcome| matches!(outcome, Outcome::Unschedulable(_))).await;
}

/// Nodes where every unit is taken: on `a` by pods of the priorities 0 and 900, on `b` by one of 100.
async fn full() -> ApiServer {
    let server = cluster(&[("a", 4), ("b", 4)]).await;
    for (name, node, amount, priority) in [("1", "a", 2, 0), ("2", "a", 2, 900), ("3", "b", 4, 100)] {
        let mut object = pod(name, amount);
        object["metadata"]["uid"] = name.into();
        object["spec"]["nodeName"] = node.into();
        object["spec"]["priority"] = priority.into();
        server.create("pods", object).expect("pod");
    }
    server
}

fn important(name: &str) -> Value {
    let mut object = pod(name, 4);
    object["spec"]["priority"] = 1000.into();
    object
}

/// Waits until exactly these pods are deleted or being deleted.
async fn evicted(server: &ApiServer, names: &[&str]) {
    let leaving = |pod: Option<&Value>| pod.is_none_or(|pod| pod["metadata"]["deletionTimestamp"].is_string());
    for name in names {
        server.wait_for_object("pods", "ns", name, SOON, leaving).await.expect("evicted");
    }
    for name in ["1", "2", "3"].iter().filter(|name| !names.contains(name)) {
        assert!(!leaving(server.get("pods", "ns", name).ok().as_deref()), "{name} is evicted");
    }
}

async fn nominated(server: &ApiServer, name: &str) -> String {
    let said = |pod: Option<&Value>| pod.is_some_and(|pod| pod["status"]["nominatedNodeName"].is_string());
    let pod = server.wait_for_object("pods", "ns", name, SOON, said).await.expect("nominated");
    pod.expect("pod")["status"]["nominatedNodeName"].as_str().expect("name").to_owned()
}

#[tokio::test]
async fn room_is_made_where_the_least_important_victims_are() {
    let server = full().await;
    let (extender, mut config) = Extender::start().await;
    config.bind_verb.clear();
    config.preempt_verb = "preempt".into();
    extender.on("preempt", |args| json!({ "NodeNameToMetaVictims": args["NodeNameToMetaVictims"] }));
    let scheduler = Scheduler::start(quick(&server, Some(config))).await.expect("start");
    server.create("pods", important("p")).expect("pod");
    assert_eq!(nominated(&server, "p").await, "b");
    evicted(&server, &["3"]).await;
    let asked = extender.asked("preempt").remove(0);
    assert_eq!(asked["NodeNameToVictims"], Value::Null);
    assert_eq!(
        asked["NodeNameToMetaVictims"],
        json!({
            "a": { "Pods": [{ "UID": "2" }, { "UID": "1" }], "NumPDBViolations": 0 },
            "b": { "Pods": [{ "UID": "3" }], "NumPDBViolations": 0 },
        })
    );
    server.force_delete("pods", "ns", "3").expect("gone");
    assert_eq!(node_of(&server, "p").await, "b");
    assert_eq!(extender.asked("preempt").len(), 1, "while a victim leaves, nobody else has to");
    scheduler.shutdown().await;
}

#[tokio::test]
async fn an_extender_that_names_its_first_victim_wrongly_misleads_the_choice() {
    let server = full().await;
    let (extender, mut config) = Extender::start().await;
    config.preempt_verb = "preempt".into();
    extender.on("preempt", |args| {
        let mut nodes = args["NodeNameToMetaVictims"].clone();
        nodes["a"]["Pods"].as_array_mut().expect("pods").sort_by_key(|pod| pod["UID"].to_string());
        json!({ "NodeNameToMetaVictims": nodes })
    });
    let _scheduler = Scheduler::start(quick(&server, Some(config))).await.expect("start");
    server.create("pods", important("p")).expect("pod");
    assert_eq!(nominated(&server, "p").await, "a");
    evicted(&server, &["1", "2"]).await;
}

#[tokio::test]
async fn nobody_is_evicted_against_the_extenders_word_or_by_a_pod_that_never_preempts() {
    let server = full().await;
    let (extender, mut config) = Extender::start().await;
    config.preempt_verb = "preempt".into();
    let scheduler = Scheduler::start(quick(&server, Some(config))).await.expect("start");
    let answers = [
        json!({ "NodeNameToMetaVictims": {} }),
        json!({ "NodeNameToMetaVictims": { "a": { "Pods": [] } } }),
        json!({ "NodeNameToMetaVictims": { "a": { "Pods": [{ "UID": "3" }] } } }),
        json!("no answer"),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        extender.on("preempt", move |_| answer.clone());
        let name = format!("p{number}");
        server.create("pods", important(&name)).expect("pod");
        let refused = last(&scheduler, &name, |outcome| matches!(outcome, Outcome::Unschedulable(_))).await;
        assert_eq!(refused.nominated, None);
        server.delete("pods", "ns", &name).expect("delete");
    }
    let asked = extender.asked("preempt").len();
    let mut meek = important("meek");
    meek["spec"]["preemptionPolicy"] = "Never".into();
    server.create("pods", meek).expect("pod");
    last(&scheduler, "meek", |outcome| matches!(outcome, Outcome::Unschedulable(_))).await;
    assert_eq!(extender.asked("preempt").len(), asked);
    evicted(&server, &[]).await;
}
