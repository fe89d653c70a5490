//! Another resource domain while pods of the old one run.

use kerf::annotation::{self, Keys};
use serde_json::json;

use crate::stage::{CORE, MEMORY, SOON, Stage, placement};

#[tokio::test]
async fn no_card_is_given_while_pods_of_another_resource_domain_hold_some() {
    let mut stage = Stage::new().await;
    stage.flags = vec!["--domain=example.com".to_owned()];
    stage.start_plugin().await;
    stage.kubelet.wait_registered(&["example.com/vcuda-core", "example.com/vcuda-memory"], SOON).await.unwrap();
    let keys = Keys::new("example.com".parse().unwrap());
    let limits = json!({ "example.com/vcuda-core": "60", "example.com/vcuda-memory": "30" });
    let pod = json!({
        "metadata": {
            "name": "old", "namespace": "ns",
            "annotations": annotation::write(&placement(1, &[("main", 60, 30, "GPU-a")]), &keys),
        },
        "spec": { "containers": [{ "name": "main", "image": "i", "resources": { "limits": limits } }] },
        "status": { "phase": "Pending" },
    });
    stage.server.create("pods", pod).unwrap();
    stage.server.bind("ns", "old", "n").unwrap();
    stage.started("old", "main").await;
    stage.stop_plugin().await;

    stage.flags = vec!["--report-period=20ms".to_owned()];
    stage.start_plugin().await;
    stage.kubelet.wait_registered(&[CORE, MEMORY], SOON).await.unwrap();
    stage.allocatable(CORE, "0").await;
    stage.until("/readyz", |status, text| status == 503 && text.contains("resource domain")).await;
    let told = |events: &[std::sync::Arc<serde_json::Value>]| {
        let mut events = events.iter().filter(|event| event["reason"] == "OtherResourceDomain");
        events.next().map(|event| event["message"].as_str().unwrap_or_default().to_owned())
    };
    let message = stage.server.wait_for("events", SOON, told).await.unwrap();
    assert!(message.contains("ns/old") && message.contains("drain"), "{message}");
    let condition = |node: Option<&serde_json::Value>| {
        let conditions = node.and_then(|node| node["status"]["conditions"].as_array());
        conditions.into_iter().flatten().any(|condition| {
            let message = condition["message"].as_str().unwrap_or_default();
            condition["type"] == "KerfGPUsHealthy"
                && condition["status"] == "False"
                && condition["reason"] == "OtherResourceDomain"
                && message.contains("ns/old")
                && message.contains("drain")
        })
    };
    stage.server.wait_for_object("nodes", "", "n", SOON, condition).await.unwrap();
    let inventory = |node: Option<&serde_json::Value>| {
        let text = node.and_then(|node| node["metadata"]["annotations"]["inspur.com/gpu-inventory"].as_str());
        text.is_some_and(|text| !text.contains(r#""healthy""#))
    };
    stage.server.wait_for_object("nodes", "", "n", SOON, inventory).await.unwrap();

    stage.kubelet.complete_pod("ns", "old", "Succeeded").await.unwrap();
    stage.registered().await;
    stage.until("/readyz", |status, _| status == 200).await;
    stage.place("new", 2, &[("main", 60, 30, "GPU-a")]);
    stage.confirmed("new").await;
    let healthy = |node: Option<&serde_json::Value>| {
        let conditions = node.and_then(|node| node["status"]["conditions"].as_array());
        conditions.into_iter().flatten().any(|condition| condition["reason"] == "AllGPUsHealthy")
    };
    stage.server.wait_for_object("nodes", "", "n", SOON, healthy).await.unwrap();
    let told = stage.server.list("events").unwrap();
    assert!(!told.iter().any(|event| event["reason"] == "GPUUnhealthy"), "no card was ill: {told:?}");
}
