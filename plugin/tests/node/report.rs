//! What is published on the Node when a GPU becomes unhealthy and recovers: a condition and events, each once,
//! whatever goes wrong.

use std::sync::Arc;

use kerf_testkit::api::{Action, Fault};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, two_cards};

const KIND: &str = "KerfGPUsHealthy";

async fn reporting(flags: &[&str]) -> Stage {
    let mut stage = Stage::new().await;
    stage.flags = ["--report-period=20ms"].iter().chain(flags).map(|flag| (*flag).to_owned()).collect();
    stage
}

/// Replaces the file at once: a file that is read half written has no GPUs, and all would be unhealthy for a
/// moment.
fn ill(stage: &Stage, is_ill: bool) {
    let fresh = stage.gpus.with_extension("fresh");
    std::fs::write(&fresh, two_cards(!is_ill)).unwrap();
    std::fs::rename(&fresh, &stage.gpus).unwrap();
}

fn condition(node: &Value) -> Option<&Value> {
    node["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == KIND)
}

/// Waits until the Node's condition is as wanted.
async fn shown(stage: &Stage, wanted: impl Fn(&Value) -> bool) -> Value {
    let seen = |node: Option<&Value>| node.and_then(condition).is_some_and(&wanted);
    let node = stage.server.wait_for_object("nodes", "", "n", SOON, seen).await.unwrap().unwrap();
    condition(&node).unwrap().clone()
}

async fn status(stage: &Stage, status: &str) -> Value {
    shown(stage, |condition| condition["status"] == status).await
}

/// Events about the Node, by reason.
fn events(events: &[Arc<Value>], reason: &str) -> usize {
    let about = |event: &&Arc<Value>| event["involvedObject"]["kind"] == "Node" && event["reason"] == reason;
    events.iter().filter(about).count()
}

async fn told(stage: &Stage, reason: &str, count: usize) -> Arc<Value> {
    let enough = |all: &[Arc<Value>]| {
        let last = all.iter().rev().find(|event| event["reason"] == reason).cloned();
        last.filter(|_| events(all, reason) >= count)
    };
    let last = stage.server.wait_for("events", SOON, enough).await;
    let last = last.unwrap_or_else(|error| panic!("{reason} {count}: {error}"));
    assert_eq!(events(&stage.server.list("events").unwrap(), reason), count, "{reason}");
    last
}

#[tokio::test]
async fn an_ill_card_is_named_by_a_condition_and_told_by_events() {
    let mut stage = reporting(&[]).await;
    let kubelets = json!([{ "type": "Ready", "status": "True" }]);
    stage.server.patch_status("nodes", "", "n", json!({ "conditions": kubelets })).unwrap();
    stage.start_plugin().await;
    stage.registered().await;
    let well = status(&stage, "True").await;
    assert_eq!((&well["reason"], &well["message"]), (&json!("AllGPUsHealthy"), &json!("all 2 GPUs are healthy")));
    assert_eq!(stage.server.list("events").unwrap().len(), 0, "that all is well is no news");
    ill(&stage, true);
    let now = status(&stage, "False").await;
    assert_eq!(now["reason"], "SomeGPUsUnhealthy");
    assert_eq!(now["message"], "1 of 2 GPUs unhealthy: GPU-a (index 0, Simulated GPU)");
    assert!(now["lastTransitionTime"].is_string() && now["lastHeartbeatTime"].is_string());
    let event = told(&stage, "GPUUnhealthy", 1).await;
    assert_eq!((&event["type"], &event["source"]["host"]), (&json!("Warning"), &json!("n")));
    assert_eq!(
        (&event["metadata"]["namespace"], &event["involvedObject"]["uid"]),
        (&json!("default"), &json!("n"))
    );
    assert!(event["message"].as_str().unwrap().contains("GPU-a"), "{event}");
    ill(&stage, false);
    status(&stage, "True").await;
    let event = told(&stage, "GPURecovered", 1).await;
    assert_eq!(event["type"], "Normal");
    let node = stage.server.get("nodes", "", "n").unwrap();
    assert_eq!(node["status"]["conditions"].as_array().unwrap()[0]["type"], "Ready", "kubelet's stays");
}

#[tokio::test]
async fn lost_answers_and_errors_write_nothing_twice() {
    let mut stage = reporting(&[]).await;
    stage.start_plugin().await;
    stage.registered().await;
    status(&stage, "True").await;
    let server = &stage.server;
    let faults = [
        server.inject(Fault::new("create", "events", Action::DropAfter).times(1)),
        server.inject(Fault::new("patch", "nodes/status", Action::DropAfter).times(1)),
    ];
    ill(&stage, true);
    for fault in &faults {
        fault.wait_hits(1, SOON).await.unwrap();
    }
    status(&stage, "False").await;
    told(&stage, "GPUUnhealthy", 1).await;
    server.inject(Fault::new("create", "events", Action::Status(500)).times(2));
    server.inject(Fault::new("patch", "nodes/status", Action::Status(503)).times(2));
    ill(&stage, false);
    status(&stage, "True").await;
    told(&stage, "GPURecovered", 1).await;
    told(&stage, "GPUUnhealthy", 1).await;
}

#[tokio::test]
async fn a_restart_tells_nothing_twice_and_misses_nothing() {
    let mut stage = reporting(&[]).await;
    stage.start_plugin().await;
    stage.registered().await;
    ill(&stage, true);
    let before = status(&stage, "False").await;
    told(&stage, "GPUUnhealthy", 1).await;
    stage.stop_plugin().await;
    let forget = |stage: &Stage| {
        let old = json!([{ "type": KIND, "lastHeartbeatTime": "2001-01-01T00:00:00Z" }]);
        stage.server.patch_status("nodes", "", "n", json!({ "conditions": old })).unwrap();
    };
    let alive = |condition: &Value| condition["lastHeartbeatTime"] != "2001-01-01T00:00:00Z";
    forget(&stage);
    stage.start_plugin().await;
    let after = shown(&stage, alive).await;
    assert_eq!(after["lastTransitionTime"], before["lastTransitionTime"]);
    assert_eq!(after["message"], before["message"]);
    told(&stage, "GPUUnhealthy", 1).await;
    stage.stop_plugin().await;
    // it recovers while the plugin is stopped
    ill(&stage, false);
    forget(&stage);
    stage.start_plugin().await;
    shown(&stage, |condition| alive(condition) && condition["status"] == "True").await;
    told(&stage, "GPURecovered", 1).await;
    told(&stage, "GPUUnhealthy", 1).await;
}

#[tokio::test]
async fn without_the_rights_everything_else_goes_on() {
    let mut stage = reporting(&[]).await;
    let refused = stage.server.inject(Fault::new("create", "events", Action::Status(403)));
    stage.start_plugin().await;
    stage.registered().await;
    ill(&stage, true);
    refused.wait_hits(1, SOON).await.unwrap();
    status(&stage, "False").await;
    assert_eq!(stage.server.list("events").unwrap().len(), 0);
    let refused = stage.server.inject(Fault::new("patch", "nodes/status", Action::Status(403)));
    ill(&stage, false);
    refused.wait_hits(1, SOON).await.unwrap();
    let healthy = r#"kerf_plugin_gpu_healthy{gpu="GPU-a",index="0",model="Simulated GPU",node="n"} 1"#;
    stage.until("/metrics", |_, text| text.contains(healthy)).await;
    stage.place("p", 1, &[("main", 30, 10, "GPU-b")]);
    stage.confirmed("p").await;
}

#[tokio::test]
async fn simulated_cards_have_the_gate_alone() {
    let mut stage = reporting(&["--labels=node"]).await;
    stage.start_plugin().await;
    let labelled = |node: Option<&Value>| {
        node.is_some_and(|node| node["metadata"]["labels"]["nvidia-device-enable"] == "enable")
    };
    let node = stage.server.wait_for_object("nodes", "", "n", SOON, labelled).await.unwrap().unwrap();
    let annotations = node["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    assert!(!annotations.keys().any(|key| key.contains("gpu-labels")), "{annotations:?}");
}
