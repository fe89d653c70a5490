//! A running pod keeps its GPUs and its limits, whatever its annotations say by now.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use crate::stage::Stage;

/// The user's annotations, and the records.
const KEYS: [&str; 7] =
    ["gpu-policy", "vcuda-core-limit", "isolation", "gpu-shares", "gpu-placement", "gpu-isolation", "gpu-assigned"];

fn spoil(stage: &Stage, pod: &str, key: &str) {
    let patch = json!({ "metadata": { "annotations": { format!("inspur.com/{key}"): "x" } } });
    stage.server.patch("pods", "ns", pod, &patch).unwrap();
}

/// No other pod gets what a pod on GPU-a has.
async fn closed(stage: &Stage, name: &str) {
    stage.place(name, 9, &[("main", 60, 30, "GPU-a")]);
    let pod = stage.phase(name, "Failed").await;
    assert!(pod["status"]["message"].as_str().unwrap().contains("no room"), "{pod}");
}

fn folders(stage: &Stage) -> BTreeSet<std::path::PathBuf> {
    let dir = stage.state_dir().join("containers");
    std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

fn limits(folder: &Path) -> bool {
    folder.join("etc/limits").is_file()
}

#[tokio::test]
async fn a_running_pod_keeps_its_card_whatever_is_written_on_it() {
    let mut stage = Stage::new().await;
    std::fs::write(&stage.library, "a library").unwrap();
    stage.start_plugin().await;
    stage.registered().await;
    for (at, key) in KEYS.into_iter().enumerate() {
        let name = format!("p{at}");
        stage.place(&name, 1, &[("main", 60, 30, "GPU-a")]);
        stage.confirmed(&name).await;
        stage.started(&name, "main").await;
        spoil(&stage, &name, key);
        closed(&stage, &format!("running-{at}")).await;
        // its watch is interrupted, and it lists again
        stage.server.compact();
        stage.server.break_watches();
        closed(&stage, &format!("listed-{at}")).await;
        stage.stop_plugin().await;
        stage.start_plugin().await;
        stage.registered().await;
        closed(&stage, &format!("restarted-{at}")).await;
        assert!(folders(&stage).iter().any(|folder| limits(folder)), "{key}");
        // while it is being deleted it still runs
        let leaving = json!({ "metadata": { "finalizers": ["example.com/held"] } });
        stage.server.patch("pods", "ns", &name, &leaving).unwrap();
        stage.kubelet.complete_pod("ns", &name, "Succeeded").await.unwrap();
    }
    stage.place("after", 2, &[("main", 60, 30, "GPU-a")]);
    stage.confirmed("after").await;
}

#[tokio::test]
async fn a_pod_that_was_placed_is_served_whatever_its_user_writes_before() {
    let stage = Stage::ready().await;
    for (at, key) in KEYS.into_iter().take(4).enumerate() {
        let name = format!("p{at}");
        stage.place_spoiled(&name, 1, ("main", 60, 30, "GPU-a"), key);
        stage.started(&name, "main").await;
        closed(&stage, &format!("other-{at}")).await;
        stage.kubelet.complete_pod("ns", &name, "Succeeded").await.unwrap();
    }
}
