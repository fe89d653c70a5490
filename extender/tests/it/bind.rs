//! Bind: one write, and every way to lose its answer.

use std::time::Duration;

use kerf::annotation::Keys;
use kerf::units::Timestamp;
use kerf_extender::config::Config;
use kerf_testkit::api::{Action, ApiServer, Fault, Watchers};
use serde_json::{Value, json};

use crate::fixture::{World, config, node, share};

fn binding_writes(world: &World) -> Vec<(String, u64)> {
    world.api.writes().into_iter().map(|((verb, resource), count)| (format!("{verb} {resource}"), count)).collect()
}

#[tokio::test]
async fn a_bind_is_exactly_one_write_with_both_records() {
    let world = World::new([node("a", 2, 15_360)]).await;
    let pod = world.pod("p", share("50", "30")).await;
    world.bind(&pod, "a").await.unwrap();
    assert_eq!(binding_writes(&world), [("create pods/binding".to_owned(), 1)]);
    let keys = Keys::default();
    let stored = world.api.get("pods", "default", "p").unwrap();
    let annotations = &stored["metadata"]["annotations"];
    assert_eq!(stored["spec"]["nodeName"], "a");
    assert_eq!(annotations[&keys.predicate_node], "a");
    assert_eq!(annotations[format!("{}0", keys.predicate_gpu_idx)], "0");
    assert_eq!(annotations[&keys.gpu_assigned], "false");
    let time = annotations[&keys.predicate_time].as_str().unwrap();
    assert_eq!(time.len(), 19, "nanoseconds");
    let placement: Value = serde_json::from_str(annotations[&keys.placement].as_str().unwrap()).unwrap();
    assert_eq!(
        placement,
        json!({ "version": 1, "node": "a", "time": time.parse::<u64>().unwrap(), "containers": [
            { "name": "main", "kind": "app", "position": 0, "whole": false,
              "slices": [{ "gpu": "GPU-a-0", "index": 0, "compute": 500, "memory": 7680 }] }] })
    );
}

#[tokio::test]
async fn a_repeated_bind_is_answered_and_changes_nothing() {
    let world = World::new([node("a", 2, 15_360)]).await;
    let pod = world.pod("p", share("50", "30")).await;
    world.bind(&pod, "a").await.unwrap();
    let before = world.placements();
    world.bind(&pod, "a").await.unwrap();
    assert_eq!(world.placements(), before);
    assert_eq!(world.used("a"), [500, 0]);
}

#[tokio::test]
async fn a_lost_answer_is_neither_a_double_booking_nor_a_leak() {
    let world = World::new([node("a", 2, 15_360)]).await;
    for (action, name) in [(Action::DropAfter, "after"), (Action::DropBefore, "before")] {
        let pod = world.pod(name, share("50", "30")).await;
        let fault = world.api.inject(Fault::new("create", "pods/binding", action).named(name).times(1));
        let first = world.bind(&pod, "a").await;
        assert_eq!(fault.hits(), 1);
        // a lost answer to a write that was carried out is found out immediately; one that was not may still be
        assert_eq!(first.is_ok(), name == "after", "{first:?}");
        assert!(first.is_ok() || first.unwrap_err().contains("unknown"));
        world.bind(&pod, "a").await.unwrap();
    }
    assert_eq!(world.used("a"), [1000, 0]);
    assert_eq!(world.placements().len(), 2);
}

#[tokio::test]
async fn a_binding_in_doubt_keeps_its_cards_until_the_api_server_says() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let pod = world.pod("p", share("60", "30")).await;
    world.until("pod seen", |w| w.extender.cluster().is_pending(&uid(&pod))).await;
    world.api.hold_watch("pods", Watchers::All).unwrap();
    world.api.inject(Fault::new("create", "pods/binding", Action::DropAfter).times(1));
    let reads = world.api.inject(Fault::new("get", "pods", Action::Status(503)));
    let doubt = world.bind(&pod, "a").await.unwrap_err();
    assert!(doubt.contains("unknown"), "{doubt}");
    assert_eq!(world.used("a"), [600], "held while in doubt");
    let other = world.pod("other", share("60", "30")).await;
    let nodes = world.nodes();
    assert!(world.client.filter(&other, &nodes).await.unwrap().nodes.is_empty());
    reads.remove();
    world.bind(&pod, "a").await.unwrap();
    assert_eq!(world.used("a"), [600], "one pod, one hold");
    world.api.release_watch("pods").unwrap();
    assert!(world.bind(&other, "a").await.unwrap_err().contains("no longer fits"));
}

#[tokio::test]
async fn a_refused_write_frees_the_cards_at_once() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let gone = world.pod("gone", share("60", "30")).await;
    world.until("pod seen", |w| w.extender.cluster().is_pending(&uid(&gone))).await;
    world.api.hold_watch("pods", Watchers::All).unwrap();
    world.api.force_delete("pods", "default", "gone").unwrap();
    assert!(world.bind(&gone, "a").await.is_err());
    assert_eq!(world.used("a"), [0]);
    let forbidden = world.pod("forbidden", share("60", "30")).await;
    world.api.inject(Fault::new("create", "pods/binding", Action::Status(403)).times(1));
    assert!(world.bind(&forbidden, "a").await.is_err());
    assert_eq!(world.used("a"), [0]);
}

#[tokio::test]
async fn a_refused_write_says_nothing_of_an_earlier_one_without_an_answer() {
    for code in [429, 403, 409] {
        let world = World::new([node("a", 1, 15_360)]).await;
        let pod = world.pod("p", share("100", "")).await;
        world.until("pod seen", |w| w.extender.cluster().is_pending(&uid(&pod))).await;
        let slow = world.api.inject(Fault::new("create", "pods/binding", Action::Hold).times(1));
        assert!(world.bind(&pod, "a").await.unwrap_err().contains("unknown"));
        assert_eq!(slow.parked(), 1, "it may still be carried out");
        let refused = world.api.inject(Fault::new("create", "pods/binding", Action::Status(code)).times(1));
        assert!(world.bind(&pod, "a").await.unwrap_err().contains("unknown"), "{code}");
        assert_eq!((refused.hits(), world.used("a")), (1, vec![1000]), "{code}");
        let other = world.pod("other", share("100", "")).await;
        assert!(world.bind(&other, "a").await.unwrap_err().contains("no longer fits"), "{code}");
        let cluster = world.extender.cluster();
        let latest = Timestamp(u64::MAX);
        assert_eq!(cluster.overdue(latest).len(), 1, "the API server is asked in time");
        assert!(cluster.expire(&"a".into(), &uid(&pod), latest));
        world.bind(&other, "a").await.unwrap();
    }
}

#[tokio::test]
async fn another_life_of_the_name_is_not_bound() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let old = world.pod("p", share("60", "30")).await;
    world.until("pod seen", |w| w.extender.cluster().is_pending(&uid(&old))).await;
    world.api.hold_watch("pods", Watchers::All).unwrap();
    world.api.force_delete("pods", "default", "p").unwrap();
    let new = world.pod("p", share("10", "1")).await;
    assert!(world.bind(&old, "a").await.is_err());
    assert_eq!(world.used("a"), [0]);
    assert_eq!(world.api.get("pods", "default", "p").unwrap()["spec"].get("nodeName"), None);
    world.bind(&new, "a").await.unwrap();
    assert_eq!(world.used("a"), [100]);
}

#[tokio::test]
async fn a_pod_bound_elsewhere_leaves_the_node_where_it_was_assumed() {
    let world = World::new([node("a", 1, 15_360), node("b", 1, 15_360)]).await;
    let pod = world.pod("p", share("60", "30")).await;
    world.until("pod seen", |w| w.extender.cluster().is_pending(&uid(&pod))).await;
    world.api.inject(Fault::new("create", "pods/binding", Action::DropBefore).times(1));
    assert!(world.bind(&pod, "a").await.is_err());
    assert_eq!(world.used("a"), [600], "in doubt");
    world.bind(&pod, "b").await.unwrap();
    assert_eq!((world.used("a"), world.used("b")), (vec![0], vec![600]));
}

#[tokio::test]
async fn a_pod_that_ends_or_goes_frees_its_cards() {
    let world = World::new([node("a", 1, 15_360)]).await;
    for (name, phase) in [("done", "Succeeded"), ("failed", "Failed"), ("deleted", "")] {
        let pod = world.pod(name, share("60", "30")).await;
        world.bind(&pod, "a").await.unwrap();
        assert_eq!(world.used("a"), [600]);
        match phase {
            "" => world.api.force_delete("pods", "default", name).unwrap(),
            phase => {
                world.api.patch_status("pods", "default", name, json!({ "phase": phase })).unwrap();
            }
        }
        world.until("free", |w| w.used("a") == [0]).await;
    }
}

fn uid(pod: &Value) -> kerf::ids::PodUid {
    pod["metadata"]["uid"].as_str().unwrap().into()
}

/// The outcome of an abandoned write is unknown: under load, bind waits for a write longer than for a read.
#[tokio::test]
async fn a_binding_may_take_longer_than_a_read() {
    let api = ApiServer::start().await.unwrap();
    api.create("nodes", node("a", 2, 15_360)).unwrap();
    let read = Duration::from_millis(250);
    let world = World::on(api, Config { api_timeout: read, write_timeout: read * 12, ..config() }).await;
    let pod = world.pod("p", share("50", "30")).await;
    world.api.inject(Fault::new("create", "pods/binding", Action::Delay(read * 3)).times(1));
    world.bind(&pod, "a").await.unwrap();
    assert_eq!(binding_writes(&world), [("create pods/binding".to_owned(), 1)]);
    assert_eq!(world.used("a"), [500, 0]);
}
