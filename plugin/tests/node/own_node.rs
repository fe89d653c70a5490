//! The plugin's own Node: an inventory that other clients remove, and GPUs that an administrator takes out of
//! service.

use std::sync::Arc;

use kerf_testkit::api::{Action, Fault, Watchers};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

const INVENTORY: &str = "inspur.com/gpu-inventory";

impl Stage {
    fn annotate_node(&self, key: &str, value: Value) {
        let patch = json!({ "metadata": { "annotations": { key: value } } });
        self.server.patch("nodes", "", "n", &patch).unwrap();
    }

    async fn inventory(&self) -> String {
        let text = |node: &Value| node["metadata"]["annotations"][INVENTORY].as_str().map(str::to_owned);
        let shown = |node: Option<&Value>| node.and_then(text).is_some_and(|text| text.contains("GPU-a"));
        let node = self.server.wait_for_object("nodes", "", "n", SOON, shown).await.unwrap().unwrap();
        text(&node).unwrap()
    }

    /// Events about the Node of this reason, once there are so many.
    async fn told(&self, reason: &str, count: usize) -> Vec<String> {
        let messages = |all: &[Arc<Value>]| -> Vec<String> {
            let about = all.iter().filter(|e| e["involvedObject"]["kind"] == "Node" && e["reason"] == reason);
            about.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
        };
        let enough = |all: &[Arc<Value>]| Some(messages(all)).filter(|messages| messages.len() >= count);
        self.server.wait_for("events", SOON, enough).await.unwrap_or_else(|error| panic!("{reason}: {error}"))
    }
}

#[tokio::test]
async fn an_inventory_that_is_removed_or_written_over_is_written_again_at_once() {
    let stage = Stage::ready().await;
    let text = stage.inventory().await;
    for lost in [Value::Null, json!("{}"), json!(r#"{"version":1,"gpus":[]}"#)] {
        stage.annotate_node(INVENTORY, lost);
        assert_eq!(stage.inventory().await, text);
    }
    // a Node that was registered again has no annotation
    stage.server.force_delete("nodes", "", "n").unwrap();
    stage.server.create("nodes", json!({ "metadata": { "name": "n" } })).unwrap();
    assert_eq!(stage.inventory().await, text);
}

#[tokio::test]
async fn a_node_that_may_not_be_watched_shows_the_inventory_all_the_same() {
    let mut stage = Stage::new().await;
    for verb in ["list", "watch"] {
        stage.server.inject(Fault::new(verb, "nodes", Action::Status(403)).of(Watchers::Others));
    }
    stage.start_plugin().await;
    stage.registered().await;
    stage.inventory().await;
    stage.until("/readyz", |status, _| status == 200).await;
}

#[tokio::test]
async fn a_cordon_is_told_and_so_is_one_that_names_no_card() {
    let key = "inspur.com/gpu-cordon";
    let mut stage = Stage::ready().await;
    let metric = |card: &str, index: u32, out: u32| {
        let labels = format!("gpu=\"{card}\",index=\"{index}\",model=\"Simulated GPU\",node=\"n\"");
        format!("kerf_plugin_gpu_cordoned{{{labels}}} {out}")
    };
    stage.annotate_node(key, json!("GPU-b"));
    let told = stage.told("GPUCordoned", 1).await;
    assert_eq!(told, ["cordoned: GPU-b (index 1); their pods stay, and no new one comes"]);
    let shown = |text: &str| text.contains(&metric("GPU-a", 0, 0)) && text.contains(&metric("GPU-b", 1, 1));
    stage
        .until("/metrics", |_, text| {
            shown(text)
                && text.contains("gpu_healthy{gpu=\"GPU-b\",index=\"1\",model=\"Simulated GPU\",node=\"n\"} 1")
        })
        .await;
    for (count, names) in (1..).zip(["9", "GPU-nosuch", "all", "2;3", ""]) {
        stage.annotate_node(key, json!(names));
        let told = stage.told("GPUCordonInvalid", count).await;
        assert_eq!(told.len(), count);
        let last = told.iter().find(|message| names.is_empty() || message.contains(&format!("{names:?}")));
        assert!(last.is_some_and(|message| message.contains("give indices (0, 1) or UUIDs")), "{names}: {told:?}");
    }
    let told = stage.told("GPUUncordoned", 1).await;
    assert_eq!(told, ["no longer cordoned: GPU-b (index 1)"]);
    // a restart writes no event twice
    stage.stop_plugin().await;
    stage.start_plugin().await;
    stage.annotate_node(key, json!("0"));
    stage.told("GPUCordoned", 2).await;
    assert_eq!(stage.told("GPUCordonInvalid", 5).await.len(), 5);
}
