//! Which container a call is for, what the container gets, and the pod's record afterwards.

use std::collections::BTreeSet;

use kerf::annotation::{self, Keys};
use kerf_testkit::kubelet::Call;
use serde_json::{Value, json};

use crate::stage::{CORE, MEMORY, SOON, Stage, placement};

/// Every container of the pod: environment, ids and record name one GPU.
async fn consistent(stage: &Stage, pod: &str, containers: &[&str]) {
    let annotations = stage.confirmed(pod).await;
    for name in containers {
        let container = stage.started(pod, name).await;
        let recorded = Stage::recorded(&annotations, name);
        assert_eq!(container.env["NVIDIA_VISIBLE_DEVICES"], recorded.join(","), "{pod}/{name}");
        for resource in [CORE, MEMORY] {
            let cards: BTreeSet<String> =
                container.ids(resource).iter().map(|id| id.rsplit_once("::").unwrap().0.to_owned()).collect();
            assert!(cards.is_empty() || cards == recorded.iter().cloned().collect(), "{pod}/{name}: {cards:?}");
        }
        assert!(container.conflicts.is_empty());
    }
}

#[tokio::test]
async fn a_container_gets_exactly_the_recorded_card() {
    let stage = Stage::ready().await;
    stage.place("p", 1, &[("main", 30, 10, "GPU-b")]);
    consistent(&stage, "p", &["main"]).await;
    let container = stage.kubelet.container("ns", "p", "main").unwrap();
    assert_eq!(container.env.keys().map(String::as_str).collect::<Vec<_>>(), ["NVIDIA_VISIBLE_DEVICES"]);
    assert_eq!(container.annotations["inspur.com/vcuda-core"], "30");
    assert_eq!(container.annotations["inspur.com/vcuda-memory"], ((10u64 * 256) << 20).to_string());
    assert_eq!(container.annotations["inspur.com/vcuda-device"], "/dev/zero");
    let wanted = |_: u16, text: &str| {
        text.contains(r#"kerf_plugin_container_core_granted_ratio{container="main",gpu="GPU-b",index="1",namespace="ns",node="n",pod="p"} 0.3"#)
            && text.contains(r#"container_request_gpu_memory{container_name="main",namespace="ns",node="n",pod_name="p",req_of_gpu_memory="total"} 2560"#)
            && text.contains(r#"kerf_plugin_gpu_utilization_ratio{gpu="GPU-a",index="0",model="Simulated GPU",node="n"} 0.4"#)
    };
    stage.until("/metrics", wanted).await;
    // the series end with the pod
    stage.kubelet.complete_pod("ns", "p", "Succeeded").await.unwrap();
    stage.until("/metrics", |_, text| !text.contains(r#"pod="p""#)).await;
}

#[tokio::test]
async fn a_burst_of_equal_and_unequal_pods_is_told_apart() {
    let stage = Stage::ready().await;
    let card = |at: u64| if at.is_multiple_of(2) { "GPU-a" } else { "GPU-b" };
    for at in 0..6 {
        stage.place(&format!("twin-{at}"), 10 - at, &[("main", 20, 8, card(at))]);
    }
    stage.place("pair", 20, &[("one", 15, 6, "GPU-a"), ("two", 10, 4, "GPU-b")]);
    for at in 0..6 {
        consistent(&stage, &format!("twin-{at}"), &["main"]).await;
    }
    consistent(&stage, "pair", &["one", "two"]).await;
    let allocates = stage.kubelet.calls().into_iter().filter(|call| matches!(call, Call::Allocate { .. })).count();
    assert_eq!(allocates, 16);
}

#[tokio::test]
async fn whole_cards_need_no_memory_and_come_alone() {
    let stage = Stage::ready().await;
    stage.place("whole", 1, &[("main", 100, 0, "GPU-b")]);
    consistent(&stage, "whole", &["main"]).await;
    stage.place("share", 2, &[("main", 50, 10, "GPU-a")]);
    consistent(&stage, "share", &["main"]).await;
    // a record that a tenant wrote itself: the GPU is another pod's
    stage.place("thief", 3, &[("main", 30, 5, "GPU-b")]);
    let pod = stage.phase("thief", "Failed").await;
    assert!(pod["status"]["message"].as_str().unwrap().contains("no room"), "{pod}");
}

#[tokio::test]
async fn hostile_records_are_never_obeyed() {
    let stage = Stage::ready().await;
    let keys = Keys::default();
    let good = annotation::write(&placement(1, &[("main", 10, 4, "GPU-a")]), &keys);
    let with = |key: &str, value: String| {
        let mut annotations = good.clone();
        annotations.insert(key.to_owned(), value);
        json!(annotations)
    };
    let cases = [
        ("version", with(&keys.placement, r#"{"version":99,"anything":[]}"#.to_owned())),
        ("word", with(&keys.placement, "x".to_owned())),
        ("huge", with(&keys.placement, "x".repeat(300 << 10))),
        ("more", with(&keys.placement, good[&keys.placement].replace("\"compute\":100", "\"compute\":900"))),
        ("nowhere", with(&keys.placement, good[&keys.placement].replace("GPU-a", "GPU-z"))),
        ("minus", json!({ "inspur.com/predicate-gpu-idx-0": "-1" })),
        ("letter", json!({ "inspur.com/predicate-gpu-idx-0": "x" })),
        ("beyond", json!({ "inspur.com/predicate-gpu-idx-0": "7" })),
        ("none", json!({})),
    ];
    for (name, annotations) in cases {
        stage.run(name, &[("main", 10, 4)], annotations);
        let pod = stage.phase(name, "Failed").await;
        assert_eq!(pod["status"]["reason"], "UnexpectedAdmissionError", "{name}");
    }
    // and the node goes on serving
    stage.place("good", 2, &[("main", 10, 4, "GPU-a")]);
    consistent(&stage, "good", &["main"]).await;
    assert_eq!(stage.get("/livez").await.0, 200);
}

#[tokio::test]
async fn the_compatibility_record_is_enough() {
    let stage = Stage::ready().await;
    stage.run(
        "old",
        &[("main", 10, 4)],
        json!({
            "inspur.com/predicate-gpu-idx-0": "1", "inspur.com/predicate-time": "5",
            "inspur.com/predicate-node": "n", "inspur.com/gpu-assigned": "false",
        }),
    );
    stage.confirmed("old").await;
    let container = stage.started("old", "main").await;
    assert_eq!(container.env["NVIDIA_VISIBLE_DEVICES"], "GPU-b");
}

#[tokio::test]
async fn an_allocate_that_overtakes_the_watch_is_served() {
    let stage = Stage::ready().await;
    stage.server.hold_watch("pods", kerf_testkit::api::Watchers::Others).unwrap();
    stage.place("p", 1, &[("main", 30, 10, "GPU-b")]);
    let env = stage.kubelet.wait_for(SOON, |containers| {
        containers.iter().find_map(|container| container.env.get("NVIDIA_VISIBLE_DEVICES").cloned())
    });
    assert_eq!(env.await.unwrap(), "GPU-b");
    stage.server.release_watch("pods").unwrap();
    consistent(&stage, "p", &["main"]).await;
}

#[tokio::test]
async fn a_restarted_plugin_knows_what_its_predecessor_gave() {
    let mut stage = Stage::ready().await;
    stage.place("before", 1, &[("main", 30, 10, "GPU-a")]);
    consistent(&stage, "before", &["main"]).await;
    stage.stop_plugin().await;
    stage.start_plugin().await;
    stage.registered().await;
    stage.place("after", 2, &[("main", 30, 10, "GPU-b")]);
    consistent(&stage, "after", &["main"]).await;
    consistent(&stage, "before", &["main"]).await;
    let text = stage.until("/debug/state", |_, text| text.contains(r#""name":"before""#)).await;
    assert!(!text.contains("waiting"), "{text}");
    stage.kubelet.restart_container("ns", "before", "main").await.unwrap();
    assert!(stage.kubelet.container("ns", "before", "main").unwrap().start_errors.is_empty());
}

#[tokio::test]
async fn writes_that_fail_are_tried_again() {
    use kerf_testkit::api::{Action, Fault};
    let stage = Stage::ready().await;
    let fault = stage.server.inject(Fault::new("patch", "pods/status", Action::Status(500)).times(2));
    stage.place("p", 1, &[("main", 30, 10, "GPU-b")]);
    consistent(&stage, "p", &["main"]).await;
    assert!(fault.hits() >= 1);
}

#[tokio::test]
async fn debug_state_says_on_what_a_call_was_taken_for_a_container_or_refused() {
    let stage = Stage::ready().await;
    stage.place("p", 1, &[("main", 30, 10, "GPU-b")]);
    consistent(&stage, "p", &["main"]).await;
    stage.run("bare", &[("main", 20, 5)], json!({}));
    stage.phase("bare", "Failed").await;
    let text = stage.get("/debug/state").await.1;
    let state: Value = serde_json::from_str(&text[text.find("\r\n\r\n").unwrap()..]).unwrap();
    let decisions = state["decisions"].as_array().unwrap();
    for (resource, ids) in [("core", 30), ("memory", 10)] {
        let of = |decision: &&Value| decision["resource"] == resource && decision["container"]["name"] == "p";
        let decision = decisions.iter().find(of).unwrap_or_else(|| panic!("{resource}: {state}"));
        let told = (&decision["ids"], &decision["container"]["container"], &decision["evidence"]);
        assert_eq!(told, (&json!(ids), &json!("main"), &json!("listed-now")), "{decision}");
        assert_eq!((&decision["candidates"], &decision["runners_up"]), (&json!(1), &json!([])), "{decision}");
        assert!(decision["time"].as_str().unwrap().ends_with('Z'), "{decision}");
    }
    assert!(decisions.iter().any(|decision| decision["refused"] == "not-placed"), "{state}");
    let claim = &state["pods"].as_array().unwrap().iter().find(|pod| pod["name"] == "p").unwrap()["containers"][0];
    assert_eq!(claim["claim"]["state"], "confirmed", "{state}");
}
