//! What the events of a pod say of its GPUs, and that they are written once.

use std::sync::Arc;

use kerf_testkit::api::{Action, Fault};
use serde_json::Value;

use crate::stage::{SOON, Stage};

/// The events of a pod with this reason: their types and messages.
fn told(events: &[Arc<Value>], pod: &str, reason: &str) -> Vec<(String, String)> {
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let own = events.iter().filter(|event| event["involvedObject"]["name"] == pod && event["reason"] == reason);
    own.map(|event| (text(event, "type"), text(event, "message"))).collect()
}

/// Waits for an event of the pod with this reason.
async fn event(stage: &Stage, pod: &str, reason: &str) -> (String, String) {
    let found = |events: &[Arc<Value>]| told(events, pod, reason).first().cloned();
    stage.server.wait_for("events", SOON, found).await.unwrap_or_else(|error| panic!("{pod} {reason}: {error}"))
}

#[tokio::test]
async fn a_pod_is_told_once_which_gpus_it_has() {
    let mut stage = Stage::new().await;
    // the API server does not take the first one at once
    stage.server.inject(Fault::new("create", "events", Action::Status(500)).times(2));
    stage.start_plugin().await;
    stage.registered().await;
    stage.place("p", 1, &[("one", 30, 10, "GPU-b"), ("two", 20, 4, "GPU-a")]);
    let (kind, message) = event(&stage, "p", "GPUAssigned").await;
    let shares = "one: GPU-b (30 core, 2560 MiB); two: GPU-a (20 core, 1024 MiB)";
    assert_eq!((kind.as_str(), message), ("Normal", format!("{shares}; nothing enforces the shares")));

    // a restart finds the pod confirmed, and has nothing to tell of it
    stage.stop_plugin().await;
    stage.start_plugin().await;
    stage.registered().await;
    stage.place("last", 3, &[("main", 20, 4, "GPU-a")]);
    event(&stage, "last", "GPUAssigned").await;
    let all = stage.server.list("events").unwrap();
    assert_eq!(told(&all, "p", "GPUAssigned").len(), 1);
}

#[tokio::test]
async fn a_pod_that_is_refused_is_told_why() {
    let stage = Stage::ready().await;
    stage.place("p", 1, &[("main", 30, 10, "GPU-lost")]);
    let failed = stage.phase("p", "Failed").await;
    let why = "pod ns/p was placed on GPU GPU-lost, which this node does not have";
    assert_eq!(event(&stage, "p", "GPURefused").await, ("Warning".to_owned(), why.to_owned()));
    assert!(failed["status"]["message"].as_str().unwrap().contains(why), "{failed}");
}
