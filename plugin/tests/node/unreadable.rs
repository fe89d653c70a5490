//! A pod, or the Node, with something on it that cannot be read.

use kerf_testkit::api::{Action, Fault, Watchers};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

const INVENTORY: &str = "inspur.com/gpu-inventory";

/// The API server accepts years that the plugin's time type cannot hold.
const NEVER: &str = "9999-12-31T23:59:59Z";

/// The first needs only the right to the object itself, the second the right to its status.
fn damages() -> [Value; 2] {
    let manager = json!({
        "manager": "someone", "operation": "Update", "apiVersion": "v1", "time": NEVER,
        "fieldsType": "FieldsV1", "fieldsV1": { "f:metadata": {} },
    });
    [json!({ "metadata": { "managedFields": [manager] } }), json!({ "status": { "startTime": NEVER } })]
}

/// No other pod gets what a pod on GPU-a has.
async fn closed(stage: &Stage, name: &str) {
    stage.place(name, 9, &[("main", 60, 30, "GPU-a")]);
    let pod = stage.phase(name, "Failed").await;
    assert!(pod["status"]["message"].as_str().unwrap().contains("no room"), "{pod}");
}

/// Other pods are served.
async fn open(stage: &Stage, name: &str) {
    stage.place(name, 9, &[("main", 30, 10, "GPU-b")]);
    stage.confirmed(name).await;
    stage.started(name, "main").await;
    stage.kubelet.complete_pod("ns", name, "Succeeded").await.unwrap();
}

fn folders(stage: &Stage) -> usize {
    let folders = std::fs::read_dir(stage.state_dir().join("containers")).unwrap();
    folders.filter(|folder| folder.as_ref().unwrap().path().join("etc/limits").is_file()).count()
}

#[tokio::test]
async fn a_pod_that_cannot_be_read_any_more_keeps_its_card_and_the_others_are_served() {
    for (at, damage) in damages().iter().enumerate() {
        let mut stage = Stage::new().await;
        std::fs::write(&stage.library, "a library").unwrap();
        stage.start_plugin().await;
        stage.registered().await;
        stage.place("damaged", 1, &[("main", 60, 30, "GPU-a")]);
        stage.confirmed("damaged").await;
        stage.started("damaged", "main").await;
        stage.server.patch("pods", "ns", "damaged", damage).unwrap();
        closed(&stage, "watched").await;
        open(&stage, "beside").await;
        // its watch is interrupted, and it lists again
        stage.server.compact();
        stage.server.break_watches();
        closed(&stage, "listed").await;
        open(&stage, "after").await;
        // no pod waits: the plugin asks kubelet and the API server
        stage.run("stranger", &[("main", 60, 30)], json!({}));
        stage.phase("stranger", "Failed").await;
        closed(&stage, "asked").await;
        assert!(folders(&stage) > 0, "{at}");
        stage.stop_plugin().await;
        stage.start_plugin().await;
        stage.registered().await;
        closed(&stage, "restarted").await;
        open(&stage, "last").await;
        assert!(folders(&stage) > 0, "{at}");
        stage.server.force_delete("pods", "ns", "damaged").unwrap();
        stage.place("freed", 2, &[("main", 60, 30, "GPU-a")]);
        stage.confirmed("freed").await;
    }
}

/// The counter of writes that failed.
async fn failures(stage: &Stage, of: &str) -> u64 {
    let text = stage.get("/metrics").await.1;
    let name = format!("kerf_plugin_api_errors_total{{call=\"{of}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_write_to_what_cannot_be_read_is_a_write() {
    for damage in damages() {
        let stage = Stage::ready().await;
        let write = stage
            .server
            .inject(Fault::new("patch", "pods/status", Action::Hold).named("damaged").of(Watchers::Others));
        stage.place("damaged", 1, &[("main", 60, 30, "GPU-a")]);
        write.wait_hits(1, SOON).await.unwrap();
        stage.server.patch("pods", "ns", "damaged", &damage).unwrap();
        write.remove();
        stage.confirmed("damaged").await;
        // written after the answer to the write before it was read
        open(&stage, "beside").await;
        assert_eq!(failures(&stage, "pod").await, 0);
    }
}

#[tokio::test]
async fn a_node_that_cannot_be_read_is_written_and_read_all_the_same() {
    let [manager, _] = damages();
    let condition = json!({ "type": "Odd", "status": "True", "lastTransitionTime": NEVER });
    for damage in [manager, json!({ "status": { "conditions": [condition] } })] {
        let mut stage = Stage::new().await;
        stage.server.patch("nodes", "", "n", &damage).unwrap();
        stage.start_plugin().await;
        stage.registered().await;
        stage.until("/readyz", |status, _| status == 200).await;
        let inventory =
            |node: Option<&Value>| node.is_some_and(|node| node["metadata"]["annotations"][INVENTORY].is_string());
        let lost = json!({ "metadata": { "annotations": { INVENTORY: null } } });
        for _ in 0..2 {
            stage.server.wait_for_object("nodes", "", "n", SOON, inventory).await.unwrap();
            stage.server.patch("nodes", "", "n", &lost).unwrap();
        }
        open(&stage, "served").await;
        assert_eq!(failures(&stage, "node").await, 0);
    }
}
