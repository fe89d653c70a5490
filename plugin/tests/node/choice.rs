//! GPUs that are not to be offered any more while pods have them.

use serde_json::Value;

use crate::stage::{CORE, MEMORY, SOON, Stage};

#[tokio::test]
async fn a_pod_keeps_a_gpu_that_is_not_offered_any_more() {
    let mut stage = Stage::new().await;
    std::fs::write(&stage.library, "a library").unwrap();
    stage.start_plugin().await;
    stage.registered().await;
    stage.place("old", 1, &[("main", 60, 30, "GPU-b")]);
    let before = stage.confirmed("old").await;
    stage.started("old", "main").await;
    stage.stop_plugin().await;

    stage.flags = vec!["--exclude-gpus=GPU-b".to_owned()];
    stage.start_plugin().await;
    stage.kubelet.wait_registered(&[CORE, MEMORY], SOON).await.unwrap();
    stage.allocatable(CORE, "100").await;
    let only_a = |node: Option<&Value>| {
        let text = node.and_then(|node| node["metadata"]["annotations"]["inspur.com/gpu-inventory"].as_str());
        let devices = text.map(|text| kerf::annotation::inventory::decode(text).unwrap());
        devices.is_some_and(|inventory| inventory.devices().iter().map(|gpu| gpu.id.as_str()).eq(["GPU-a"]))
    };
    stage.server.wait_for_object("nodes", "", "n", SOON, only_a).await.unwrap();
    let series =
        "kerf_plugin_gpu_left_out{gpu=\"GPU-b\",node=\"n\",profile=\"vcuda\",reason=\"excluded-by-flag\"} 1";
    stage.until("/metrics", |_, text| text.contains(series)).await;

    // it runs on, with its record, and its container may start again
    stage.kubelet.restart_container("ns", "old", "main").await.unwrap();
    stage.started("old", "main").await;
    assert_eq!(stage.confirmed("old").await["inspur.com/gpu-placement"], before["inspur.com/gpu-placement"]);
    stage.place("new", 2, &[("main", 60, 30, "GPU-a")]);
    stage.confirmed("new").await;
    let pod = stage.phase("old", "Running").await;
    assert_eq!(pod["status"]["phase"], "Running");
}
