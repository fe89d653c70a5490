//! Containers that fail for reasons of the node: its condition shows it for a while.

use std::time::Duration;

use serde_json::Value;

use crate::stage::{SOON, Stage};

const KIND: &str = "KerfAllocationsSucceed";

fn condition(node: &Value) -> Option<&Value> {
    node["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == KIND)
}

impl Stage {
    async fn says(&self, status: &str) -> Value {
        let wanted = |node: Option<&Value>| node.and_then(condition).is_some_and(|c| c["status"] == status);
        let node = self.server.wait_for_object("nodes", "", "n", SOON, wanted).await.unwrap().unwrap();
        condition(&node).unwrap().clone()
    }
}

#[tokio::test]
async fn limits_that_cannot_be_written_show_in_a_condition_until_they_can() {
    let mut stage = Stage::new().await;
    std::fs::write(&stage.library, "a stand-in").unwrap();
    stage.failure_memory = Some(Duration::from_millis(300));
    stage.start_plugin().await;
    stage.registered().await;
    // as with a full or broken disk: nothing can be created below it
    let state = stage.state_dir();
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::write(&state, "").unwrap();
    stage.place("p", 1, &[("main", 30, 10, "GPU-b")]);
    let pod = stage.phase("p", "Failed").await;
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(message.contains("limits of the container cannot be prepared"), "{message}");
    let said = stage.says("False").await;
    assert_eq!(said["reason"], "AllocationsFail");
    assert!(said["message"].as_str().unwrap().contains("limits of the container cannot be prepared"), "{said}");
    let said = stage.says("True").await;
    assert_eq!(said["reason"], "AllocationsSucceed");
}

/// As on a disk that is full while the plugin starts: shares are refused until the limiter is there, and never given
/// without it.
#[tokio::test]
async fn a_limiter_that_cannot_be_installed_at_the_start_is_installed_for_a_later_container() {
    let mut stage = Stage::new().await;
    std::fs::write(&stage.library, "a stand-in").unwrap();
    let lib = stage.state_dir().join("lib");
    std::fs::create_dir_all(stage.state_dir()).unwrap();
    std::fs::write(&lib, "in the way").unwrap();
    stage.start_plugin().await;
    stage.registered().await;
    stage.place("early", 1, &[("main", 30, 10, "GPU-b")]);
    let pod = stage.phase("early", "Failed").await;
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(message.contains("limits of the container cannot be prepared"), "{message}");
    assert_eq!(stage.says("False").await["reason"], "AllocationsFail");
    std::fs::remove_file(&lib).unwrap();
    stage.place("late", 2, &[("main", 30, 10, "GPU-b")]);
    assert_eq!(stage.confirmed("late").await["inspur.com/gpu-isolation"], r#"{"main":"limiter"}"#);
}

#[tokio::test]
async fn what_an_earlier_life_said_ends_with_it_and_where_nothing_failed_nothing_is_said() {
    let mut stage = Stage::new().await;
    let stale = serde_json::json!([{ "type": KIND, "status": "False", "reason": "AllocationsFail" }]);
    stage.server.patch_status("nodes", "", "n", serde_json::json!({ "conditions": stale })).unwrap();
    stage.start_plugin().await;
    stage.registered().await;
    stage.says("True").await;
    // a pod without a placement is not the node's fault
    stage.run("stranger", &[("main", 20, 5)], serde_json::json!({}));
    stage.phase("stranger", "Failed").await;
    stage.place("p", 1, &[("main", 30, 10, "GPU-b")]);
    stage.confirmed("p").await;
    assert_eq!(stage.says("True").await["message"], "nothing has failed for 60 s");
}
