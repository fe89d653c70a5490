//! GPUs that the machine has and the plugin does not offer: the report of `doctor` and a metric name each, with the reason.

use serde_json::json;

use crate::doctor::{doctor, text};
use crate::forest::{Forest, left_out, names};
use crate::kubelet::{SOON, Stage};
use kerf_plugin::testing::backend::Vendor;

/// One card that works, and one for each way not to be offered.
fn mixed() -> Forest {
    let card = |address: &str, minor: u32, driver: &str| json!({ "vendor": "nvidia", "minor": minor, "address": address, "uuid": format!("GPU-{minor}"), "driver": driver });
    Forest::described(json!({ "cards": [
        card("0000:3b:00.0", 0, "nvidia"),
        card("0000:3c:00.0", 1, "vfio-pci"),
        card("0000:3d:00.0", 2, "nouveau"),
        card("0000:3e:00.0", 3, ""),
        card("0000:3f:00.0", 4, "nvidia"),
        card("0000:40:00.0", 5, "nvidia"),
    ], "without": ["dev/nvidia4", "sys/bus/pci/devices/0000:40:00.0"] }))
}

const REASONS: [(&str, &str); 5] = [
    ("0000:3c:00.0", "unknown-driver"),
    ("0000:3d:00.0", "unknown-driver"),
    ("0000:3e:00.0", "no-driver"),
    ("0000:3f:00.0", "no-device-file"),
    ("0000:40:00.0", "lost"),
];

#[test]
fn the_report_names_every_card_that_is_not_offered() {
    let forest = mixed();
    for flags in [["-profile=nvidia"], ["-profile=deepomatic"]] {
        let shown = text(&doctor(&forest, forest.path(), &flags));
        for (address, reason) in REASONS {
            assert!(shown.contains(&format!("left out: {address} [{reason}]")), "{shown}");
            assert!(shown.contains(&format!("problem: {address} is left out: ")), "{shown}");
        }
        assert!(shown.contains("bound to the driver \"vfio-pci\""), "{shown}");
    }
}

/// Neither the library nor the device files are there: the bus still shows what the machine has.
#[test]
fn without_a_driver_the_report_names_every_card_of_the_bus() {
    let forest = mixed();
    std::fs::remove_dir_all(forest.path().join("dev")).unwrap();
    for flags in [
        vec!["-profile=nvidia"],
        vec!["--node-name=n", "--backend=nvidia"],
        vec!["--node-name=n", "--backend=nvidia-files"],
    ] {
        let output = doctor(&forest, forest.path(), &flags);
        assert_eq!(output.status.code(), Some(3));
        let shown = text(&output);
        for address in ["0000:3b:00.0", "0000:3f:00.0"] {
            assert!(shown.contains(&format!("left out: {address} [driver-unavailable]")), "{flags:?}: {shown}");
        }
        assert!(shown.contains("left out: 0000:3e:00.0 [no-driver]"), "{flags:?}: {shown}");
    }
}

#[test]
fn a_memory_that_a_person_knows_is_taken_for_cards_found_by_their_files() {
    let forest = Forest::named("g");
    let flags = ["--node-name=n", "--backend=nvidia-files", "--nvidia-memory-mib=40960"];
    let shown = text(&doctor(&forest, forest.path(), &flags));
    assert!(shown.contains(", 40960 MiB, ") && !shown.contains("no-memory-size"), "{shown}");
    assert!(shown.contains("inspur.com/vcuda-memory (vcuda): 320 offered"), "{shown}");
}

#[test]
fn cards_without_an_address_are_not_told_of_twice() {
    // device files alone, and a bus where both cards are bound to the driver
    let forest = mixed();
    std::fs::remove_dir_all(forest.path().join("proc")).unwrap();
    let scan = forest.scan(Vendor::Nvidia);
    assert_eq!(names(&scan), ["nvidia0", "nvidia5"]);
    assert_eq!(left_out(&scan), []);
    let shown = text(&doctor(&forest, forest.path(), &["-profile=nvidia"]));
    assert!(
        !shown.contains("0000:3b:00.0") && shown.contains("left out: 0000:3c:00.0 [unknown-driver]"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_metric_has_each_card_that_is_not_offered_with_its_reason() {
    let mut stage = Stage::new(mixed()).await;
    stage.start(&["-profile=nvidia"]).await;
    stage.allocatable("nvidia.com/gpu", 1).await;
    let seen = tokio::time::timeout(SOON, async {
        loop {
            let metrics = stage.metrics().await;
            let told = |(gpu, reason): &(&str, &str)| {
                let line = format!(
                    r#"kerf_plugin_gpu_left_out{{gpu="{gpu}",node="",profile="nvidia",reason="{reason}"}} 1"#
                );
                metrics.contains(&line)
            };
            if REASONS.iter().all(told) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    seen.await.unwrap();
    // what comes back is not told of any longer
    std::fs::write(stage.forest.path().join("dev/nvidia4"), "").unwrap();
    stage.allocatable("nvidia.com/gpu", 2).await;
    assert!(!stage.metrics().await.contains("0000:3f:00.0"));
    stage.stop().await;
}

/// What a profile does not offer of the GPUs that were found.
#[tokio::test]
async fn a_metric_has_each_card_that_a_profile_refuses() {
    let card = |n: u32, mode: &str| {
        json!({ "vendor": "amd", "address": format!("0000:0{n}:00.0"), "card": n, "render": 128 + n,
        "modes": [mode, "NPS1"] })
    };
    let mut stage = Stage::new(Forest::described(json!({ "cards": [card(1, "SPX"), card(2, "CPX")] }))).await;
    stage.start(&["-profile=amd"]).await;
    let line = |n: u32| {
        format!(
            r#"kerf_plugin_gpu_left_out{{gpu="0000:0{n}:00.0",node="",profile="amd",reason="several-layouts"}} 1"#
        )
    };
    let seen = tokio::time::timeout(SOON, async {
        loop {
            let metrics = stage.metrics().await;
            if [1, 2].iter().all(|n| metrics.contains(&line(*n))) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    seen.await.unwrap();
    stage.stop().await;
}
