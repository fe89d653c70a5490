//! The real `kerf` program on real files.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

fn kerf(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kerf")).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn snapshot(folder: &Path) -> String {
    let gpus: Vec<Value> = (0..2)
        .map(|i| json!({ "uuid": format!("GPU-{i}"), "index": i, "model": "Test", "memory_mib": 15360, "health": "healthy" }))
        .collect();
    let inventory = json!({ "version": 1, "gpus": gpus }).to_string();
    let node = json!({ "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": "a", "annotations": { "inspur.com/gpu-inventory": inventory } } });
    let cpu = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "cpu" } });
    let limits = json!({ "inspur.com/vcuda-core": "60", "inspur.com/vcuda-memory": "10" });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "p", "namespace": "ns", "uid": "u", "annotations": { "inspur.com/predicate-gpu-idx-0": "1" } },
        "spec": { "nodeName": "a", "containers": [{ "name": "main", "resources": { "limits": limits } }] },
        "status": { "phase": "Running" } });
    write(folder, "snapshot.json", &json!({ "kind": "List", "items": [node, cpu, pod] }).to_string())
}

fn pod(folder: &Path, core: &str, memory: &str) -> String {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: new\nspec:\n  containers:\n    - name: main\n      resources:\n        limits:\n          \
         inspur.com/vcuda-core: {core}\n          inspur.com/vcuda-memory: {memory}\n"
    );
    write(folder, "pod.yaml", &text)
}

#[test]
fn inspect_shows_what_is_held_of_each_card() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let table = kerf(&["inspect", &snapshot]);
    assert!(table.status.success());
    let text = stdout(&table);
    let second = text.lines().find(|line| line.contains("ns/p")).unwrap();
    assert!(second.contains("60 %") && second.contains("2560 of 15360"), "{text}");
    let shown: Value = serde_json::from_str(&stdout(&kerf(&["inspect", "--json", &snapshot]))).unwrap();
    assert_eq!(shown["nodes"]["a"]["gpus"][1]["used_compute"], 600);
    assert_eq!(shown["nodes"]["cpu"]["gpus"], json!([]));
}

#[test]
fn plan_says_where_a_pod_goes_and_why_not_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let plan = |core: &str, memory: &str| {
        let pod = pod(folder.path(), core, memory);
        kerf(&["plan", &pod, "--cluster", &snapshot, "--json"])
    };
    let fits = plan("40", "10");
    assert_eq!(fits.status.code(), Some(0));
    let fits: Value = serde_json::from_str(&stdout(&fits)).unwrap();
    assert_eq!(fits["best"], json!({ "node": "a", "containers": { "main": ["GPU-1"] } }));
    assert_eq!(fits["unfit"], json!({ "cpu": "no GPU device" }));
    let full = plan("200", "1");
    assert_eq!(full.status.code(), Some(1));
    assert!(stdout(&full).contains("insufficient entirely free GPUs"));
    let wrong = plan("150", "1");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stdout(&wrong).contains("multiple of 100"));
}

#[test]
fn wrong_input_is_named_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let bad = write(folder.path(), "bad.json", "{");
    for (args, word) in [
        (vec!["inspect", "/nonexistent"], "/nonexistent"),
        (vec!["inspect", bad.as_str()], "bad.json: no JSON"),
        (vec!["plan", bad.as_str(), "--cluster", bad.as_str()], "bad.json"),
        (vec!["inspect", "--domain", "nonsense"], "--domain"),
        (vec!["dance"], "unrecognized subcommand"),
    ] {
        let output = kerf(&args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(word), "{text}");
    }
}
