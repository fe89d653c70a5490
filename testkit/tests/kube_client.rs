//! A real kube client and watcher work against the API server stand-in.

#![allow(clippy::expect_used, clippy::panic, reason = "a failing test may stop at once, its helpers too")]

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event as CoreEvent, Node, Pod};
use kerf_testkit::api::{Action, ApiConfig, ApiServer, Fault, Watchers};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

fn client(server: &ApiServer) -> Client {
    let config = Config::new(server.url().parse().expect("uri"));
    Client::try_from(config).expect("client")
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "ns" },
        "spec": { "containers": [{ "name": "main", "image": "i" }] },
        "status": { "phase": "Pending" },
    })
}

fn typed(value: Value) -> Pod {
    serde_json::from_value(value).expect("pod")
}

fn refusal(error: kube::Error) -> (u16, String, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason, status.message),
        other => panic!("not a Status: {other:?}"),
    }
}

/// Drives a watcher until `wanted` holds.
async fn until<T>(
    stream: &mut (impl futures::Stream<Item = Result<Event<Pod>, watcher::Error>> + Unpin),
    mut wanted: impl FnMut(Result<Event<Pod>, watcher::Error>) -> Option<T>,
) -> T {
    tokio::time::timeout(SOON, async {
        loop {
            let event = stream.next().await.expect("watchers never end");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    })
    .await
    .expect("in time")
}

#[tokio::test]
async fn objects_are_created_read_patched_and_deleted() {
    let server = ApiServer::start().await.expect("start");
    let pods: Api<Pod> = Api::namespaced(client(&server), "ns");
    let made = pods.create(&PostParams::default(), &typed(pod("a"))).await.expect("create");
    assert!(made.uid().is_some() && made.resource_version().is_some());
    let twice = refusal(pods.create(&PostParams::default(), &typed(pod("a"))).await.expect_err("twice"));
    assert_eq!((twice.0, twice.1.as_str()), (409, "AlreadyExists"));
    assert_eq!(twice.2, "pods \"a\" already exists");

    let patch = json!({ "metadata": { "annotations": { "k": "v" } }, "status": { "phase": "Running" } });
    let patched = pods.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patch");
    assert_eq!(patched.annotations().get("k").map(String::as_str), Some("v"));
    assert_eq!(
        patched.status.and_then(|status| status.phase).as_deref(),
        Some("Pending"),
        "status is not for this endpoint"
    );
    let patched = pods.patch_status("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("status");
    assert_eq!(patched.status.and_then(|status| status.phase).as_deref(), Some("Running"));

    let moved = json!({ "spec": { "nodeName": "n" } });
    let refused = refusal(pods.patch("a", &PatchParams::default(), &Patch::Merge(&moved)).await.expect_err("spec"));
    assert_eq!((refused.0, refused.1.as_str()), (422, "Invalid"));

    let apply =
        pods.patch("a", &PatchParams::apply("x"), &Patch::Apply(json!({"apiVersion": "v1", "kind": "Pod"}))).await;
    assert_eq!(refusal(apply.expect_err("apply")).0, 415);

    let other = DeleteParams {
        preconditions: Some(Preconditions { uid: Some("other".into()), resource_version: None }),
        ..DeleteParams::default()
    };
    let refused = refusal(pods.delete("a", &other).await.expect_err("uid"));
    assert_eq!(refused.0, 409);
    assert!(
        refused.2.contains("Precondition failed: UID in precondition: other, UID in object meta: "),
        "{}",
        refused.2
    );
    pods.delete("a", &DeleteParams::default()).await.expect("delete");
    assert_eq!(refusal(pods.get("a").await.expect_err("gone")).1, "NotFound");
    assert!(pods.get_opt("a").await.expect("get").is_none());
}

#[tokio::test]
async fn status_writes_keep_the_spec_and_may_annotate() {
    let server = ApiServer::start().await.expect("start");
    let nodes: Api<Node> = Api::all(client(&server));
    server.create("nodes", json!({ "metadata": { "name": "n" } })).expect("node");
    let patch = json!({
        "metadata": { "annotations": { "a": "b" }, "labels": { "c": "d" } },
        "spec": { "unschedulable": true },
        "status": { "capacity": { "x/y": "3" } },
    });
    let node = nodes.patch_status("n", &PatchParams::default(), &Patch::Strategic(&patch)).await.expect("patch");
    assert_eq!(node.annotations().get("a").map(String::as_str), Some("b"));
    assert_eq!(node.labels().get("c").map(String::as_str), Some("d"));
    assert_eq!(node.spec.unwrap_or_default().unschedulable, None);
    assert!(node.status.unwrap_or_default().capacity.unwrap_or_default().contains_key("x/y"));
}

#[tokio::test]
async fn an_unchanging_patch_makes_no_new_version() {
    let server = ApiServer::start().await.expect("start");
    let pods: Api<Pod> = Api::namespaced(client(&server), "ns");
    server.create("pods", pod("a")).expect("pod");
    let patch = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    let first = pods.patch("a", &PatchParams::default(), &patch).await.expect("patch");
    let second = pods.patch("a", &PatchParams::default(), &patch).await.expect("patch");
    assert_eq!(first.resource_version(), second.resource_version());
}

#[tokio::test]
async fn a_stale_resource_version_is_a_conflict() {
    let server = ApiServer::start().await.expect("start");
    let leases: Api<Lease> = Api::namespaced(client(&server), "ns");
    let lease: Lease =
        serde_json::from_value(json!({ "metadata": { "name": "l" }, "spec": { "holderIdentity": "a" } }))
            .expect("lease");
    let made = leases.create(&PostParams::default(), &lease).await.expect("create");
    let mut next = made.clone();
    next.spec.get_or_insert_default().holder_identity = Some("b".into());
    leases.replace("l", &PostParams::default(), &next).await.expect("replace");
    let refused = refusal(leases.replace("l", &PostParams::default(), &made).await.expect_err("stale"));
    assert_eq!((refused.0, refused.1.as_str()), (409, "Conflict"));
}

#[tokio::test]
async fn lists_page_and_select() {
    let server = ApiServer::start().await.expect("start");
    for index in 0..25 {
        let mut one = pod(&format!("p{index:02}"));
        if index % 5 == 0 {
            one["spec"]["nodeName"] = "n".into();
        }
        server.create("pods", one).expect("pod");
    }
    let pods: Api<Pod> = Api::all(client(&server));
    let first = pods.list(&ListParams::default().limit(10)).await.expect("list");
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (10, Some(15)));
    let mut names: Vec<String> = first.items.iter().map(ResourceExt::name_any).collect();
    let mut token = first.metadata.continue_.clone();
    while let Some(next) = token.filter(|token| !token.is_empty()) {
        let page = pods.list(&ListParams::default().limit(10).continue_token(&next)).await.expect("page");
        assert_eq!(page.metadata.resource_version, first.metadata.resource_version);
        names.extend(page.items.iter().map(ResourceExt::name_any));
        token = page.metadata.continue_;
    }
    assert_eq!(names, (0..25).map(|index| format!("p{index:02}")).collect::<Vec<_>>());
    let count =
        async |fields: &str| pods.list(&ListParams::default().fields(fields)).await.expect("list").items.len();
    assert_eq!(count("spec.nodeName=n").await, 5);
    assert_eq!(count("spec.nodeName!=n,metadata.name=p01").await, 1);
    assert_eq!(count("spec.nodeName=,status.phase!=Running").await, 20);
    server.compact();
    let token = first.metadata.continue_.unwrap_or_default();
    server.create("pods", pod("later")).expect("pod");
    server.compact();
    let expired = pods.list(&ListParams::default().limit(10).continue_token(&token)).await;
    assert_eq!(refusal(expired.expect_err("compacted")).1, "Expired");
}

#[tokio::test]
async fn a_binding_is_one_version_with_node_annotations_and_condition() {
    let server = ApiServer::start().await.expect("start");
    let client = client(&server);
    let pods: Api<Pod> = Api::namespaced(client.clone(), "ns");
    let mut unbound = pod("a");
    unbound["metadata"]["annotations"] = json!({ "old": "1", "kept": "1" });
    let before = server.create("pods", unbound).expect("pod");
    let uid = before["metadata"]["uid"].as_str().expect("uid").to_owned();
    let bind = async |name: &str, uid: Value, node: &str| {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": name, "namespace": "ns", "uid": uid, "annotations": { "old": "2", "new": "2" } },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        pods.create_subresource::<Value, Value>("binding", name, &PostParams::default(), &binding).await
    };
    let wrong = refusal(bind("a", "wrong".into(), "n").await.expect_err("uid"));
    assert_eq!((wrong.0, wrong.1.as_str()), (409, "Conflict"));
    assert!(
        wrong.2.contains(&format!("Precondition failed: UID in precondition: wrong, UID in object meta: {uid}")),
        "{}",
        wrong.2
    );
    assert_eq!(*server.get("pods", "ns", "a").expect("pod"), *before, "nothing was written");

    let answer = bind("a", uid.as_str().into(), "n").await.expect("bind");
    assert_eq!((&answer["kind"], &answer["status"]), (&json!("Status"), &json!("Success")));
    let after = server.get("pods", "ns", "a").expect("pod");
    let version =
        |pod: &Value| pod["metadata"]["resourceVersion"].as_str().expect("version").parse::<u64>().expect("number");
    assert_eq!(version(&after), version(&before) + 1);
    assert_eq!(after["spec"]["nodeName"], "n");
    assert_eq!(after["metadata"]["annotations"], json!({ "old": "2", "kept": "1", "new": "2" }));
    assert_eq!(after["status"]["conditions"][0]["type"], "PodScheduled");

    let again = refusal(bind("a", uid.as_str().into(), "m").await.expect_err("twice"));
    assert_eq!(again.0, 409);
    assert_eq!(
        again.2,
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n\""
    );
    assert_eq!(refusal(bind("b", Value::Null, "n").await.expect_err("unknown")).0, 404);

    // A pod with a node is deleted in two steps, and meanwhile takes no binding.
    server.create("pods", pod("c")).expect("pod");
    server.delete("pods", "ns", "a").expect("delete");
    assert!(server.get("pods", "ns", "a").expect("pod")["metadata"]["deletionTimestamp"].is_string());
    let deleting = refusal(bind("a", uid.as_str().into(), "n").await.expect_err("deleting"));
    assert_eq!(
        deleting.2,
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is being deleted, cannot be assigned to a host"
    );
    pods.delete("a", &DeleteParams::default().grace_period(0)).await.expect("finalize");
    server.delete("pods", "ns", "c").expect("delete");
    assert!(server.list("pods").expect("list").is_empty());
    assert_eq!(server.writes().get(&("create".into(), "pods/binding".into())), Some(&5));
    let log = server.write_log();
    assert_eq!((log[1].name.as_str(), log[1].code, log[1].answered), ("a", 201, true));
}

#[tokio::test]
async fn a_watcher_sees_objects_enter_change_and_leave_its_selection() {
    let server = ApiServer::start().await.expect("start");
    for index in 0..7 {
        server.create("pods", pod(&format!("p{index}"))).expect("pod");
    }
    server.bind("ns", "p0", "n").expect("bind");
    let pods: Api<Pod> = Api::all(client(&server));
    let config = watcher::Config::default().fields("spec.nodeName=n,status.phase!=Failed").page_size(2);
    let mut stream = watcher(pods, config).boxed();
    let mut initial = Vec::new();
    until(&mut stream, |event| match event.expect("no error") {
        Event::InitApply(pod) => {
            initial.push(pod.name_any());
            None
        }
        Event::InitDone => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(initial, ["p0"]);
    server.bind("ns", "p1", "other").expect("bind");
    server.bind("ns", "p2", "n").expect("bind");
    server.patch_status("pods", "ns", "p0", json!({ "phase": "Running" })).expect("patch");
    server.patch_status("pods", "ns", "p2", json!({ "phase": "Failed" })).expect("patch");
    server.force_delete("pods", "ns", "p0").expect("delete");
    let mut seen = Vec::new();
    until(&mut stream, |event| {
        seen.push(match event.expect("no error") {
            Event::Apply(pod) => format!(
                "apply {} {}",
                pod.name_any(),
                pod.status.and_then(|status| status.phase).unwrap_or_default()
            ),
            Event::Delete(pod) => format!("delete {}", pod.name_any()),
            other => panic!("{other:?}"),
        });
        (seen.len() == 4).then_some(())
    })
    .await;
    assert_eq!(seen, ["apply p2 Pending", "apply p0 Running", "delete p2", "delete p0"]);
}

#[tokio::test]
async fn streaming_lists_end_their_initial_events_with_a_bookmark() {
    let server = ApiServer::start().await.expect("start");
    server.create("pods", pod("a")).expect("pod");
    let pods: Api<Pod> = Api::all(client(&server));
    let mut stream = watcher(pods, watcher::Config::default().streaming_lists()).boxed();
    until(&mut stream, |event| matches!(event.expect("no error"), Event::InitDone).then_some(())).await;
}

#[tokio::test]
async fn a_watcher_survives_broken_watches_and_lists_again_after_compaction() {
    let server = ApiServer::start().await.expect("start");
    server.create("pods", pod("a")).expect("pod");
    let pods: Api<Pod> = Api::all(client(&server));
    // Short watches make the watcher return with its version by itself.
    let mut stream = watcher(pods, watcher::Config::default().timeout(1)).boxed();
    until(&mut stream, |event| matches!(event.expect("no error"), Event::InitDone).then_some(())).await;
    server.break_watches();
    server.create("pods", pod("b")).expect("pod");
    until(&mut stream, |event| {
        matches!(event.expect("no error"), Event::Apply(pod) if pod.name_any() == "b").then_some(())
    })
    .await;

    let hold = server.inject(Fault::new("watch", "pods", Action::Hold));
    server.break_watches();
    // The watcher must be driven to return, and is parked when it does.
    let (arrived, ()) = tokio::join!(hold.wait_hits(1, SOON), async {
        let _none = tokio::time::timeout(Duration::from_millis(500), stream.next()).await;
    });
    arrived.expect("parked");
    server.create("pods", pod("c")).expect("pod");
    server.compact();
    hold.remove();
    let mut listed = Vec::new();
    until(&mut stream, |event| match event {
        Err(watcher::Error::WatchError(status)) => {
            assert_eq!(status.code, 410);
            None
        }
        Ok(Event::InitApply(pod)) => {
            listed.push(pod.name_any());
            None
        }
        Ok(Event::InitDone) => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(listed, ["a", "b", "c"]);
}

#[tokio::test]
async fn an_open_watch_that_misses_history_ends_with_expired() {
    let server = ApiServer::start_with(ApiConfig { history: 3, ..ApiConfig::default() }).await.expect("start");
    let first = server.create("pods", pod("p")).expect("pod");
    let version = first["metadata"]["resourceVersion"].as_str().expect("version").to_owned();
    for index in 0..5 {
        server.create("pods", pod(&format!("p{index}"))).expect("pod");
    }
    let pods: Api<Pod> = Api::all(client(&server));
    let mut stream = pods.watch(&kube::api::WatchParams::default(), &version).await.expect("watch").boxed();
    match stream.try_next().await.expect("event") {
        Some(kube::api::WatchEvent::Error(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bookmarks_tell_versions_that_other_kinds_made() {
    let config = ApiConfig { bookmark_every: Duration::from_millis(20), ..ApiConfig::default() };
    let server = ApiServer::start_with(config).await.expect("start");
    let pods: Api<Pod> = Api::all(client(&server));
    let mut stream = pods.watch(&kube::api::WatchParams::default(), "1").await.expect("watch").boxed();
    server.create("nodes", json!({ "metadata": { "name": "n" } })).expect("node");
    let wanted = server.changes().borrow().to_string();
    tokio::time::timeout(SOON, async {
        loop {
            match stream.try_next().await.expect("event") {
                Some(kube::api::WatchEvent::Bookmark(mark)) if mark.metadata.resource_version == wanted => return,
                Some(kube::api::WatchEvent::Bookmark(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await
    .expect("bookmark");
}

#[tokio::test]
async fn faults_refuse_drop_and_hold_requests() {
    let server = ApiServer::start().await.expect("start");
    let pods: Api<Pod> = Api::namespaced(client(&server), "ns");
    let create = async |name: &str| pods.create(&PostParams::default(), &typed(pod(name))).await;

    let refused = server.inject(Fault::new("create", "pods", Action::Status(422)).named("a").times(1));
    assert_eq!(refusal(create("a").await.expect_err("fault")).0, 422);
    create("a").await.expect("used up");
    assert_eq!(refused.hits(), 1);

    server.inject(Fault::new("create", "pods", Action::DropBefore).times(1));
    assert!(!matches!(create("b").await.expect_err("dropped"), kube::Error::Api(_)));
    assert!(server.get("pods", "ns", "b").is_err());

    server.inject(Fault::new("create", "pods", Action::DropAfter).times(1));
    assert!(!matches!(create("b").await.expect_err("dropped"), kube::Error::Api(_)));
    server.get("pods", "ns", "b").expect("it was done");

    let hold = server.inject(Fault::new("*", "pods", Action::Hold).named("c"));
    let (made, ()) = tokio::join!(create("c"), async {
        hold.wait_hits(1, SOON).await.expect("hit");
        assert!(server.get("pods", "ns", "c").is_err());
        hold.release();
    });
    made.expect("released");
    assert_eq!(hold.parked(), 0);

    server.pause();
    let (made, ()) = tokio::join!(create("d"), async {
        tokio::task::yield_now().await;
        assert!(server.get("pods", "ns", "d").is_err());
        server.resume();
    });
    made.expect("resumed");
    let unanswered = server.write_log().iter().filter(|write| !write.answered).count();
    assert_eq!(unanswered, 2);
}

#[tokio::test]
async fn held_watches_lag_behind_and_catch_up() {
    let server = ApiServer::start().await.expect("start");
    server.create("pods", pod("a")).expect("pod");
    let pods: Api<Pod> = Api::all(client(&server));
    let mut stream = watcher(pods, watcher::Config::default()).boxed();
    until(&mut stream, |event| matches!(event.expect("no error"), Event::InitDone).then_some(())).await;
    server.hold_watch("pods", Watchers::Others).expect("hold");
    server.bind("ns", "a", "n").expect("bind");
    assert!(tokio::time::timeout(Duration::from_millis(100), stream.next()).await.is_err(), "held");
    server.release_watch("pods").expect("release");
    until(&mut stream, |event| matches!(event.expect("no error"), Event::Apply(pod) if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some("n")).then_some(())).await;
    let late = Duration::from_millis(80);
    server.delay_watch(Watchers::All, late);
    let start = tokio::time::Instant::now();
    server.create("pods", pod("b")).expect("pod");
    until(&mut stream, |event| matches!(event.expect("no error"), Event::Apply(_)).then_some(())).await;
    assert!(start.elapsed() >= late);
}

#[tokio::test]
async fn events_of_both_groups_and_kubeconfigs_work() {
    let server = ApiServer::start().await.expect("start");
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("kubeconfig");
    server.write_kubeconfig(&path).expect("write");
    let kubeconfig = kube::config::Kubeconfig::read_from(&path).expect("read");
    let config = Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
        .await
        .expect("config");
    let client = Client::try_from(config).expect("client");
    let events: Api<CoreEvent> = Api::namespaced(client.clone(), "ns");
    let event = json!({ "metadata": { "generateName": "e-" }, "involvedObject": { "name": "a" }, "reason": "R" });
    events.create(&PostParams::default(), &serde_json::from_value(event).expect("event")).await.expect("core");
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(client, "ns");
    let event = json!({ "metadata": { "generateName": "e-" }, "eventTime": null, "reason": "R" });
    events.create(&PostParams::default(), &serde_json::from_value(event).expect("event")).await.expect("new");
    assert_eq!(server.list("events").expect("list").len(), 2);
}

#[tokio::test]
async fn waiting_ends_with_what_was_there() {
    let server = ApiServer::start().await.expect("start");
    server.create("pods", pod("a")).expect("pod");
    let missed = server.wait_for::<()>("pods", Duration::from_millis(10), |_| None).await.expect_err("never");
    assert!(missed.to_string().contains("ns/a phase=\"Pending\""), "{missed}");
    let (found, ()) = tokio::join!(server.wait_for_object("pods", "ns", "b", SOON, |pod| pod.is_some()), async {
        drop(server.create("pods", pod("b")))
    });
    assert!(found.expect("in time").is_some());
    server.shutdown().await;
}
