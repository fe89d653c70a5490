//! Many pods at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use serde_json::Value;

use crate::fixture::{World, node, share};

/// Filter, then bind to the first node that fits; returns whether the pod was bound.
async fn one(world: &World, pod: Arc<Value>, nodes: &[Arc<Value>]) -> bool {
    let filtered = world.client.filter(&pod, nodes).await.expect("filter answers");
    match filtered.nodes.first() {
        Some(node) => world.bind(&pod, node).await.is_ok(),
        None => false,
    }
}

fn per_card(world: &World) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for cards in world.placements().into_values() {
        for card in cards {
            *counts.entry(card).or_default() += 1;
        }
    }
    counts
}

async fn eight_cards(core: &str, memory: &str, pods: usize, fit_each: usize, parallel: bool) {
    let world = World::new([node("n0", 8, 15_360)]).await;
    let mut all = Vec::new();
    for number in 0..pods {
        all.push(world.pod(&format!("p{number}"), share(core, memory)).await);
    }
    let nodes = world.nodes();
    let mut bound = 0;
    if parallel {
        let answers = join_all(all.into_iter().map(|pod| one(&world, pod, &nodes))).await;
        bound = answers.into_iter().filter(|bound| *bound).count();
    } else {
        for pod in all {
            bound += usize::from(one(&world, pod, &nodes).await);
        }
    }
    assert_eq!(bound, 8 * fit_each);
    let counts = per_card(&world);
    assert_eq!(counts.len(), 8, "every card is used");
    assert!(counts.values().all(|count| *count == fit_each), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_whole_cards_in_parallel_get_eight_cards() {
    eight_cards("100", "", 16, 1, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_whole_cards_back_to_back_get_eight_cards() {
    eight_cards("100", "", 16, 1, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shares_in_parallel_fill_each_card_and_no_more() {
    eight_cards("50", "30", 32, 2, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn shares_back_to_back_fill_each_card_and_no_more() {
    eight_cards("30", "20", 40, 3, false).await;
}
