//! `/scheduler/predicates`, for a scheduler that binds by itself.

use kerf::annotation::Keys;
use kerf_testkit::api::{Action, Fault};

use crate::fixture::{World, node, share};

#[tokio::test]
async fn one_node_is_left_and_the_record_is_on_the_pod() {
    let world = World::new([node("a", 1, 15_360), node("b", 2, 15_360), node("c", 0, 0)]).await;
    let pod = world.pod("p", share("50", "30")).await;
    let filtered = world.client.predicates(&pod, &world.nodes()).await.unwrap();
    assert_eq!(filtered.nodes, ["a"]);
    assert_eq!(filtered.failed["b"], "pod has been placed on another node");
    assert_eq!(filtered.unresolvable["c"], "no GPU device");
    let keys = Keys::default();
    let stored = world.api.get("pods", "default", "p").unwrap();
    assert_eq!(stored["metadata"]["annotations"][&keys.predicate_node], "a");
    assert_eq!(world.used("a"), [500], "held before the scheduler binds");
    world.api.bind("default", "p", "a").unwrap();
    world
        .until("observed", |w| {
            let nodes = w.extender.cluster().snapshot();
            nodes[0].ledger.commitments().values().all(|c| c.state.as_str() == "observed")
        })
        .await;
    assert_eq!(world.used("a"), [500]);
}

#[tokio::test]
async fn a_retried_pod_is_placed_again_and_counted_once() {
    let world = World::new([node("a", 1, 15_360), node("b", 2, 15_360)]).await;
    let pod = world.pod("p", share("50", "30")).await;
    assert_eq!(world.client.predicates(&pod, &world.nodes()).await.unwrap().nodes, ["a"]);
    assert_eq!(world.client.predicates(&pod, &world.nodes()).await.unwrap().nodes, ["a"]);
    let b: Vec<_> = world.nodes().into_iter().filter(|n| n["metadata"]["name"] == "b").collect();
    assert_eq!(world.client.predicates(&pod, &b).await.unwrap().nodes, ["b"]);
    assert_eq!((world.used("a"), world.used("b")), (vec![0], vec![500, 0]));
}

#[tokio::test]
async fn sixteen_back_to_back_get_eight_cards() {
    let world = World::new([node("n0", 8, 15_360)]).await;
    let mut placed = 0;
    for number in 0..16 {
        let pod = world.pod(&format!("p{number}"), share("100", "")).await;
        placed += world.client.predicates(&pod, &world.nodes()).await.unwrap().nodes.len();
    }
    assert_eq!(placed, 8);
    let mut cards: Vec<String> = world.placements().into_values().flatten().collect();
    cards.sort();
    cards.dedup();
    assert_eq!(cards.len(), 8);
}

#[tokio::test]
async fn without_the_right_to_patch_every_node_fails_and_nothing_is_held() {
    let world = World::new([node("a", 1, 15_360), node("b", 2, 15_360)]).await;
    let pod = world.pod("p", share("50", "30")).await;
    world.api.inject(Fault::new("patch", "pods", Action::Status(403)));
    let filtered = world.client.predicates(&pod, &world.nodes()).await.unwrap();
    assert!(filtered.nodes.is_empty());
    assert_eq!(filtered.failed["a"], "GPU placement could not be written on the pod");
    assert_eq!((world.used("a"), world.used("b")), (vec![0], vec![0, 0]));
}
