//! How many pods wait, and why.

use std::collections::BTreeMap;

use kerf::annotation::Keys;
use serde_json::json;

use crate::fixture::{World, node, pod, share};

/// Pods that wait, by reason, and how many of them fit on all nodes together.
async fn waiting(world: &World) -> (BTreeMap<String, u32>, String) {
    let metrics = world.text("/metrics").await;
    let pending = metrics.lines().filter_map(|line| line.strip_prefix("kerf_extender_pods_pending{reason=\""));
    let pending = pending.filter_map(|line| line.split_once("\"} ")).map(|(reason, count)| {
        let count: u32 = count.parse().unwrap();
        (reason.to_owned(), count)
    });
    let fragmented = metrics.lines().find_map(|line| line.strip_prefix("kerf_extender_pods_pending_fragmented "));
    (pending.filter(|(_, count)| *count > 0).collect(), fragmented.unwrap().to_owned())
}

#[tokio::test]
async fn pods_that_wait_are_counted_by_reason_until_they_do_not() {
    // two GPUs with half of each free
    let world = World::new([node("a", 1, 15_360), node("b", 1, 15_360)]).await;
    for (name, node) in [("a-half", "a"), ("b-half", "b")] {
        let half = world.pod(name, share("50", "30")).await;
        world.bind(&half, node).await.unwrap();
    }
    assert_eq!(waiting(&world).await, (BTreeMap::new(), "0".to_owned()));

    let mut invalid = pod("invalid", share("50", "10"));
    invalid["metadata"]["annotations"] = json!({ &Keys::default().policy: "any" });
    world.api.create("pods", invalid).unwrap();
    let new = world.pod("new", share("10", "4")).await;
    world.until("seen", |w| w.extender.cluster().unbound() == (1, 1)).await;
    let found = |pairs: &[(&str, u32)], fragmented: &str| {
        (pairs.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(), fragmented.to_owned())
    };
    assert_eq!(waiting(&world).await, found(&[("invalid", 1), ("not-refused", 1)], "0"));

    // on both GPUs together there is room for the first of these
    let fits_together = world.pod("fits-together", share("60", "4")).await;
    let too_much = world.pod("too-much", share("100", "")).await;
    let too_large = world.pod("too-large", share("60", "61")).await;
    world.until("seen", |w| w.extender.cluster().unbound() == (4, 1)).await;
    for pod in [&fits_together, &too_much, &too_large] {
        assert!(world.client.filter(pod, &world.nodes()).await.unwrap().nodes.is_empty());
    }
    let all = [("card-too-small", 1), ("core", 1), ("invalid", 1), ("not-refused", 1), ("whole-cards", 1)];
    assert_eq!(waiting(&world).await, found(&all, "2"), "one whole GPU is free as well, in two halves");

    for name in ["fits-together", "too-much", "too-large", "invalid"] {
        world.api.force_delete("pods", "default", name).unwrap();
    }
    world.bind(&new, "a").await.unwrap();
    world.until("gone", |w| w.extender.cluster().unbound() == (0, 0)).await;
    assert_eq!(waiting(&world).await, found(&[], "0"));
}

/// A pod counts as unconfirmed from its binding until its node says that it has its GPUs.
#[tokio::test]
async fn pods_that_their_node_has_not_confirmed_are_counted() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let line = |count: u32| format!("kerf_extender_pods_unconfirmed{{node=\"a\"}} {count}\n");
    assert!(world.text("/metrics").await.contains(&line(0)));
    let half = world.pod("half", share("50", "30")).await;
    world.bind(&half, "a").await.unwrap();
    assert!(world.text("/metrics").await.contains(&line(1)));
    let confirmed = json!({ "metadata": { "annotations": { Keys::default().gpu_assigned: "true" } } });
    world.api.patch("pods", "default", "half", &confirmed).unwrap();
    let is_confirmed =
        |w: &World| w.extender.cluster().snapshot()[0].ledger.commitments().values().all(|known| known.confirmed);
    world.until("confirmed", is_confirmed).await;
    assert!(world.text("/metrics").await.contains(&line(0)));
}
