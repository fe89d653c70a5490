//! `kerf-plugin doctor`, the real program, on trees.

use std::process::{Command, Output};

use kerf_testkit::api::ApiServer;
use kerf_testkit::kubelet::{Kubelet, KubeletConfig};
use serde_json::Value;

use crate::forest::Forest;

pub fn doctor(forest: &Forest, kubelet: &std::path::Path, flags: &[&str]) -> Output {
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

pub fn text(output: &Output) -> String {
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

fn json(forest: &Forest, flags: &[&str]) -> (Option<i32>, Value) {
    let output = doctor(forest, forest.path(), &[flags, &["--json"]].concat());
    (output.status.code(), serde_json::from_str(&text(&output)).unwrap())
}

/// Remarks by subject: the code, and whether it is a problem.
fn left_out(report: &Value) -> Vec<(&str, &str, bool)> {
    let remarks = report["drivers"][0]["remarks"].as_array().unwrap().iter();
    let left_out = remarks.filter(|remark| remark["left_out"] == true);
    left_out
        .map(|remark| {
            (remark["card"].as_str().unwrap(), remark["code"].as_str().unwrap(), remark["problem"] == true)
        })
        .collect()
}

/// Problems with GPUs; kubelet is not there.
fn problems(report: &Value) -> Vec<&str> {
    let all = report["troubles"].as_array().unwrap().iter().map(|problem| problem.as_str().unwrap());
    all.filter(|problem| !problem.starts_with("kubelet")).collect()
}

#[test]
fn auto_waits_for_a_better_vendor_that_the_bus_shows() {
    let nvidia = |driver: Option<&str>| serde_json::json!({ "address": "0000:3b:00.0", "vendor": "0x10de", "device": "0x2330", "class": "0x030200", "driver": driver });
    let cards = serde_json::json!([
        { "vendor": "intel", "address": "0000:00:02.0", "card": 0, "render": 128, "device": "0x46a6", "driver": "i915" },
        { "vendor": "amd", "address": "0000:19:00.0", "card": 1, "render": 129, "memory": 1u64 << 34 },
    ]);
    for driver in [None, Some("nvidia")] {
        let forest = Forest::described(serde_json::json!({ "cards": cards, "pci": [nvidia(driver)] }));
        let (status, report) = json(&forest, &["--backend=auto"]);
        assert_eq!((status, &report["resources"]["inspur.com/vcuda-core"]["offered"]), (Some(3), &Value::from(0)));
        assert!(
            problems(&report)[0].contains("waiting for its GPUs: 0000:3b:00.0 is on the PCI bus"),
            "{report:#}"
        );
        let told = left_out(&report);
        for wanted in [("0000:19:00.0", "other-vendor", false), ("card0", "integrated", false)] {
            assert!(told.contains(&wanted), "{told:?}");
        }
        assert!(told.iter().any(|(gpu, _, problem)| *gpu == "0000:3b:00.0" && *problem), "{told:?}");
        // named, the vendor is served
        let (_, report) = json(&forest, &["--backend=amd"]);
        assert_eq!(
            (&report["resources"]["inspur.com/vcuda-core"]["offered"], problems(&report)),
            (&Value::from(100), vec![])
        );
    }
    // a GPU that another driver has is not waited for, and told
    let forest = Forest::described(serde_json::json!({ "cards": cards, "pci": [nvidia(Some("vfio-pci"))] }));
    let (_, report) = json(&forest, &["--backend=auto"]);
    assert_eq!(report["drivers"][0]["backend"], "amd");
    let wanted = [("0000:3b:00.0", "unknown-driver", true), ("card0", "integrated", false)];
    assert_eq!(left_out(&report), wanted);
}

#[test]
fn auto_serves_one_vendor_and_tells_of_the_others_without_trouble() {
    let forest = Forest::described(serde_json::json!({ "cards": [
        { "vendor": "intel", "address": "0000:00:02.0", "card": 0, "render": 128, "device": "0x46a6", "driver": "i915" },
        { "vendor": "intel", "address": "0000:03:00.0", "card": 1, "render": 129, "device": "0xe20b", "driver": "xe", "memory": 1u64 << 33 },
        { "vendor": "amd", "address": "0000:19:00.0", "card": 2, "render": 130, "memory": 1u64 << 34 },
    ] }));
    let (status, report) = json(&forest, &["--backend=auto"]);
    assert_eq!((status, &report["drivers"][0]["backend"]), (Some(1), &Value::from("amd")), "kubelet is not there");
    assert_eq!(left_out(&report), [("card0", "integrated", false), ("card1", "other-vendor", false)]);
    assert_eq!(problems(&report), Vec::<&str>::new());
    let shown = text(&doctor(&forest, forest.path(), &["--backend=auto"]));
    let line = "left out: card1 [other-vendor]: --backend auto serves the GPUs of one vendor, here amd's: --backend intel serves \
                these instead, --profile vcuda,intel both";
    assert!(shown.contains(line), "{shown}");
    let alone = Forest::described(serde_json::json!({ "cards": [
        { "vendor": "intel", "address": "0000:00:02.0", "card": 0, "render": 128, "device": "0x46a6", "driver": "xe" },
    ] }));
    let (status, report) = json(&alone, &["--backend=auto"]);
    assert_eq!((status, left_out(&report)), (Some(3), vec![("card0", "integrated", false)]));
    let (_, report) = json(&alone, &["--backend=intel"]);
    assert_eq!(report["resources"]["inspur.com/vcuda-core"]["offered"], 100);
}

#[test]
fn every_vendors_gpus_are_chosen_alike() {
    let simulated = Forest::described(serde_json::json!({}));
    let gpus = simulated.path().join("gpus.toml");
    std::fs::write(
        &gpus,
        "[[gpu]]\nmemory_mib = 1024\ncount = 2\nmodel = \"Large\"\n[[gpu]]\nmemory_mib = 256\nmodel = \"Small\"\n",
    )
    .unwrap();
    let file = format!("--simulated-file={}", gpus.display());
    for (forest, flags, gpu_flags, resource, offered) in [
        (
            &Forest::named("b"),
            vec!["-profile=amd"],
            vec!["--include-gpus=0000:0a:00.0,0000:80:00.0"],
            "amd.com/gpu",
            8,
        ),
        (
            &Forest::named("b"),
            vec!["-profile=amd"],
            vec!["--include-gpus=0000:0a:00.0", "--exclude-gpus=amdgpu_xcp_2"],
            "amd.com/gpu",
            3,
        ),
        (&Forest::named("c"), vec!["-profile=amd"], vec!["--exclude-gpus=0,7,model=MI300X"], "amd.com/gpu", 6),
        (&Forest::named("e"), vec!["-profile=intel"], vec!["--include-gpus=card1"], "gpu.intel.com/xe", 1),
        (&Forest::named("e"), vec!["-profile=intel"], vec!["--exclude-gpus=model=0x9a48"], "gpu.intel.com/i915", 1),
        (
            &Forest::named("g"),
            vec!["-profile=nvidia"],
            vec!["--include-gpus=GPU-6c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e60"],
            "nvidia.com/gpu",
            1,
        ),
        (
            &Forest::named("g"),
            vec!["-profile=deepomatic"],
            vec!["--exclude-gpus=00000000:AF:00.0"],
            "deepomatic.com/shared-gpu",
            100,
        ),
        (
            &Forest::named("g"),
            vec!["--backend=nvidia-files", "--isolation=none"],
            vec!["--include-gpus=model=A100 PCIE"],
            "inspur.com/vcuda-core",
            200,
        ),
        (
            &simulated,
            vec!["--backend=simulated", "--isolation=none", &file],
            vec!["--include-gpus=model=Large", "--exclude-gpus=1"],
            "inspur.com/vcuda-core",
            100,
        ),
    ] {
        let (_, report) = json(forest, &[&flags[..], &gpu_flags[..]].concat());
        assert_eq!(report["resources"][resource]["offered"], offered, "{flags:?} {gpu_flags:?} {report:#}");
        let by_choice = |(_, code, problem): &(&str, &str, bool)| {
            !problem && ["not-included", "excluded-by-flag"].contains(code)
        };
        assert!(left_out(&report).iter().all(by_choice), "{report:#}");
        let idle = problems(&report);
        assert_eq!(idle.len(), usize::from(gpu_flags[0].contains("MI300X")), "{idle:?}");
        assert!(
            idle.iter().all(|problem| problem.starts_with("--exclude-gpus: \"model=MI300X\" names no GPU")),
            "{idle:?}"
        );
    }
    // no GPU is left, and why is said
    let (status, report) = json(&Forest::named("c"), &["-profile=amd", "--include-gpus=0000:ff:00.0"]);
    assert_eq!((status, left_out(&report).len()), (Some(3), 8));
    assert!(
        problems(&report)[0].starts_with("--include-gpus: \"0000:ff:00.0\" names no GPU of this machine"),
        "{report:#}"
    );
    // what cannot be read is wrong usage
    let wrong = doctor(&simulated, simulated.path(), &["--include-gpus=pci=zz"]);
    let errors = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        wrong.status.code() == Some(2) && errors.contains("--include-gpus") && errors.contains("a PCI address"),
        "{errors}"
    );
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
