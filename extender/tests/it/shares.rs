//! Counted shares: other device plugins' resources, placed on known cards.

use kerf::annotation::Keys;
use kerf::policy::Policy;
use kerf_extender::config::Config;
use kerf_testkit::api::ApiServer;
use serde_json::{Value, json};

use crate::fixture::{World, config, node, share};

const SHARED: &str = "deepomatic.com/shared-gpu";

/// A node whose cards are offered as this many shares each.
fn offering(name: &str, cards: u32, shares: u32) -> Value {
    let key = Keys::default().inventory;
    let mut node = node(name, cards, 15_360);
    let mut inventory: Value =
        serde_json::from_str(node["metadata"]["annotations"][&key].as_str().unwrap()).unwrap();
    for gpu in inventory["gpus"].as_array_mut().unwrap() {
        gpu["offers"] = json!({ SHARED: shares });
    }
    node["metadata"]["annotations"][&key] = inventory.to_string().into();
    node["status"]["capacity"][SHARED] = (cards * shares).to_string().into();
    node
}

fn shares(counts: &[u32]) -> Value {
    let container = |(at, count): (usize, &u32)| {
        let limits = json!({ SHARED: count.to_string() });
        json!({ "name": format!("c{at}"), "resources": { "limits": limits, "requests": limits } })
    };
    counts.iter().enumerate().map(container).collect()
}

async fn get(world: &World, path: &str) -> String {
    world.text(path).await
}

#[tokio::test]
async fn the_record_says_how_many_shares_of_which_card() {
    let world = World::new([offering("a", 2, 4)]).await;
    let mut pod = crate::fixture::pod("p", shares(&[5, 1]));
    pod["metadata"]["annotations"] = json!({ "inspur.com/gpu-policy": "spread" });
    let pod = world.api.create("pods", pod).unwrap();
    assert_eq!(world.client.filter(&pod, &world.nodes()).await.unwrap().nodes, ["a"]);
    world.bind(&pod, "a").await.unwrap();
    let keys = Keys::default();
    let stored = world.api.get("pods", "default", "p").unwrap();
    let annotations = &stored["metadata"]["annotations"];
    let mut placement: Value = serde_json::from_str(annotations[&keys.placement].as_str().unwrap()).unwrap();
    placement.as_object_mut().unwrap().remove("time");
    assert_eq!(
        placement,
        json!({ "version": 1, "node": "a", "containers": [
            { "name": "c0", "kind": "app", "position": 0, "whole": false, "resource": SHARED, "slices": [
                { "gpu": "GPU-a-0", "index": 0, "compute": 1000, "count": 4 },
                { "gpu": "GPU-a-1", "index": 1, "compute": 250, "count": 1 }] },
            { "name": "c1", "kind": "app", "position": 1, "whole": false, "resource": SHARED, "slices": [
                { "gpu": "GPU-a-1", "index": 1, "compute": 250, "count": 1 }] }] })
    );
    assert_eq!(annotations[format!("{}0", keys.predicate_gpu_idx)], "0,1");
    assert_eq!(annotations[format!("{}1", keys.predicate_gpu_idx)], "1");
    assert_eq!(world.used("a"), [1000, 500]);

    let state: Value = serde_json::from_str(&get(&world, "/debug/state").await).unwrap();
    let node = &state["nodes"]["a"];
    assert_eq!(node["gpus"][1]["shares"], json!({ SHARED: { "per_gpu": 4, "free": 2 } }));
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    assert_eq!(
        node["pods"][uid]["shares"],
        json!({ "c0": { "GPU-a-0": 4, "GPU-a-1": 1 }, "c1": { "GPU-a-1": 1 } })
    );
    let metrics = get(&world, "/metrics").await;
    for line in [
        r#"kerf_extender_gpu_shares{gpu="GPU-a-1",node="a",resource="deepomatic.com/shared-gpu"} 4"#,
        r#"kerf_extender_gpu_shares_free{gpu="GPU-a-1",node="a",resource="deepomatic.com/shared-gpu"} 2"#,
        r#"kerf_extender_gpu_memory_free_bytes{gpu="GPU-a-1",index="1",model="Test",node="a"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

/// Deepomatic's plugin serves only one card in each node; kerf has no such limit.
#[tokio::test]
async fn four_pods_of_two_shares_are_packed_or_spread_over_known_cards_of_known_nodes() {
    for (policy, expected) in [
        (Policy::Binpack, ["a/GPU-a-0"; 4]),
        (Policy::Fragmentation, ["a/GPU-a-0"; 4]),
        (Policy::Spread, ["a/GPU-a-0", "b/GPU-b-0", "a/GPU-a-1", "b/GPU-b-1"]),
    ] {
        let api = ApiServer::start().await.unwrap();
        for name in ["a", "b"] {
            api.create("nodes", offering(name, 2, 100)).unwrap();
        }
        let world = World::on(api, Config { policy, ..config() }).await;
        for (number, expected) in expected.into_iter().enumerate() {
            let name = format!("p{number}");
            let pod = world.pod(&name, shares(&[2])).await;
            assert_eq!(world.client.filter(&pod, &world.nodes()).await.unwrap().nodes, ["a", "b"]);
            let scores = world.client.prioritize(&pod, &world.nodes()).await.unwrap();
            world.bind(&pod, &scores.iter().max_by_key(|node| node.score).unwrap().host).await.unwrap();
            assert_eq!(world.placements()[&name], [expected], "{policy} {name}");
        }
    }
}

#[tokio::test]
async fn a_pod_that_another_plugin_serves_is_no_obstacle() {
    let world = World::new([node("other", 1, 15_360), offering("ours", 1, 10)]).await;
    for (name, home) in [("theirs", "other"), ("early", "ours")] {
        let mut pod = crate::fixture::pod(name, shares(&[3]));
        pod["spec"]["nodeName"] = home.into();
        world.api.create("pods", pod).unwrap();
    }
    // on nodes without an offer they take nothing; where kerf offers shares, part of every card until the record is
    // written
    world.until("seen", |w| w.used("ours") == [300]).await;
    let whole = world.pod("whole", share("100", "")).await;
    let filtered = world.client.filter(&whole, &world.nodes()).await.unwrap();
    assert_eq!(filtered.nodes, ["other"]);
    let state: Value = serde_json::from_str(&get(&world, "/debug/state").await).unwrap();
    assert_eq!(state["nodes"]["other"]["pods"], json!({}));
    assert_eq!(state["nodes"]["ours"]["pods"].as_object().unwrap().len(), 1);
    let metrics = get(&world, "/metrics").await;
    for line in ["kerf_extender_unreadable_placements_total 0", r#"kerf_extender_commitments{state="observed"} 1"#]
    {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    // the plugin's record, from kubelet's list
    let record = json!({ "version": 1, "node": "ours", "time": 1, "containers": [
        { "name": "c0", "kind": "app", "position": 0, "whole": false, "resource": SHARED,
          "slices": [{ "gpu": "GPU-ours-0", "index": 0, "compute": 300, "count": 3 }] }] });
    let annotations = json!({ "metadata": { "annotations": { "inspur.com/gpu-placement": record.to_string() } } });
    world.api.patch("pods", "default", "early", &annotations).unwrap();
    world
        .until("read", |w| {
            let nodes = w.extender.cluster().snapshot();
            let pods = nodes.iter().flat_map(|node| node.ledger.commitments().values());
            pods.filter(|known| matches!(known.held, kerf::ledger::Held::Plan(_))).count() == 1
        })
        .await;
    assert_eq!(world.used("ours"), [300]);
}

#[tokio::test]
async fn a_record_of_other_amounts_is_not_believed() {
    let good = json!({ "name": "c0", "kind": "app", "position": 0, "whole": false, "resource": SHARED,
                       "slices": [{ "gpu": "GPU-a-0", "index": 0, "compute": 300, "count": 3 }] });
    let with = |change: &dyn Fn(&mut Value)| {
        let mut container = good.clone();
        change(&mut container);
        container
    };
    let records = [
        with(&|c| c["slices"][0]["count"] = 2.into()),
        with(&|c| c["slices"][0]["count"] = 0.into()),
        with(&|c| c["slices"][0]["compute"] = 301.into()),
        with(&|c| c["slices"][0]["memory"] = 1.into()),
        with(&|c| c["resource"] = "amd.com/gpu".into()),
        with(&|c| c["whole"] = true.into()),
        with(&|c| c["slices"] = json!([c["slices"][0], c["slices"][0]])),
        with(&|c| drop(c.as_object_mut().unwrap().remove("resource"))),
    ];
    for container in records {
        let world = World::new([offering("a", 2, 10)]).await;
        let record = json!({ "version": 1, "node": "a", "time": 1, "containers": [container] });
        let mut pod = crate::fixture::pod("p", shares(&[3]));
        pod["metadata"]["annotations"] = json!({ "inspur.com/gpu-placement": record.to_string() });
        pod["spec"]["nodeName"] = "a".into();
        world.api.create("pods", pod).unwrap();
        world.until("seen", |w| w.used("a") == [300, 300]).await;
        let unreadable = "kerf_extender_unreadable_placements_total 1";
        assert!(get(&world, "/metrics").await.contains(unreadable), "{record}");
    }
}

#[tokio::test]
async fn a_container_that_asks_by_two_resources_is_refused() {
    let world = World::new([offering("a", 2, 10)]).await;
    for other in ["inspur.com/vcuda-core", "nvidia.com/gpu", "nvidia.com/mig-1g.10gb"] {
        let mut pod = crate::fixture::pod("p", shares(&[3]));
        pod["spec"]["containers"][0]["resources"]["limits"][other] = "100".into();
        let filtered = world.client.filter(&pod.into(), &world.nodes()).await.unwrap();
        let reason = "container \"c0\": asks for GPUs by two resources: use vcuda-core with vcuda-memory, or one \
                      resource of GPU shares";
        assert_eq!(filtered.unresolvable.values().collect::<Vec<_>>(), [reason], "{other}");
    }
    // any other resource is not kerf's
    let mut pod = crate::fixture::pod("p", shares(&[3]));
    pod["spec"]["containers"][0]["resources"]["limits"]["gpu.intel.com/monitoring"] = "1".into();
    assert_eq!(world.client.filter(&pod.into(), &world.nodes()).await.unwrap().nodes, ["a"]);
}
