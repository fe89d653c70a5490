//! The startup taint: gone once the node's GPUs can be used, never before, and nothing else of the Node with it.

use std::sync::Arc;

use kerf_testkit::api::{Action, Fault, Injected, Watchers};
use serde_json::{Value, json};

use crate::stage::{CORE, MEMORY, SOON, Stage};

const TAINT: &str = "inspur.com/gpu-starting";

fn startup() -> Value {
    json!({ "key": TAINT, "effect": "NoSchedule" })
}

/// Taints of others; one has a name like the startup taint's, under another domain.
fn others() -> Vec<Value> {
    vec![
        json!({ "key": "example.com/a", "value": "x", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z" }),
        json!({ "key": "tencent.com/gpu-starting", "effect": "NoSchedule" }),
    ]
}

fn taints(node: &Value) -> Vec<Value> {
    node["spec"]["taints"].as_array().cloned().unwrap_or_default()
}

impl Stage {
    /// Replaces the Node's taints, as whoever may do so.
    fn taint(&self, taints: &[Value]) {
        self.server.patch("nodes", "", "n", &json!({ "spec": { "taints": taints } })).unwrap();
    }

    fn taint_beside_others(&self) {
        let [first, second] = &others()[..] else { panic!("two") };
        self.taint(&[first.clone(), startup(), second.clone()]);
    }

    fn node(&self) -> Arc<Value> {
        self.server.get("nodes", "", "n").unwrap()
    }

    fn tainted(&self) -> bool {
        taints(&self.node()).contains(&startup())
    }

    /// Waits until these taints are left, in this order.
    async fn left(&self, wanted: &[Value]) {
        let shown = |node: Option<&Value>| node.is_some_and(|node| taints(node) == wanted);
        let waited = self.server.wait_for_object("nodes", "", "n", SOON, shown).await;
        waited.unwrap_or_else(|error| panic!("{error}: {:?}", taints(&self.node())));
    }

    /// Waits until `/readyz` says that the taint stays for this reason.
    async fn stays(&self, why: &str) {
        let said = format!("startup taint: {why}");
        self.until("/readyz", |status, text| status != 200 && text.contains(&said)).await;
        assert!(self.tainted(), "{why}");
    }

    async fn is_ready(&self) {
        self.until("/readyz", |status, _| status == 200).await;
    }

    /// The answers to the plugin's writes of the Node itself.
    fn codes(&self) -> Vec<u16> {
        let writes = self.server.write_log().into_iter();
        writes.filter(|write| write.verb == "patch" && write.resource == "nodes").map(|write| write.code).collect()
    }

    fn fails(&self, action: Action, times: u64) -> Injected {
        self.server.inject(Fault::new("patch", "nodes", action).times(times))
    }
}

#[tokio::test]
async fn the_taint_stays_until_the_node_offers_its_resources_and_shows_its_inventory() {
    let mut stage = Stage::new().await;
    stage.taint_beside_others();
    // kubelet has registered both resources before the Node shows them
    let kubelet = stage.server.inject(Fault::new("patch", "nodes/status", Action::Hold).of(Watchers::StandIns));
    let inventory =
        stage.server.inject(Fault::new("patch", "nodes/status", Action::Status(503)).of(Watchers::Others));
    stage.start_plugin().await;
    stage.kubelet.wait_registered(&[CORE, MEMORY], SOON).await.unwrap();
    stage.stays("the Node does not offer inspur.com/vcuda-core, inspur.com/vcuda-memory").await;
    kubelet.remove();
    stage.stays("the Node does not show the inventory").await;
    inventory.remove();
    stage.left(&others()).await;
    stage.is_ready().await;
    assert!(stage.node()["metadata"]["annotations"]["inspur.com/gpu-inventory"].is_string());
}

#[tokio::test]
async fn a_plugin_that_kubelet_has_not_registered_leaves_the_taint() {
    let mut stage = Stage::ready().await;
    stage.stop_plugin().await;
    // as a kubelet that still shows what an earlier plugin offered
    stage.kubelet.stop().await;
    let offered = json!({ CORE: "200", MEMORY: "128" });
    stage.server.patch_status("nodes", "", "n", json!({ "allocatable": offered })).unwrap();
    stage.taint_beside_others();
    stage.start_plugin().await;
    stage.stays("kubelet has not registered every resource").await;
    stage.kubelet.restart().await.unwrap();
    stage.left(&others()).await;
    stage.is_ready().await;
}

#[tokio::test]
async fn a_taint_that_comes_back_is_removed_again_also_after_a_restart() {
    let mut stage = Stage::ready().await;
    // with any value and effect; with two of them, too
    for own in [json!({ "key": TAINT, "value": "true", "effect": "NoExecute" }), startup()] {
        stage.taint(&[own, others()[0].clone(), startup()]);
        stage.left(&others()[..1]).await;
    }
    stage.stop_plugin().await;
    stage.taint_beside_others();
    stage.start_plugin().await;
    stage.left(&others()).await;
}

/// kubelet registers the Node again, with the taint; what it offers is not shown yet.
#[tokio::test]
async fn a_node_that_is_registered_again_keeps_the_taint_until_it_offers_its_resources() {
    let stage = Stage::ready().await;
    let before = stage.node();
    stage.server.force_delete("nodes", "", "n").unwrap();
    let again = json!({ "metadata": { "name": "n" }, "spec": { "taints": [startup()] } });
    stage.server.create("nodes", again).unwrap();
    stage.stays("the Node does not offer inspur.com/vcuda-core, inspur.com/vcuda-memory").await;
    let half = json!({ CORE: "200", MEMORY: "0" });
    stage.server.patch_status("nodes", "", "n", json!({ "allocatable": half })).unwrap();
    stage.stays("the Node does not offer inspur.com/vcuda-memory").await;
    let all = before["status"]["allocatable"].clone();
    stage.server.patch_status("nodes", "", "n", json!({ "allocatable": all })).unwrap();
    stage.left(&[]).await;
}

#[tokio::test]
async fn a_taint_that_another_client_adds_or_removes_meanwhile_is_not_lost() {
    let stage = Stage::ready().await;
    let held = stage.server.inject(Fault::new("get", "nodes", Action::HoldAnswer).of(Watchers::Others).times(1));
    stage.taint_beside_others();
    // the plugin has read the Node, and writes what it has read
    held.wait_hits(1, SOON).await.unwrap();
    let fresh = json!({ "key": "example.com/fresh", "effect": "NoSchedule" });
    stage.taint(&[startup(), others()[1].clone(), fresh.clone()]);
    held.release();
    stage.left(&[others()[1].clone(), fresh]).await;
    assert_eq!(stage.codes(), [409, 200]);
}

#[tokio::test]
async fn a_node_that_offers_nothing_any_more_when_the_write_comes_keeps_the_taint() {
    let stage = Stage::ready().await;
    let held = stage.server.inject(Fault::new("get", "nodes", Action::HoldAnswer).of(Watchers::Others).times(1));
    stage.taint_beside_others();
    held.wait_hits(1, SOON).await.unwrap();
    let all = stage.node()["status"]["allocatable"].clone();
    let none = json!({ CORE: "0", MEMORY: "0" });
    stage.server.patch_status("nodes", "", "n", json!({ "allocatable": none })).unwrap();
    held.release();
    stage.stays("the Node does not offer inspur.com/vcuda-core, inspur.com/vcuda-memory").await;
    stage.server.patch_status("nodes", "", "n", json!({ "allocatable": all })).unwrap();
    stage.left(&others()).await;
}

#[tokio::test]
async fn conflicts_errors_and_lost_answers_leave_other_taints_alone() {
    let stage = Stage::ready().await;
    for (action, times) in [
        (Action::Status(409), 2),
        (Action::Status(503), 1),
        (Action::DropBefore, 1),
        // the write is done, and its answer is lost
        (Action::DropAfter, 1),
    ] {
        let fault = stage.fails(action, times);
        stage.taint_beside_others();
        fault.wait_hits(times, SOON).await.unwrap();
        stage.left(&others()).await;
        stage.is_ready().await;
    }
    // one for each, and none after the lost answer
    assert_eq!(stage.codes().into_iter().filter(|code| *code == 200).count(), 4);
}

#[tokio::test]
async fn without_the_right_it_says_what_is_missing_and_asks_with_growing_pauses() {
    let stage = Stage::ready().await;
    let refused = stage.server.inject(Fault::new("patch", "nodes", Action::Status(403)));
    stage.taint_beside_others();
    stage
        .until("/readyz", |status, text| {
            let said = "startup taint: inspur.com/gpu-starting cannot be removed: ";
            status != 200 && text.contains(said) && text.contains("; see manifests/components/startup-taint")
        })
        .await;
    // whatever happens to the Node meanwhile
    for number in 0..50 {
        let change = json!({ "metadata": { "annotations": { "inspur.com/gpu-cordon": number.to_string() } } });
        stage.server.patch("nodes", "", "n", &change).unwrap();
    }
    refused.wait_hits(3, SOON).await.unwrap();
    assert_eq!(refused.hits(), 3);
    assert!(stage.tainted());
    let counted = stage.until("/metrics", |status, _| status == 200).await;
    assert!(!counted.contains(r#"kerf_plugin_api_errors_total{call="node"} 0"#), "{counted}");
    refused.remove();
    stage.left(&others()).await;
    stage.is_ready().await;
}

#[tokio::test]
async fn a_node_that_may_not_be_watched_loses_the_taint_all_the_same() {
    let mut stage = Stage::new().await;
    for verb in ["list", "watch"] {
        stage.server.inject(Fault::new(verb, "nodes", Action::Status(403)).of(Watchers::Others));
    }
    stage.taint_beside_others();
    stage.start_plugin().await;
    stage.left(&others()).await;
    let node = stage.node();
    assert_eq!(node["status"]["allocatable"][CORE], "200");
}
