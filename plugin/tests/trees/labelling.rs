//! Labels on their way to the Node and to Node Feature Discovery, against an API server that speaks the real
//! protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use kerf_testkit::api::{Action, Fault};
use kerf_testkit::tree::Tree;
use serde_json::{Value, json};

use crate::forest::Forest;
use crate::kubelet::Stage;

const SOON: Duration = Duration::from_secs(30);
const LIST: &str = "inspur.com/gpu-labels-vcuda";
const PERIOD: &str = "--report-period=20ms";

fn vcuda<'a>(more: &[&'a str]) -> Vec<&'a str> {
    ["--node-name=n", "--backend=amd", PERIOD, "--sample-period=20ms"].iter().chain(more).copied().collect()
}

/// Waits until the Node's labels are as wanted.
async fn shown(stage: &Stage, what: &str, wanted: impl Fn(&BTreeMap<String, String>) -> bool) -> Value {
    let labels = |node: &Value| serde_json::from_value(node["metadata"]["labels"].clone()).unwrap_or_default();
    let seen = |node: Option<&Value>| node.is_some_and(|node| wanted(&labels(node)));
    let node = stage.server.wait_for_object("nodes", "", "n", SOON, seen).await;
    let node = node.unwrap_or_else(|error| panic!("{what}: {error}: {:?}", stage.server.get("nodes", "", "n")));
    (*node.unwrap()).clone()
}

#[tokio::test]
async fn labels_come_change_and_go_and_others_stay() {
    let mut stage = Stage::new(Forest::named("a")).await;
    let others = json!({ "dummyLabel1": "1", "amd.com/gpu": "x", "amd.com/mi300x": "x", "amd.com/gpu.family": "XX",
        "amd.com/gpu.simd-count": "7" });
    stage.server.patch("nodes", "", "n", &json!({ "metadata": { "labels": others } })).unwrap();
    let faults = [
        stage.server.inject(Fault::new("get", "nodes", Action::Status(503)).times(1)),
        stage.server.inject(Fault::new("patch", "nodes/status", Action::DropAfter).times(3)),
    ];
    stage.start(&vcuda(&["--labels=node"])).await;
    for fault in &faults {
        fault.wait_hits(1, SOON).await.unwrap();
    }
    let written = |labels: &BTreeMap<String, String>| {
        labels.get("amd.com/gpu.vram").is_some_and(|value| value == "16G")
            && labels.get("nvidia-device-enable").is_some_and(|value| value == "enable")
    };
    let node = shown(&stage, "written", written).await;
    let labels = &node["metadata"]["labels"];
    assert_eq!(labels["beta.amd.com/gpu.vram.16G"], "1");
    assert_eq!((&labels["amd.com/gpu.simd-count"], &labels["amd.com/gpu.family"]), (&json!("7"), &json!("XX")));
    let list = node["metadata"]["annotations"][LIST].as_str().unwrap();
    assert!(list.contains("amd.com/gpu.vram") && !list.contains(",amd.com/gpu.simd-count,"), "{list}");
    stage.end().await;
    // fewer are wanted
    stage.start(&vcuda(&["--labels=node", "--amd-labels=vram"])).await;
    let fewer = |labels: &BTreeMap<String, String>| {
        labels.contains_key("amd.com/gpu.vram") && !labels.contains_key("amd.com/gpu.device-id")
    };
    let node = shown(&stage, "fewer", fewer).await;
    assert_eq!(
        node["metadata"]["annotations"][LIST],
        "amd.com/gpu.vram,beta.amd.com/gpu.vram,beta.amd.com/gpu.vram.16G"
    );
    stage.end().await;
    // no labels are wanted
    stage.start(&vcuda(&["--labels=clear"])).await;
    let node = shown(&stage, "none", |labels| !labels.contains_key("amd.com/gpu.vram")).await;
    let mut left = others.as_object().unwrap().clone();
    left.insert("nvidia-device-enable".to_owned(), "enable".into());
    let labels = node["metadata"]["labels"].as_object().unwrap();
    assert!(left.iter().all(|(key, value)| labels.get(key) == Some(value)), "{labels:?}");
    assert!(!labels.keys().any(|key| key.starts_with("beta.amd.com")), "{labels:?}");
    assert!(node["metadata"]["annotations"].get(LIST).is_none());
    stage.stop().await;
}

#[tokio::test]
async fn a_node_that_changes_meanwhile_is_read_again() {
    let mut stage = Stage::new(Forest::named("a")).await;
    // the plugin has read the Node, and its write waits while another client writes
    let held = stage.server.inject(Fault::new("patch", "nodes/status", Action::Hold));
    stage.start(&vcuda(&["--labels=node"])).await;
    held.wait_hits(3, SOON).await.unwrap();
    let other = json!({ "metadata": { "labels": { "amd.com/gpu.vram": "theirs" } } });
    stage.server.patch("nodes", "", "n", &other).unwrap();
    held.release();
    let node = shown(&stage, "written", |labels| labels.contains_key("amd.com/gpu.device-id")).await;
    assert_eq!(
        node["metadata"]["labels"]["amd.com/gpu.vram"], "theirs",
        "what came in between is not written over"
    );
    stage.stop().await;
}

#[tokio::test]
async fn the_feature_file_follows_the_cards_and_ends_after_the_plugin() {
    let mut stage = Stage::new(Forest::named("a")).await;
    let features = tempfile::tempdir().unwrap();
    let file = features.path().join("kerf-amd");
    let directory = format!("--features-dir={}", features.path().display());
    stage.start(&["-profile=amd", "--labels=nfd", &directory, PERIOD]).await;
    let said = async |part: &str| {
        let look = async {
            loop {
                let text = std::fs::read_to_string(&file).unwrap_or_default();
                if text.lines().any(|line| line == part) {
                    return text;
                }
                tokio::task::yield_now().await;
            }
        };
        let found = tokio::time::timeout(SOON, look).await;
        found.unwrap_or_else(|_| panic!("{part}: {:?}", std::fs::read_to_string(&file)))
    };
    said("beta.amd.com/gpu.vram.16G=1").await;
    let two = Tree::new(json!({ "cards": [
        { "vendor": "amd", "address": "0000:19:00.0", "card": 0, "render": 128, "memory": 17163091968u64 },
        { "vendor": "amd", "address": "0000:1a:00.0", "card": 1, "render": 129, "memory": 17163091968u64 },
    ] }));
    two.unwrap().write(stage.forest.path()).unwrap();
    let text = said("beta.amd.com/gpu.vram.16G=2").await;
    assert!(!text.contains("expiry-time") && !text.contains("nvidia-device-enable"), "{text}");
    stage.end().await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("# +expiry-time=20") && text.contains("gpu.vram.16G=2"), "{text}");
    stage.start(&["-profile=amd", "--labels=clear", &directory, PERIOD]).await;
    let gone = async {
        while file.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
    stage.stop().await;
}

#[tokio::test]
async fn cards_of_a_profile_have_a_condition_of_their_own() {
    let mut stage = Stage::new(Forest::named("a")).await;
    stage.start(&["-profile=amd", "--node-name=n", PERIOD]).await;
    let status = async |wanted: &str| {
        let seen = |node: Option<&Value>| {
            let conditions = node.and_then(|node| node["status"]["conditions"].as_array());
            let own = conditions.and_then(|all| all.iter().find(|one| one["type"] == "KerfAmdGPUsHealthy"));
            own.is_some_and(|one| one["status"] == wanted)
        };
        stage.server.wait_for_object("nodes", "", "n", SOON, seen).await.unwrap();
    };
    status("True").await;
    std::fs::remove_file(stage.forest.path().join("dev/kfd")).unwrap();
    status("False").await;
    std::fs::write(stage.forest.path().join("dev/kfd"), "").unwrap();
    status("True").await;
    stage.stop().await;
}
