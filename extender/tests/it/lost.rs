//! Nodes whose list of cards is lost.

use kerf::annotation::Keys;
use kerf::unfit::Unfit;
use kerf_testkit::api::ApiServer;
use serde_json::{Value, json};

use crate::fixture::{World, config, node, share};

/// Three cards, one unhealthy and one cordoned, with a pod on the third; indices with a gap.
fn three() -> Value {
    let keys = Keys::default();
    let mut three = node("a", 3, 15_360);
    let text = three["metadata"]["annotations"][&keys.inventory].as_str().unwrap();
    let mut inventory: Value = serde_json::from_str(text).unwrap();
    inventory["gpus"][0]["health"] = "unhealthy".into();
    inventory["gpus"][2]["index"] = 3.into();
    three["metadata"]["annotations"][&keys.inventory] = inventory.to_string().into();
    three["metadata"]["annotations"][&keys.cordon] = "GPU-a-1".into();
    three
}

fn without_inventory(mut node: Value) -> Value {
    node["metadata"]["annotations"] = json!({});
    node
}

fn patch_inventory(api: &ApiServer, value: impl Into<Value>) {
    let keys = Keys::default();
    let patch = json!({ "metadata": { "annotations": { &keys.inventory: value.into(), &keys.cordon: null } } });
    api.patch("nodes", "", "a", &patch).unwrap();
}

async fn trouble(world: &World, wanted: Unfit) {
    let shown = |w: &World| {
        let nodes = w.extender.cluster().snapshot();
        nodes.iter().any(|node| node.ledger.without_cards() == Some(wanted))
    };
    world.until("told", shown).await;
    for (core, memory) in [("1", "1"), ("100", "")] {
        let q = world.pod(&format!("q{core}"), share(core, memory)).await;
        let filtered = world.client.filter(&q, &world.nodes()).await.unwrap();
        assert_eq!(filtered.unresolvable["a"], wanted.reason());
        assert!(world.bind(&q, "a").await.unwrap_err().contains(wanted.reason()));
        world.api.force_delete("pods", "default", &format!("q{core}")).unwrap();
    }
}

#[tokio::test]
async fn a_node_whose_inventory_is_lost_keeps_its_cards_and_takes_no_pod() {
    let world = World::new([three()]).await;
    let p = world.pod("p", share("60", "10")).await;
    world.bind(&p, "a").await.unwrap();
    assert_eq!(world.used("a"), [0, 0, 600]);
    let inventory = three()["metadata"]["annotations"].clone();
    let many: Vec<Value> = (0..65)
        .map(|i| json!({ "uuid": format!("g{i}"), "index": i, "model": "", "memory_mib": 1, "health": "healthy" }))
        .collect();
    let many = json!({ "version": 1, "gpus": many }).to_string();
    for (value, unfit) in [
        (Value::Null, Unfit::LostInventory),
        ("x".into(), Unfit::UnreadableInventory),
        (many.into(), Unfit::TooManyCards),
    ] {
        patch_inventory(&world.api, value);
        trouble(&world, unfit).await;
        assert_eq!(world.used("a"), [0, 0, 600], "what its pods hold is counted on");
        let metrics = world.text("/metrics").await;
        assert!(!metrics.lines().any(|l| l.starts_with("kerf_extender_gpu_usable{") && l.ends_with(" 1")));
    }
    world.api.patch("nodes", "", "a", &json!({ "metadata": { "annotations": inventory } })).unwrap();
    let open = |w: &World| w.extender.cluster().snapshot()[0].ledger.without_cards().is_none();
    world.until("back", open).await;
    let q = world.pod("q", share("60", "10")).await;
    assert!(world.client.filter(&q, &world.nodes()).await.unwrap().nodes.is_empty(), "ill, cordoned, and 40 left");
}

#[tokio::test]
async fn a_node_that_is_made_anew_takes_no_pod_before_its_inventory_is_back() {
    for with_pod in [true, false] {
        let world = World::new([three()]).await;
        if with_pod {
            let p = world.pod("p", share("60", "10")).await;
            world.bind(&p, "a").await.unwrap();
        }
        world.api.force_delete("nodes", "", "a").unwrap();
        let gone = |w: &World| w.extender.cluster().snapshot().iter().all(|node| node.ledger.cards().is_empty());
        world.until("gone", gone).await;
        world.api.create("nodes", without_inventory(three())).unwrap();
        trouble(&world, Unfit::LostInventory).await;
    }
}

#[tokio::test]
async fn after_a_restart_the_nodes_conditions_tell_that_a_plugin_serves_it() {
    let api = ApiServer::start().await.unwrap();
    let mut lost = without_inventory(three());
    lost["status"]["conditions"] = json!([{ "type": "KerfGPUsHealthy", "status": "False" }]);
    api.create("nodes", lost).unwrap();
    let world = World::on(api, config()).await;
    trouble(&world, Unfit::LostInventory).await;
}
