//! Groups of pods that are bound together or not at all.

use std::time::Duration;

use kerf::annotation::Keys;
use kerf_testkit::scheduler::{ExtenderConfig, QueueState, Scheduler, SchedulerConfig};
use serde_json::json;

use crate::fixture::{PATIENCE, World, node, pod, share};

/// Two groups of four whole cards each on four cards; their pods alternate, as they may in the scheduler's queue.
async fn two_groups(nominates_waiting: bool) {
    let world = World::new([node("a", 2, 15_360), node("b", 2, 15_360)]).await;
    let keys = Keys::default();
    let config = SchedulerConfig {
        initial_backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(100),
        permit_timeout: Duration::from_millis(500),
        groups: [("x", 4), ("y", 4)].map(|(name, min)| (name.to_owned(), min)).into(),
        nominates_waiting,
        ..SchedulerConfig::new(world.api.url(), Some(ExtenderConfig::new(&world.url, &[&keys.core, &keys.memory])))
    };
    for number in 0..4 {
        for group in ["y", "x"] {
            let mut object = pod(&format!("{group}{number}"), share("100", ""));
            object["metadata"]["labels"] = json!({ "scheduling.x-k8s.io/pod-group": group });
            world.api.create("pods", object).unwrap();
        }
    }
    let seen = |w: &World| {
        let pods = w.api.list("pods").unwrap();
        let uid = |pod: &serde_json::Value| pod["metadata"]["uid"].as_str().unwrap().into();
        pods.iter().all(|pod| w.extender.cluster().is_pending(&uid(pod)))
    };
    world.until("all are seen", seen).await;
    let scheduler = Scheduler::start(config).await.unwrap();
    let bound = |state: &QueueState| state.bound == 4;
    scheduler.wait_for(PATIENCE, bound).await.unwrap();
    let placed = world.placements();
    let names: Vec<&str> = placed.keys().map(|name| name.get(..1).unwrap()).collect();
    assert!(names.iter().all(|name| *name == names[0]), "{placed:?}");
    // and the other group as soon as there is room
    for name in placed.keys() {
        world.api.force_delete("pods", "default", name).unwrap();
    }
    scheduler.wait_for(PATIENCE, |state| state.bound == 8).await.unwrap();
}

#[tokio::test]
async fn two_groups_that_both_fit_half_do_not_lock_each_other() {
    two_groups(true).await;
}

#[tokio::test]
async fn nor_where_the_scheduler_does_not_say_who_waits() {
    two_groups(false).await;
}
