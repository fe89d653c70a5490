//! `kerf-plugin doctor`, the real program, on trees.

use std::process::{Command, Output};

use kerf_testkit::api::ApiServer;
use kerf_testkit::kubelet::{Kubelet, KubeletConfig};
use serde_json::Value;

use crate::forest::Forest;

fn doctor(forest: &Forest, kubelet: &std::path::Path, flags: &[&str]) -> Output {
    let root = |flag: &str, name: &str| format!("--{flag}={}", forest.path().join(name).display());
    Command::new(env!("CARGO_BIN_EXE_kerf-plugin"))
        .arg("doctor")
        .args([root("sys-root", "sys"), root("dev-root", "dev"), root("proc-root", "proc")])
        .args([
            "--nvml-library=/nonexistent/libnvidia-ml.so.1".to_owned(),
            format!("--kubelet-dir={}", kubelet.display()),
        ])
        .args(flags)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn trouble_is_named_and_has_its_exit_status() {
    let forest = Forest::named("c");
    std::fs::remove_file(forest.path().join("dev/dri/renderD130")).unwrap();
    let output = doctor(&forest, forest.path(), &["-profile=amd"]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    for part in [
        "amd: 7 cards or parts of cards",
        "left out: 0000:03:00.0 [no-device-file]: the host has no device file /dev/dri/renderD130",
        "amd.com/gpu (amd): 7 offered",
        "trouble: kubelet does not listen at ",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown = text(&doctor(&Forest::named("g"), forest.path(), &["-profile=deepomatic", "--placed"]));
    let line = "deepomatic.com/shared-gpu (deepomatic): 200 offered, kubelet does not know it; placed by the extender, \
                shares of a card: 100";
    assert!(shown.contains(line), "{shown}");
}

#[test]
fn no_card_has_its_own_exit_status() {
    let forest = Forest::described(serde_json::json!({}));
    let output = doctor(&forest, forest.path(), &["-profile=amd,intel", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_str(&text(&output)).unwrap();
    assert_eq!(report["drivers"].as_array().unwrap().len(), 2);
    assert!(report["troubles"][0].as_str().unwrap().contains("amdgpu"));
    assert_eq!(doctor(&forest, forest.path(), &["-profile=none"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_order_is_without_trouble() {
    let forest = Forest::named("e");
    let dir = tempfile::tempdir().unwrap();
    let server = ApiServer::start().await.unwrap();
    let kubelet = Kubelet::start(KubeletConfig::new("n", server.url(), dir.path())).await.unwrap();
    let unknown = doctor(&forest, dir.path(), &["-profile=intel"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown).contains("trouble: kubelet does not know gpu.intel.com/i915"), "{}", text(&unknown));
    let directory = format!("-plugin-directory={}", dir.path().join("device-plugins").display());
    let config = crate::offers::config(&forest, &["--listen=127.0.0.1:0", "-profile=intel", &directory]);
    let token = tokio_util::sync::CancellationToken::new();
    let plugin = kerf_plugin::start(config, None, token.clone()).await.unwrap();
    let resources = ["gpu.intel.com/i915", "gpu.intel.com/xe"];
    kubelet.wait_registered(&resources, std::time::Duration::from_secs(20)).await.unwrap();
    let well = doctor(&forest, dir.path(), &["-profile=intel"]);
    assert_eq!(well.status.code(), Some(0), "{}", text(&well));
    assert!(text(&well).contains("gpu.intel.com/xe (intel): 1 offered, kubelet knows 1 healthy\nno trouble found"));
    token.cancel();
    plugin.finished().await.unwrap();
}
