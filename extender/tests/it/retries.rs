//! Refused pods that would fit now are tried again, even where nothing else happens in the cluster.

use std::time::Duration;

use kerf_extender::WAKER;
use kerf_testkit::api::{Action, Fault, Watchers};
use kerf_testkit::scheduler::{ExtenderConfig, Scheduler, SchedulerConfig};
use serde_json::{Value, json};

use crate::fixture::{World, node, pod, share};

/// A scheduler that does not retry by itself.
async fn scheduler(world: &World) -> Scheduler {
    let keys = kerf::annotation::Keys::default();
    let extender = ExtenderConfig::new(&world.url, &[&keys.core, &keys.memory]);
    let config = SchedulerConfig {
        initial_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_millis(50),
        ..SchedulerConfig::new(world.api.url(), Some(extender))
    };
    Scheduler::start(config).await.unwrap()
}

async fn unschedulable(scheduler: &Scheduler, count: usize) {
    let waits = |state: &kerf_testkit::scheduler::QueueState| state.is_idle() && state.unschedulable == count;
    scheduler.wait_for(Duration::from_secs(20), waits).await.unwrap();
}

async fn bound(world: &World, scheduler: &Scheduler, name: &str, within: Duration) {
    let wait = async {
        while world.api.get("pods", "default", name).unwrap()["spec"].get("nodeName").is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(within, wait).await;
    assert!(waited.is_ok(), "{name} waits: {:?}", scheduler.attempts_of("default", name).last());
}

fn wakes(world: &World) -> u64 {
    let written = ("patch".to_owned(), "csistoragecapacities".to_owned());
    world.api.writes().get(&written).copied().unwrap_or_default()
}

/// A pod that takes the only card, whose binding is lost before it is written, and which is then deleted: it holds its
/// card until its deadline, and no event of the API server shows when that ends.
async fn ghost(world: &World) -> Value {
    let ghost = world.pod("ghost", share("60", "30")).await;
    let uid = ghost["metadata"]["uid"].as_str().unwrap().into();
    world.until("seen", |w| w.extender.cluster().is_pending(&uid)).await;
    world.api.inject(Fault::new("create", "pods/binding", Action::DropBefore).named("ghost").times(1));
    assert!(world.bind(&ghost, "a").await.is_err());
    assert_eq!(world.used("a"), [600]);
    (*ghost).clone()
}

#[tokio::test]
async fn the_end_of_a_reservation_is_told_to_who_waits_for_it() {
    let world = World::new([node("a", 1, 15_360), node("b", 1, 15_360)]).await;
    ghost(&world).await;
    let bound_there = world.pod("there", share("40", "20")).await;
    world.bind(&bound_there, "b").await.unwrap();
    // no scheduler handles it; it keeps its reservation to the end
    world.api.patch("pods", "default", "ghost", &json!({ "spec": { "schedulerName": "nobody" } })).unwrap();
    let scheduler = scheduler(&world).await;
    for (name, core) in [("p", "90"), ("large", "200")] {
        world.pod(name, share(core, if core == "90" { "30" } else { "" })).await;
    }
    unschedulable(&scheduler, 2).await;
    // a change of a node that helps no pod causes no write
    world.api.patch("nodes", "", "b", &json!({ "metadata": { "annotations": { "example.com/x": "y" } } })).unwrap();
    // 15 s of the reservation, a round of the reaper and one of the retries
    bound(&world, &scheduler, "p", Duration::from_secs(25)).await;
    assert_eq!(wakes(&world), 1);
    let stored = world.api.get("csistoragecapacities", "kerf-system", WAKER).unwrap();
    assert!(stored["metadata"]["annotations"]["inspur.com/retried"].is_string(), "{stored}");
}

/// 300 nodes, the last of which alone has a GPU for pods: the others' is cordoned, which kube-scheduler's count of a node
/// does not tell.
async fn scarce(last: Value) -> World {
    let mut nodes: Vec<Value> = (0..300).map(|number| node(&format!("n{number:03}"), 1, 15_360)).collect();
    for node in &mut nodes[..299] {
        node["metadata"]["annotations"]["inspur.com/gpu-cordon"] = "0".into();
    }
    nodes[299]["spec"] = last;
    World::new(nodes).await
}

#[tokio::test]
async fn a_pod_that_a_part_of_the_nodes_refused_is_tried_on_the_others() {
    let world = scarce(json!({})).await;
    let scheduler = scheduler(&world).await;
    world.pod("p", share("90", "30")).await;
    // at 144 nodes of 300 a try the third one comes to the last
    bound(&world, &scheduler, "p", Duration::from_secs(20)).await;
    let asked: Vec<usize> =
        scheduler.attempts_of("default", "p").iter().map(|attempt| attempt.asked.len()).collect();
    assert_eq!((asked, wakes(&world)), (vec![144; 3], 2));
    // there is no room anywhere now
    world.pod("q", share("90", "30")).await;
    unschedulable(&scheduler, 1).await;
    world.api.force_delete("pods", "default", "p").unwrap();
    bound(&world, &scheduler, "q", Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_node_that_is_closed_to_a_pod_is_no_room_for_it() {
    let taint = json!({ "taints": [{ "key": "for", "value": "others", "effect": "NoSchedule" }] });
    let world = scarce(taint).await;
    let scheduler = scheduler(&world).await;
    world.pod("p", share("90", "30")).await;
    unschedulable(&scheduler, 1).await;
    assert_eq!(wakes(&world), 0);
    // tried again together, two pods would have the scheduler begin near the same node each time
    world.api.force_delete("pods", "default", "p").unwrap();
    let mut tolerant = pod("tolerant", share("90", "30"));
    tolerant["spec"]["tolerations"] = json!([{ "key": "for", "operator": "Exists" }]);
    world.api.create("pods", tolerant).unwrap();
    bound(&world, &scheduler, "tolerant", Duration::from_secs(20)).await;
}

#[tokio::test]
async fn news_that_come_late_are_told_too() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let first = world.pod("first", share("60", "30")).await;
    world.bind(&first, "a").await.unwrap();
    let p = world.pod("p", share("60", "30")).await;
    let uid = p["metadata"]["uid"].as_str().unwrap().into();
    world.until("seen", |w| w.extender.cluster().is_pending(&uid)).await;
    let scheduler = scheduler(&world).await;
    unschedulable(&scheduler, 1).await;
    // the scheduler's watch is ahead of the extender's
    world.api.hold_watch("pods", Watchers::Others).unwrap();
    world.api.force_delete("pods", "default", "first").unwrap();
    let tried = |count: usize| scheduler.attempts_of("default", "p").len() >= count;
    let before = scheduler.attempts_of("default", "p").len();
    let wait = async {
        while !tried(before + 1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
    unschedulable(&scheduler, 1).await;
    world.api.release_watch("pods").unwrap();
    bound(&world, &scheduler, "p", Duration::from_secs(20)).await;
    assert_eq!(wakes(&world), 1);
}

#[tokio::test]
async fn news_that_come_soon_are_waited_for() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let first = world.pod("first", share("60", "30")).await;
    world.bind(&first, "a").await.unwrap();
    let p = world.pod("p", share("60", "30")).await;
    let filter = async {
        let nodes = world.nodes();
        world.client.filter(&p, &nodes).await.unwrap().nodes
    };
    let free = async {
        // the filter has looked once by then, or looks later: the answer is the same
        tokio::time::sleep(Duration::from_millis(10)).await;
        world.api.force_delete("pods", "default", "first").unwrap();
    };
    let (left, ()) = tokio::join!(filter, free);
    assert_eq!(left, ["a"]);
}

#[tokio::test]
async fn a_member_of_a_group_that_is_gone_makes_room_for_others() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let mut member = pod("member", share("60", "30"));
    member["metadata"]["labels"] = json!({ "scheduling.x-k8s.io/pod-group": "g" });
    let member = world.api.create("pods", member).unwrap();
    let uid = member["metadata"]["uid"].as_str().unwrap().into();
    world.until("seen", |w| w.extender.cluster().is_pending(&uid)).await;
    assert_eq!(world.client.filter(&member, &world.nodes()).await.unwrap().nodes, ["a"]);
    let other = world.pod("other", share("60", "30")).await;
    assert!(world.client.filter(&other, &world.nodes()).await.unwrap().nodes.is_empty());
    world.api.force_delete("pods", "default", "member").unwrap();
    world.until("the member is gone", |w| !w.extender.cluster().is_pending(&uid)).await;
    assert_eq!(world.client.filter(&other, &world.nodes()).await.unwrap().nodes, ["a"]);
}
