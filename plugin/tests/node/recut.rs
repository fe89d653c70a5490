//! A GPU that is cut into other instances (MIG) while the plugin runs: those of the old cut are announced for as long as a
//! pod holds them, and no longer.

use kerf::ids::DeviceId;
use kerf_plugin::testing::simulated::file as simulated;
use serde_json::{Value, json};

use crate::stage::{CORE, MEMORY, SOON, Stage};

fn write(stage: &Stage, instances: &[(&str, u64)]) {
    let of = |(uuid, mib): &(&str, u64)| {
        format!(
            "[[gpu]]\nuuid = \"{uuid}\"\nmemory_mib = {mib}\npartition = true\ndevice_nodes = [\"/dev/null\"]\n"
        )
    };
    let text: String = instances.iter().map(of).collect();
    let known: Vec<DeviceId> =
        simulated::parse(&text).unwrap().devices.into_iter().map(|host| host.device.id).collect();
    assert_eq!(known.len(), instances.len());
    // at once: a file that is read half written has no instances
    let fresh = stage.gpus.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(&fresh, &stage.gpus).unwrap();
}

/// The plugin runs with three instances, and knows what runs on the node.
async fn cut_in_three() -> Stage {
    let mut stage = Stage::new().await;
    stage.flags = vec!["--report-period=20ms".to_owned()];
    write(&stage, &[("MIG-a", 4096), ("MIG-b", 4096), ("MIG-c", 8192)]);
    stage.start_plugin().await;
    stage.kubelet.wait_registered(&[CORE, MEMORY], SOON).await.unwrap();
    stage.amount(CORE, 300, 300).await;
    stage.until("/debug/state", |_, text| text.contains(r#""kubelet_heard":true"#)).await;
    stage.until("/readyz", |status, _| status == 200).await;
    stage
}

impl Stage {
    /// Waits for the node's capacity, and for what of it can be allocated.
    async fn amount(&self, resource: &str, capacity: u64, allocatable: u64) {
        let wanted = [capacity, allocatable].map(|amount| json!(amount.to_string()));
        let shown = |node: Option<&Value>| {
            node.is_some_and(|node| {
                let status = &node["status"];
                [&status["capacity"][resource], &status["allocatable"][resource]] == [&wanted[0], &wanted[1]]
            })
        };
        let seen = self.server.wait_for_object("nodes", "", "n", SOON, shown).await;
        seen.unwrap_or_else(|error| panic!("{resource} {wanted:?}: {error} {:?}", self.kubelet.resources()));
    }

    async fn gpus_are(&self, message: &str) {
        let shown = |node: Option<&Value>| {
            let all = node.and_then(|node| node["status"]["conditions"].as_array());
            all.into_iter().flatten().any(|one| one["type"] == "KerfGPUsHealthy" && one["message"] == message)
        };
        let seen = self.server.wait_for_object("nodes", "", "n", SOON, shown).await;
        seen.unwrap_or_else(|error| panic!("{message}: {error}"));
    }

    fn told_unhealthy(&self) -> usize {
        let events = self.server.list("events").unwrap();
        events.iter().filter(|event| event["reason"] == "GPUUnhealthy").count()
    }
}

#[tokio::test]
async fn instances_that_nobody_holds_go_with_their_cut() {
    let stage = cut_in_three().await;
    stage.gpus_are("all 3 GPUs are healthy").await;
    write(&stage, &[("MIG-d", 8192), ("MIG-e", 8192)]);
    stage.amount(CORE, 200, 200).await;
    stage.amount(MEMORY, 64, 64).await;
    stage.gpus_are("all 2 GPUs are healthy").await;
    stage.until("/metrics", |_, text| text.contains("MIG-d") && !text.contains("MIG-a")).await;
    // also where no instance is new
    write(&stage, &[("MIG-d", 8192)]);
    stage.amount(CORE, 100, 100).await;
    stage.gpus_are("all 1 GPUs are healthy").await;
    assert_eq!(stage.told_unhealthy(), 0);
    stage.place("p", 1, &[("main", 30, 10, "MIG-d")]);
    stage.confirmed("p").await;
}

#[tokio::test]
async fn an_instance_that_a_pod_holds_stays_until_the_pod_is_gone() {
    let stage = cut_in_three().await;
    stage.place("p", 1, &[("main", 30, 10, "MIG-b")]);
    stage.confirmed("p").await;
    write(&stage, &[("MIG-d", 8192), ("MIG-e", 8192)]);
    stage.amount(CORE, 300, 200).await;
    stage.gpus_are("1 of 3 GPUs unhealthy: MIG-b (index 1, Simulated GPU)").await;
    stage.kubelet.complete_pod("ns", "p", "Succeeded").await.unwrap();
    stage.amount(CORE, 200, 200).await;
    stage.gpus_are("all 2 GPUs are healthy").await;
}

#[tokio::test]
async fn a_card_that_is_cut_for_the_first_time_is_no_lost_card() {
    let stage = Stage::ready().await;
    stage.until("/debug/state", |_, text| text.contains(r#""kubelet_heard":true"#)).await;
    stage.until("/readyz", |status, _| status == 200).await;
    write(&stage, &[("MIG-a", 4096), ("MIG-b", 4096), ("MIG-c", 8192)]);
    stage.amount(CORE, 300, 300).await;
}
