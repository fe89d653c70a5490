//! Registration and everything that ends it; GPUs that become unhealthy and recover.

use kerf_plugin::testing::simulated::file as simulated;
use kerf_runtime::version::CONDITION;
use kerf_testkit::kubelet::Call;
use serde_json::{Value, json};

use crate::stage::{CORE, MEMORY, SOON, Stage, two_cards};

fn registrations(calls: &[Call]) -> usize {
    calls.iter().filter(|call| matches!(call, Call::Registered { .. })).count()
}

#[tokio::test]
async fn the_node_shows_the_cards() {
    let stage = Stage::ready().await;
    let shown = |node: Option<&Value>| {
        node.is_some_and(|node| node["metadata"]["annotations"]["inspur.com/gpu-inventory"].is_string())
    };
    let node = stage.server.wait_for_object("nodes", "", "n", SOON, shown).await.unwrap().unwrap();
    let text = node["metadata"]["annotations"]["inspur.com/gpu-inventory"].as_str().unwrap();
    let inventory = kerf::annotation::inventory::decode(text).unwrap();
    let expected = simulated::parse(&two_cards(true)).unwrap().devices;
    assert_eq!(inventory.devices(), expected.into_iter().map(|host| host.device).collect::<Vec<_>>());
    stage.until("/readyz", |status, _| status == 200).await;
}

#[tokio::test]
async fn a_restart_of_kubelet_is_followed_by_a_registration() {
    let stage = Stage::ready().await;
    stage.place("p", 1, &[("main", 30, 10, "GPU-b")]);
    stage.confirmed("p").await;
    stage.kubelet.restart().await.unwrap();
    stage.registered().await;
    stage.place("q", 2, &[("main", 20, 5, "GPU-a")]);
    stage.confirmed("q").await;
}

#[tokio::test]
async fn a_plugin_waits_for_a_kubelet_that_is_not_there_yet() {
    let mut stage = Stage::new().await;
    stage.kubelet.stop().await;
    for entry in std::fs::read_dir(&stage.kubelet.config().device_plugins_dir).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    stage.start_plugin().await;
    stage.until("/readyz", |status, text| status == 503 && text.contains("kubelet-core")).await;
    stage.kubelet.restart().await.unwrap();
    stage.registered().await;
    stage.until("/readyz", |status, _| status == 200).await;
}

/// Its pod resources list would contain pods that it has rejected, and the plugin trusts that list.
#[tokio::test]
async fn under_an_older_kubelet_nothing_is_offered_until_it_is_upgraded() {
    let mut stage = Stage::new().await;
    let version = |version: &str| json!({ "nodeInfo": { "kubeletVersion": version } });
    stage.server.patch_status("nodes", "", "n", version("v1.33.9")).unwrap();
    stage.start_plugin().await;
    let rest = |text: &str| text.contains(CONDITION) && !text.contains("gpus") && !text.contains("pods");
    stage.until("/readyz", |status, text| status == 503 && rest(text)).await;
    assert_eq!(registrations(&stage.kubelet.calls()), 0);
    stage.server.patch_status("nodes", "", "n", version("v1.34.0+k3s1")).unwrap();
    stage.registered().await;
    stage.until("/readyz", |status, _| status == 200).await;
}

#[tokio::test]
async fn a_removed_socket_is_replaced_by_one_of_another_name() {
    let stage = Stage::ready().await;
    let before = registrations(&stage.kubelet.calls());
    let directory = stage.kubelet.config().device_plugins_dir.clone();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("kerf-core-") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let again = |calls: &[Call]| (registrations(calls) > before).then_some(());
    stage.kubelet.wait_for_calls(SOON, again).await.unwrap();
    stage.registered().await;
    let mut endpoints: Vec<String> = stage
        .kubelet
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            Call::Registered { endpoint, .. } => Some(endpoint),
            _ => None,
        })
        .collect();
    let all = endpoints.len();
    endpoints.sort();
    endpoints.dedup();
    assert_eq!(endpoints.len(), all, "no name twice");
}

#[tokio::test]
async fn an_ill_card_takes_no_pod_and_recovers() {
    let stage = Stage::ready().await;
    std::fs::write(&stage.gpus, two_cards(false)).unwrap();
    stage.allocatable(CORE, "100").await;
    stage.allocatable(MEMORY, "64").await;
    stage
        .until("/metrics", |_, text| {
            text.contains(r#"kerf_plugin_gpu_healthy{gpu="GPU-a",index="0",model="Simulated GPU",node="n"} 0"#)
        })
        .await;
    std::fs::write(&stage.gpus, two_cards(true)).unwrap();
    stage.registered().await;
    let resources = stage.kubelet.resources();
    assert_eq!(resources[CORE], (200, 200));
}

#[tokio::test]
async fn no_driver_is_a_state_that_passes() {
    let mut stage = Stage::new().await;
    std::fs::remove_file(&stage.gpus).unwrap();
    stage.start_plugin().await;
    stage.kubelet.wait_registered(&[CORE, MEMORY], SOON).await.unwrap();
    stage.until("/readyz", |status, text| status == 503 && text.contains("gpus")).await;
    std::fs::write(&stage.gpus, "[[gpu]]\nmemory_mib = \"much\"").unwrap();
    stage.until("/metrics", |_, text| text.contains("kerf_plugin_simulated_file_errors_total 1")).await;
    std::fs::write(&stage.gpus, two_cards(true)).unwrap();
    stage.registered().await;
    stage.until("/readyz", |status, _| status == 200).await;
}
