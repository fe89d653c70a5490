//! A node where containers fail because of the node itself is tried last, and not refused for that.

use std::num::NonZeroU16;

use kerf::k8s::ALLOCATIONS_SUCCEED;
use kerf_extender::config::Config;
use kerf_testkit::api::ApiServer;
use serde_json::json;

use crate::fixture::{World, config, node, pod, share};

fn says(world: &World, node: &str, status: &str) {
    let conditions = json!([{ "type": ALLOCATIONS_SUCCEED, "status": status, "reason": "AllocationsFail" }]);
    world.api.patch_status("nodes", "", node, json!({ "conditions": conditions })).unwrap();
}

/// Two nodes; `a` has a pod, so that it is the better one.
async fn world(candidates: u16) -> World {
    let api = ApiServer::start().await.expect("API server");
    for name in ["a", "b"] {
        api.create("nodes", node(name, 2, 15_360)).expect("node");
    }
    let world = World::on(api, Config { candidates: NonZeroU16::new(candidates), ..config() }).await;
    let first = world.pod("first", share("20", "10")).await;
    world.bind(&first, "a").await.unwrap();
    world
}

#[tokio::test]
async fn it_scores_lowest_and_is_cut_first() {
    for candidates in [0, 1] {
        let world = world(candidates).await;
        let next = world.pod("next", share("20", "10")).await;
        let best = async |world: &World| {
            let left = world.client.filter(&next, &world.nodes()).await.unwrap().nodes;
            let nodes =
                world.nodes().into_iter().filter(|node| left.iter().any(|name| node["metadata"]["name"] == **name));
            let nodes: Vec<_> = nodes.collect();
            let scores = world.client.prioritize(&next, &nodes).await.unwrap();
            let best = scores.iter().max_by_key(|score| score.score).unwrap().host.clone();
            (best, left)
        };
        let left = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(best(&world).await, ("a".to_owned(), left(if candidates == 0 { &["a", "b"] } else { &["a"] })));
        says(&world, "a", "False");
        world.until("told", |world| world.extender.cluster().is_failing("a")).await;
        assert_eq!(best(&world).await, ("b".to_owned(), left(if candidates == 0 { &["a", "b"] } else { &["b"] })));
        says(&world, "a", "True");
        world.until("told", |world| !world.extender.cluster().is_failing("a")).await;
        assert_eq!(best(&world).await.0, "a");
    }
}

#[tokio::test]
async fn it_takes_what_fits_nowhere_else() {
    let world = world(0).await;
    for name in ["a", "b"] {
        says(&world, name, "False");
    }
    world.until("told", |world| ["a", "b"].iter().all(|node| world.extender.cluster().is_failing(node))).await;
    let next = world.pod("next", share("20", "10")).await;
    assert_eq!(world.client.filter(&next, &world.nodes()).await.unwrap().nodes, ["a", "b"]);
    world.bind(&next, "a").await.unwrap();
    world.until("bound", |world| world.used("a") == [400, 0]).await;
    world.api.force_delete("nodes", "", "a").unwrap();
    world.until("gone", |world| !world.extender.cluster().is_failing("a")).await;
}

#[tokio::test]
async fn who_demands_mps_and_is_not_root_goes_where_more_than_mps_is() {
    let world = |level: &str| {
        let mut node = node("a", 1, 15_360);
        let keys = kerf::annotation::Keys::default();
        let mut inventory: serde_json::Value =
            serde_json::from_str(node["metadata"]["annotations"][&keys.inventory].as_str().unwrap()).unwrap();
        inventory["gpus"][0]["isolation"] = level.into();
        node["metadata"]["annotations"][&keys.inventory] = inventory.to_string().into();
        World::new([node])
    };
    let of_pod = json!({ "runAsUser": 1000 });
    let of_container = json!({ "runAsUser": 1000 });
    let root = json!({ "runAsUser": 0 });
    // the pod's user, the container's, and whether it may go to a card with this level
    for (pods, own, level, fits) in [
        (None, None, "mps", true),
        (Some(&of_pod), None, "mps", false),
        (None, Some(&of_container), "mps", false),
        (Some(&of_pod), Some(&root), "mps", true),
        (Some(&of_pod), None, "driver", true),
    ] {
        let world = world(level).await;
        let mut containers = share("20", "10");
        if let Some(own) = own {
            containers[0]["securityContext"] = own.clone();
        }
        let mut pod = pod("p", containers);
        pod["metadata"]["annotations"] = json!({ "inspur.com/isolation": "mps" });
        if let Some(pods) = pods {
            pod["spec"]["securityContext"] = pods.clone();
        }
        let pod = world.api.create("pods", pod).unwrap();
        let filtered = world.client.filter(&pod, &world.nodes()).await.unwrap();
        assert_eq!(filtered.nodes.len(), usize::from(fits), "{pods:?} {own:?} {level}: {filtered:?}");
    }
}
