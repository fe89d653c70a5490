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
        "amd: 7 GPUs or partitions",
        "left out: 0000:03:00.0 [no-device-file]: the host has no device file /dev/dri/renderD130",
        "amd.com/gpu (amd): 7 offered",
        "problem: kubelet does not listen at ",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown = text(&doctor(&Forest::named("g"), forest.path(), &["-profile=deepomatic", "--placed"]));
    let line = "deepomatic.com/shared-gpu (deepomatic): 200 offered, kubelet does not know it; placed by the extender, \
                shares of a GPU: 100";
    assert!(shown.contains(line), "{shown}");
}

#[test]
fn help_is_of_doctor() {
    let help = doctor(&Forest::named("c"), std::path::Path::new("/nonexistent"), &["--help"]);
    let shown = text(&help);
    assert_eq!(help.status.code(), Some(0), "{shown}");
    assert!(shown.contains("Usage: kerf-plugin doctor [OPTIONS]") && shown.contains("--json"), "{shown}");
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
    // flags that do not go together are wrong usage as well
    let together = doctor(&forest, forest.path(), &["-profile=amd", "--isolation=none,mps"]);
    assert_eq!(together.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&together.stderr).contains("--isolation: none"), "{together:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_order_is_without_trouble() {
    let forest = Forest::named("e");
    let dir = tempfile::tempdir().unwrap();
    let server = ApiServer::start().await.unwrap();
    let kubelet = Kubelet::start(KubeletConfig::new("n", server.url(), dir.path())).await.unwrap();
    let unknown = doctor(&forest, dir.path(), &["-profile=intel"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown).contains("problem: kubelet does not know gpu.intel.com/i915"), "{}", text(&unknown));
    let directory = format!("-plugin-directory={}", dir.path().join("device-plugins").display());
    let config = crate::offers::config(&forest, &["-profile=intel", &directory]);
    let token = tokio_util::sync::CancellationToken::new();
    let plugin = kerf_plugin::start(config, None, token.clone()).await.unwrap();
    let resources = ["gpu.intel.com/i915", "gpu.intel.com/xe"];
    kubelet.wait_registered(&resources, std::time::Duration::from_secs(20)).await.unwrap();
    let well = doctor(&forest, dir.path(), &["-profile=intel"]);
    assert_eq!(well.status.code(), Some(0), "{}", text(&well));
    assert!(text(&well).contains("gpu.intel.com/xe (intel): 1 offered, kubelet knows 1 healthy\nno problem found"));
    token.cancel();
    plugin.finished().await.unwrap();
}

/// The loader of a container passes over a library that it cannot map, and starts the program without limits.
#[test]
fn a_library_that_containers_cannot_load_is_trouble() {
    let forest = Forest::described(serde_json::json!({}));
    let gpus = forest.path().join("gpus.toml");
    std::fs::write(&gpus, "[[gpu]]\nmemory_mib = 1024\n").unwrap();
    let state = forest.path().join("state");
    let run = |mount: &str| {
        let plugin = env!("CARGO_BIN_EXE_kerf-plugin");
        let script = format!("{mount} exec {plugin} doctor \"$@\"");
        let mut command = Command::new("unshare");
        // root has the rights already; other users get them in a user namespace, where that is allowed
        command.args(if rustix::process::getuid().is_root() { ["-m"] } else { ["-rm"] });
        command.args(["sh", "-c", &script, "sh", "--backend=simulated", "--node-name=n"]);
        command.arg(format!("--simulated-file={}", gpus.display()));
        command.arg(format!("--kubelet-dir={}", forest.path().display()));
        command.arg(format!("--state-dir={}", state.display()));
        let output = command.output().unwrap();
        (text(&output), String::from_utf8(output.stderr).unwrap())
    };
    let place = state.join("lib");
    let (shown, errors) = run("");
    assert!(!shown.contains(", ,") && !shown.contains(", \n"), "{shown}");
    if errors.contains("Operation not permitted") {
        println!("NOT RUN: mount namespaces are not allowed here");
        return;
    }
    assert!(
        shown.contains(&format!("limiter: no library in {}: does the plugin run?\n", place.display())),
        "{shown}{errors}"
    );
    // named for its content, as the plugin names it
    std::fs::create_dir_all(&place).unwrap();
    let copy = place.join("libkerf_limiter-af63bd4c8601b7df.so");
    std::fs::write(&copy, [0]).unwrap();
    let (shown, _) = run("");
    assert!(
        shown.contains(&format!("limiter: containers can load its library in {}\n", place.display())),
        "{shown}"
    );
    let (shown, _) = run(&format!("mount --bind {0} {0} && mount -o remount,bind,noexec {0} &&", state.display()));
    assert!(
        shown.contains(&format!(
            "problem: limiter: {}: it is on a file system that is mounted noexec",
            place.display()
        )),
        "{shown}"
    );
    std::fs::write(&copy, []).unwrap();
    let (shown, _) = run("");
    assert!(
        shown.contains(&format!("limiter: containers cannot load its library in {}\n", place.display())),
        "{shown}"
    );
    assert!(shown.contains(&format!("problem: limiter: {}: cut or damaged\n", copy.display())), "{shown}");
}
