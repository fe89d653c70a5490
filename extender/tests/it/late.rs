//! Answers of the API server that are older than what the watch has shown since.

use kerf::annotation::Keys;
use kerf::ids::PodUid;
use kerf_testkit::api::{Action, Fault};
use serde_json::{Value, json};

use crate::fixture::{PATIENCE, World, node, share};

fn uid(pod: &Value) -> PodUid {
    pod["metadata"]["uid"].as_str().unwrap().into()
}

/// How a pod leaves.
fn leave(world: &World, how: &str) {
    match how {
        "deleted" => world.api.force_delete("pods", "default", "p").unwrap(),
        phase => drop(world.api.patch_status("pods", "default", "p", json!({ "phase": phase })).unwrap()),
    }
}

#[tokio::test]
async fn what_was_deleted_stays_deleted_however_late_the_answer_to_a_bind_comes() {
    for how in ["deleted", "Succeeded", "Failed"] {
        let world = World::new([node("a", 1, 15_360)]).await;
        let p = world.pod("p", share("100", "")).await;
        world.until("seen", |w| w.extender.cluster().is_pending(&uid(&p))).await;
        world.api.inject(Fault::new("create", "pods/binding", Action::DropAfter).times(1));
        let read = world.api.inject(Fault::new("get", "pods", Action::HoldAnswer).times(1));
        let late = async {
            read.wait_hits(1, PATIENCE).await.unwrap();
            leave(&world, how);
            world.until("gone", |w| w.extender.cluster().is_gone(&uid(&p))).await;
            assert_eq!(world.used("a"), [0]);
            read.release();
        };
        let (_answer, ()) = tokio::join!(world.bind(&p, "a"), late);
        assert_eq!(world.used("a"), [0], "{how}");
        // a list that does not show the pod changes nothing
        world.relist().await;
        let q = world.pod("q", share("100", "")).await;
        world.bind(&q, "a").await.unwrap();
    }
}

#[tokio::test]
async fn what_was_deleted_stays_deleted_however_late_the_reaper_hears_of_it() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let p = world.pod("p", share("100", "")).await;
    world.until("seen", |w| w.extender.cluster().is_pending(&uid(&p))).await;
    world.api.bind("default", "p", "a").unwrap();
    world.until("bound", |w| w.used("a") == [1000]).await;
    // an answer to a question that was asked before
    let found = serde_json::from_value(Value::clone(&world.api.get("pods", "default", "p").unwrap())).unwrap();
    world.api.force_delete("pods", "default", "p").unwrap();
    world.until("gone", |w| w.used("a") == [0]).await;
    let view = kerf::k8s::pod(&found, &Keys::default()).unwrap();
    world.extender.cluster().apply_answer(view.clone(), &Default::default());
    assert_eq!(world.used("a"), [0]);
    world.extender.cluster().apply_pod(view.clone(), &Default::default());
    assert_eq!(world.used("a"), [0], "nor by an event of a watch");
    // a complete list is newer than all of this
    world.extender.cluster().list_pod(&view.uid);
    world.extender.cluster().apply_pod(view, &Default::default());
    assert_eq!(world.used("a"), [1000]);
    world.relist().await;
    assert_eq!(world.used("a"), [0]);
}

#[tokio::test]
async fn an_answer_that_is_older_than_a_record_does_not_bring_back_the_one_before() {
    let world = World::new([node("a", 2, 15_360)]).await;
    let p = world.pod("p", share("60", "10")).await;
    world.bind(&p, "a").await.unwrap();
    let before = serde_json::from_value(Value::clone(&world.api.get("pods", "default", "p").unwrap())).unwrap();
    let keys = Keys::default();
    let text = r#"{"version":1,"node":"a","time":1,"containers":[{"name":"main","kind":"app","position":0,"whole":false,"slices":[{"gpu":"GPU-a-1","index":1,"compute":600,"memory":2560}]}]}"#;
    world
        .api
        .patch("pods", "default", "p", &json!({ "metadata": { "annotations": { &keys.placement: text } } }))
        .unwrap();
    world.until("moved", |w| w.used("a")[1] == 600).await;
    let used = world.used("a");
    world.extender.cluster().apply_answer(kerf::k8s::pod(&before, &keys).unwrap(), &Default::default());
    assert_eq!(world.used("a"), used);
}

#[tokio::test]
async fn a_pod_is_bound_to_no_card_that_fell_ill_since_the_last_try() {
    let world = World::new([node("a", 2, 15_360)]).await;
    let p = world.pod("p", share("60", "10")).await;
    world.until("seen", |w| w.extender.cluster().is_pending(&uid(&p))).await;
    world.api.inject(Fault::new("create", "pods/binding", Action::DropBefore).times(1));
    assert!(world.bind(&p, "a").await.unwrap_err().contains("unknown"));
    assert_eq!(world.used("a"), [600, 0]);
    let keys = Keys::default();
    let patch = json!({ "metadata": { "annotations": { &keys.cordon: "GPU-a-0" } } });
    world.api.patch("nodes", "", "a", &patch).unwrap();
    let cordoned = |w: &World| w.extender.cluster().snapshot()[0].ledger.cards()[0].device().cordoned;
    world.until("cordoned", cordoned).await;
    world.bind(&p, "a").await.unwrap();
    assert_eq!(world.placements()["p"], ["a/GPU-a-1"]);
    assert_eq!(world.used("a"), [0, 600]);
}
