//! Pods without a placement: bound by `spec.nodeName`, while others wait that were placed.

use kerf_testkit::kubelet::Call;
use serde_json::{Value, json};

use crate::stage::{CORE, MEMORY, Stage};

/// No plugin offers it, so kubelet never admits the pods that ask for it.
const LATER: &str = "example.com/later";

/// A pod of one container that is on the node from its creation.
fn stranger(stage: &Stage, namespace: &str, name: &str, limits: Value, annotations: Value) {
    let pod = json!({
        "metadata": { "name": name, "namespace": namespace, "annotations": annotations },
        "spec": { "nodeName": "n", "containers": [{ "name": "main", "image": "i", "resources": { "limits": limits } }] },
        "status": { "phase": "Pending" },
    });
    stage.server.create("pods", pod).unwrap();
}

/// A pod that was placed on this GPU, and is not admitted yet.
fn waits(stage: &Stage, name: &str, core: u64, memory: u64, card: &str) {
    let limits = json!({ CORE: core.to_string(), MEMORY: memory.to_string(), LATER: "1" });
    stage.place_with(name, 1, core, memory, card, limits);
}

async fn refused(stage: &Stage, namespace: &str, name: &str) -> String {
    let failed = |pod: Option<&Value>| pod.is_some_and(|pod| pod["status"]["phase"] == "Failed");
    let pod = stage.server.wait_for_object("pods", namespace, name, crate::stage::SOON, failed).await;
    let pod = pod.unwrap_or_else(|error| panic!("{namespace}/{name}: {error}")).unwrap();
    pod["status"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_pod_that_nobody_placed_is_refused_while_one_that_was_placed_waits() {
    let stage = Stage::ready().await;
    waits(&stage, "whole", 100, 0, "GPU-a");
    waits(&stage, "share", 30, 10, "GPU-b");
    // the plugin knows both before the first stranger comes
    stage
        .until("/debug/state", |_, text| text.contains(r#""name":"whole""#) && text.contains(r#""name":"share""#))
        .await;
    let whole = || json!({ CORE: "100" });
    let share = || json!({ CORE: "30", MEMORY: "10" });
    let spoiled = |key: &str| json!({ format!("inspur.com/{key}"): "x" });
    let cases = [
        ("ns", "bare", whole(), json!({})),
        ("ns", "part", share(), json!({})),
        // the name of one that waits, in another namespace
        ("other", "whole", whole(), json!({})),
        ("other", "share", share(), json!({})),
        ("ns", "policy", whole(), spoiled("gpu-policy")),
        ("ns", "limit", share(), spoiled("vcuda-core-limit")),
        ("ns", "isolation", share(), spoiled("isolation")),
        ("ns", "shares", share(), spoiled("gpu-shares")),
        ("ns", "word", whole(), spoiled("gpu-placement")),
        ("ns", "index", whole(), spoiled("predicate-gpu-idx-0")),
    ];
    for (namespace, name, limits, annotations) in cases {
        stranger(&stage, namespace, name, limits, annotations);
        let message = refused(&stage, namespace, name).await;
        assert!(message.contains("placement"), "{namespace}/{name}: {message}");
    }
    // no stranger was served, and the placed pods wait for their GPUs as before
    let served = |call: &Call| matches!(call, Call::Allocate { error: None, .. });
    assert_eq!(stage.kubelet.calls().iter().filter(|call| served(call)).count(), 0);
    let text = stage.get("/debug/state").await.1;
    assert!(!text.contains("claimed") && !text.contains("confirmed\""), "{text}");
    stage.place("after", 2, &[("main", 30, 10, "GPU-b")]);
    stage.confirmed("after").await;
}
