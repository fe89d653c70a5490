//! The real `kerf` program on real files.

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
fn a_plan_without_nodes_is_json_where_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let rule = "container \"main\": vcuda-core must be 1..99 or a multiple of 100";
    let note = "the pod asks for no inspur.com/vcuda-core, inspur.com/vcuda-memory or GPU shares by count: it may go anywhere";
    for (core, status, refused, notes) in [
        ("150", 1, json!(rule), json!([])),
        ("0", 0, Value::Null, json!([note])),
        ("30", 0, Value::Null, json!([])),
    ] {
        let asked = pod(folder.path(), core, if core == "0" { "0" } else { "10" });
        let plan = kerf(&["plan", &asked, "--cluster", &snapshot, "--json"]);
        assert_eq!(plan.status.code(), Some(status), "{plan:?}");
        let plan: Value = serde_json::from_str(&stdout(&plan)).unwrap();
        assert_eq!((&plan["refused"], &plan["notes"]), (&refused, &notes), "{core}");
        assert_eq!(plan["best"].is_null(), core != "30", "{core}");
        assert_eq!(plan.as_object().unwrap().len(), 5, "{plan}");
    }
}

/// Nobody reads what cannot be written to standard error; the rest is done all the same.
#[test]
fn a_full_standard_error_changes_no_status() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let mut list: Value = serde_json::from_str(&std::fs::read_to_string(&snapshot).unwrap()).unwrap();
    let mut broken = list["items"][2].clone();
    broken["metadata"] = json!({ "name": "broken", "namespace": "ns" });
    broken["spec"]["containers"][0]["resources"]["limits"]["inspur.com/vcuda-core"] = "150".into();
    list["items"].as_array_mut().unwrap().push(broken);
    let noted = write(folder.path(), "noted.json", &list.to_string());
    let (asked, odd) = (pod(folder.path(), "60", "10"), write(folder.path(), "odd.yaml", "["));
    for (args, status) in [
        (&["inspect", &*snapshot][..], 0),
        (&["plan", &asked, "--cluster", &snapshot], 0),
        (&["plan", &odd, "--cluster", &snapshot], 2),
        (&["node-template", &noted, "--format=cluster-api"], 0),
        (&["replay", "--cluster", &noted], 0),
        (&["replay", "--cluster", "/nonexistent"], 2),
        (&["doctor", "--nonsense"], 2),
        (&["dance"], 2),
    ] {
        let run = |full: bool| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_kerf"));
            if full {
                command.stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
            }
            command.args(args).output().unwrap()
        };
        let (usual, full) = (run(false), run(true));
        assert_eq!(usual.status.code(), Some(status), "{args:?}: {usual:?}");
        assert_eq!((full.status.code(), full.stdout), (usual.status.code(), usual.stdout), "{args:?}");
        assert!(status == 0 || !usual.stderr.is_empty(), "{args:?}");
    }
}

/// As with `| head`: whoever reads has seen enough.
#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let (snapshot, asked) = (snapshot(folder.path()), pod(folder.path(), "60", "10"));
    for args in [
        &["inspect", &*snapshot][..],
        &["inspect", "--json", &snapshot],
        &["plan", &asked, "--cluster", &snapshot],
        &["plan", &asked, "--cluster", &snapshot, "--json"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Command::new(env!("CARGO_BIN_EXE_kerf")).args(args).stdout(writer).output().unwrap();
        assert!(ended.status.success(), "{args:?}: {ended:?}");
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ended = Command::new(env!("CARGO_BIN_EXE_kerf")).args(args).stdout(full).output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{args:?}: {ended:?}");
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(told.starts_with("error: standard output: "), "{told}");
    }
}

#[test]
fn of_two_replicas_the_one_in_use_is_shown_where_the_snapshot_has_the_lease() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let text = |path: &str| stdout(&kerf(&["inspect", path]));
    let json =
        |path: &str| -> Value { serde_json::from_str(&stdout(&kerf(&["inspect", "--json", path]))).unwrap() };
    assert!(!text(&snapshot).contains("scheduler in use"));
    assert_eq!(json(&snapshot)["schedulers"], Value::Null);
    let mut list: Value = serde_json::from_str(&std::fs::read_to_string(&snapshot).unwrap()).unwrap();
    let items = list["items"].as_array_mut().unwrap();
    for number in 0..2 {
        items.push(json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("kerf-scheduler-{number}"), "namespace": "kerf-system", "uid": number.to_string(),
                          "labels": { "app.kubernetes.io/name": "kerf-scheduler" } },
            "spec": { "nodeName": "cpu", "containers": [{ "name": "main" }] }, "status": { "phase": "Running" } }));
    }
    for (holder, shown, active, standby) in [
        (
            "kerf-scheduler-1_5f1e",
            "scheduler in use: kerf-scheduler-1; standby: kerf-scheduler-0\n",
            json!("kerf-scheduler-1"),
            json!(["kerf-scheduler-0"]),
        ),
        (
            "",
            "scheduler in use: nobody; standby: kerf-scheduler-0, kerf-scheduler-1\n",
            Value::Null,
            json!(["kerf-scheduler-0", "kerf-scheduler-1"]),
        ),
    ] {
        let mut list = list.clone();
        for (name, holder) in [("kerf-scheduler", holder), ("kube-scheduler", "another_1")] {
            list["items"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": { "name": name, "namespace": "kerf-system" }, "spec": { "holderIdentity": holder } }));
        }
        let path = write(folder.path(), "leases.json", &list.to_string());
        assert!(text(&path).contains(shown), "{}", text(&path));
        assert_eq!(json(&path)["schedulers"], json!({ "active": active, "standby": standby }));
    }
}

/// The extender does not read them either.
#[test]
fn managed_fields_hide_no_pod() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let mut list: Value = serde_json::from_str(&std::fs::read_to_string(&snapshot).unwrap()).unwrap();
    let deep = (0..200).fold(json!({}), |inner, _| json!({ "f:a": inner }));
    for fields in [json!({ "manager": "x", "time": "9999-12-31T23:59:59Z" }), json!({ "fieldsV1": deep })] {
        for item in [0, 2] {
            list["items"][item]["metadata"]["managedFields"] = json!([fields]);
        }
        let snapshot = write(folder.path(), "managed.json", &list.to_string());
        let inspected = kerf(&["inspect", "--json", &snapshot]);
        assert!(inspected.status.success(), "{inspected:?}");
        let shown: Value = serde_json::from_str(&stdout(&inspected)).unwrap();
        assert_eq!(shown["nodes"]["a"]["gpus"][1]["used_compute"], 600);
    }
}

#[test]
fn pods_that_run_are_counted_and_shown_whatever_is_wrong_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let mut list: Value = serde_json::from_str(&std::fs::read_to_string(&snapshot).unwrap()).unwrap();
    let asked = pod(folder.path(), "60", "10");
    for (annotations, core, used, note) in [
        (json!({ "inspur.com/gpu-policy": "x", "inspur.com/predicate-gpu-idx-0": "1" }), "60", [0, 600], None),
        (json!({ "inspur.com/gpu-policy": "x" }), "60", [600, 600], Some("counted by its amounts on every GPU")),
        (json!({}), "150", [1000, 1000], Some("counted by its amounts on every GPU")),
        (json!({}), "0.5", [1000, 1000], Some("every GPU counts as full")),
    ] {
        list["items"][2]["metadata"]["annotations"] = annotations;
        list["items"][2]["spec"]["containers"][0]["resources"]["limits"]["inspur.com/vcuda-core"] = core.into();
        let snapshot = write(folder.path(), "odd.json", &list.to_string());
        let shown: Value = serde_json::from_str(&stdout(&kerf(&["inspect", "--json", &snapshot]))).unwrap();
        let gpus = shown["nodes"]["a"]["gpus"].as_array().unwrap();
        assert_eq!(gpus.iter().map(|gpu| gpu["used_compute"].clone()).collect::<Vec<_>>(), used, "{core}");
        let table = stdout(&kerf(&["inspect", &snapshot]));
        let planned = kerf(&["plan", &asked, "--cluster", &snapshot, "--json"]);
        let plan: Value = serde_json::from_str(&stdout(&planned)).unwrap();
        assert_eq!(plan["best"].is_null(), used[0] > 400, "{core}: {plan}");
        let text = |value: &Value| value.to_string();
        for shown in [text(&shown["nodes"]["a"]["notes"]), table.clone(), text(&plan["notes"])] {
            match note {
                Some(note) => assert!(shown.contains("ns/p: ") && shown.contains(note), "{core}: {shown}"),
                None => assert!(!shown.contains("ns/p: "), "{shown}"),
            }
        }
        let rows = table.matches("ns/p (GPU unknown)").count();
        assert_eq!(rows, if note.is_some() { used.len() } else { 0 }, "{core}: {table}");
    }
}

#[test]
fn a_node_whose_inventory_is_missing_is_shown_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let mut list: Value = serde_json::from_str(&std::fs::read_to_string(snapshot(folder.path())).unwrap()).unwrap();
    list["items"][0]["metadata"]["annotations"] = json!({});
    list["items"][0]["status"] = json!({ "conditions": [{ "type": "KerfGPUsHealthy", "status": "True" }],
        "capacity": { "inspur.com/vcuda-core": "200" } });
    let snapshot = write(folder.path(), "lost.json", &list.to_string());
    let shown: Value = serde_json::from_str(&stdout(&kerf(&["inspect", "--json", &snapshot]))).unwrap();
    assert_eq!(shown["nodes"]["a"]["trouble"], "lost-inventory", "{shown}");
    assert_eq!(shown["nodes"]["cpu"]["trouble"], Value::Null);
    let table = stdout(&kerf(&["inspect", &snapshot]));
    assert!(table.contains("! GPU inventory of the node is missing: it takes no pod\n"), "{table}");
    assert!(table.contains("! ns/p: on GPUs that the node does not have: index-1\n"), "{table}");
}

/// Snapshots are written by hand, cleaned, or put together from several.
#[test]
fn pods_without_an_identity_of_their_own_are_counted_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut list: Value = serde_json::from_str(&std::fs::read_to_string(snapshot(folder.path())).unwrap()).unwrap();
    let asked = pod(folder.path(), "60", "10");
    let mut other = list["items"][2].clone();
    other["metadata"]["name"] = "q".into();
    other["metadata"]["annotations"]["inspur.com/predicate-gpu-idx-0"] = "0".into();
    list["items"].as_array_mut().unwrap().push(other);
    let twice = list["items"][3].clone();
    for uid in [Value::Null, "".into(), "u".into()] {
        for item in [2, 3] {
            list["items"][item]["metadata"]["uid"] = uid.clone();
        }
        let mut again = list.clone();
        let mut same = twice.clone();
        same["metadata"]["uid"] = uid.clone();
        again["items"].as_array_mut().unwrap().push(same);
        for list in [&list, &again] {
            let snapshot = write(folder.path(), "same.json", &list.to_string());
            let shown: Value = serde_json::from_str(&stdout(&kerf(&["inspect", "--json", &snapshot]))).unwrap();
            let gpus = shown["nodes"]["a"]["gpus"].as_array().unwrap();
            let used = gpus.iter().map(|gpu| gpu["used_compute"].clone()).collect::<Vec<_>>();
            assert_eq!(used, [600, 600], "{uid}");
            let planned = kerf(&["plan", &asked, "--cluster", &snapshot, "--json"]);
            let plan: Value = serde_json::from_str(&stdout(&planned)).unwrap();
            assert!(plan["best"].is_null(), "{uid}: {plan}");
        }
    }
    list["items"][2]["metadata"] = json!({ "namespace": "ns" });
    let nameless = kerf(&["inspect", &write(folder.path(), "nameless.json", &list.to_string())]);
    let said = String::from_utf8(nameless.stderr).unwrap();
    assert!(!nameless.status.success() && said.contains("Pod ns/: a pod without a name"), "{said}");
}

/// What the planner does not look at, it does not pass over in silence.
#[test]
fn what_only_kube_scheduler_looks_at_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut list: Value = serde_json::from_str(&std::fs::read_to_string(snapshot(folder.path())).unwrap()).unwrap();
    let limits = json!({ "inspur.com/vcuda-core": "60", "inspur.com/vcuda-memory": "10" });
    let asked = |more: Value| {
        let mut spec = json!({ "containers": [{ "name": "main", "resources": { "limits": limits } }] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "kind": "Pod", "metadata": { "name": "new" }, "spec": spec }).to_string()
    };
    let plan = |list: &Value, more: Value| {
        let snapshot = write(folder.path(), "asked.json", &list.to_string());
        let pod = write(folder.path(), "pod.json", &asked(more));
        let planned = kerf(&["plan", &pod, "--cluster", &snapshot, "--json"]);
        serde_json::from_str::<Value>(&stdout(&planned)).unwrap()
    };
    assert_eq!(plan(&list, json!({ "schedulerName": "kerf-scheduler" }))["notes"], json!([]));
    let affinity = json!({ "affinity": { "nodeAffinity": {}, "podAntiAffinity": {} }, "schedulerName": "volcano", "nodeName": "b" });
    let odd = plan(&list, affinity);
    assert_eq!(odd["best"]["node"], "a");
    let expected = [
        "not looked at, but by kube-scheduler: spec.affinity.nodeAffinity, spec.affinity.podAntiAffinity",
        "spec.schedulerName is volcano: this holds if that scheduler calls kerf's extender",
        "spec.nodeName is not looked at: a new pod that names its node is refused",
    ];
    assert_eq!(odd["notes"], json!(expected));
    // labels are known
    let selector = json!({ "nodeSelector": { "pool": "a100" } });
    let elsewhere = plan(&list, selector.clone());
    assert!(elsewhere["best"].is_null(), "{elsewhere}");
    assert_eq!(elsewhere["unfit"]["a"], "node does not have the labels of the pod's nodeSelector");
    list["items"][0]["metadata"]["labels"] = json!({ "pool": "a100" });
    assert_eq!(plan(&list, selector)["best"]["node"], "a");
    // nothing is held by pods that are not there
    list["items"].as_array_mut().unwrap().retain(|item| item["kind"] == "Node");
    let note =
        "the snapshot has no pods, so every GPU looks free: take it by kubectl get nodes,pods --all-namespaces";
    assert_eq!(plan(&list, json!({}))["notes"], json!([note]));
    let inspected = stdout(&kerf(&["inspect", &write(folder.path(), "asked.json", &list.to_string())]));
    assert!(inspected.contains(&format!("! {note}")), "{inspected}");
}

/// Nodes of one resource domain, asked for another.
#[test]
fn gpus_of_another_resource_domain_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let other = kerf(&["inspect", "--domain=tencent.com", &snapshot]);
    let note = "no GPUs under tencent.com; the nodes have inspur.com/gpu-inventory: see --domain";
    assert!(other.status.success() && stdout(&other).contains(note), "{}", stdout(&other));
    let shown: Value =
        serde_json::from_str(&stdout(&kerf(&["inspect", "--json", "--domain=tencent.com", &snapshot]))).unwrap();
    assert_eq!(shown["note"], note);
    let own = kerf(&["inspect", &snapshot]);
    assert!(!stdout(&own).contains("no GPUs"), "{}", stdout(&own));

    // by its capacity alone
    let node = json!({ "kind": "Node", "metadata": { "name": "a" }, "status": { "capacity": { "inspur.com/vcuda-core": "200" } } });
    let bare = write(folder.path(), "bare.json", &json!({ "items": [node] }).to_string());
    let other = stdout(&kerf(&["inspect", "--domain=tencent.com", &bare]));
    assert!(other.contains("the nodes have inspur.com/vcuda-core"), "{other}");

    // pods of the other domain hold cards of a node
    let mut list: Value = serde_json::from_str(&std::fs::read_to_string(&snapshot).unwrap()).unwrap();
    let inventory = list["items"][0]["metadata"]["annotations"]["inspur.com/gpu-inventory"].take();
    list["items"][0]["metadata"]["annotations"] = json!({ "tencent.com/gpu-inventory": inventory });
    let both = write(folder.path(), "both.json", &list.to_string());
    let held = stdout(&kerf(&["inspect", "--domain=tencent.com", &both]));
    assert!(
        held.contains("! pods of another resource domain hold GPUs of the node: it takes no pod until"),
        "{held}"
    );
    let asked = write(
        folder.path(),
        "asked.yaml",
        &std::fs::read_to_string(pod(folder.path(), "60", "10")).unwrap().replace("inspur.com", "tencent.com"),
    );
    let plan = kerf(&["plan", &asked, "--domain=tencent.com", "--cluster", &both]);
    assert!(
        !plan.status.success() && stdout(&plan).contains("a: pods of another resource domain"),
        "{}",
        stdout(&plan)
    );
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

/// Two cards of 60 units of memory, 40 of them free with 50 core on one, 20 with 60 core on the other: a pod of two
/// containers fits in whatever order they stand.
#[test]
fn plan_does_not_depend_on_the_order_of_containers() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let mut objects: Value = serde_json::from_str(&std::fs::read_to_string(&snapshot).unwrap()).unwrap();
    let pod = |uid: &str, card: &str, core: &str, memory: &str| {
        let limits = json!({ "inspur.com/vcuda-core": core, "inspur.com/vcuda-memory": memory });
        json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": uid, "namespace": "ns", "uid": uid, "annotations": { "inspur.com/predicate-gpu-idx-0": card } },
            "spec": { "nodeName": "a", "containers": [{ "name": "main", "resources": { "limits": limits } }] },
            "status": { "phase": "Running" } })
    };
    let items = objects["items"].as_array_mut().unwrap();
    items.truncate(1);
    items.extend([pod("x", "0", "50", "20"), pod("y", "1", "40", "40")]);
    let snapshot = write(folder.path(), "snapshot.json", &objects.to_string());
    let container = |name: &str, core: u32, memory: u32| {
        format!(
            "    - name: {name}\n      resources:\n        limits:\n          inspur.com/vcuda-core: {core}\n          \
             inspur.com/vcuda-memory: {memory}\n"
        )
    };
    let (small, large) = (container("small", 10, 10), container("large", 50, 40));
    for containers in [[&small, &large], [&large, &small]] {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: new\nspec:\n  containers:\n{}{}",
            containers[0], containers[1]
        );
        let pod = write(folder.path(), "pod.yaml", &text);
        let output = kerf(&["plan", &pod, "--cluster", &snapshot, "--json"]);
        let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let expected = json!({ "node": "a", "containers": { "small": ["GPU-1"], "large": ["GPU-0"] } });
        assert_eq!(found["best"], expected, "{found}");
    }
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
fn shares_by_count_are_shown_and_planned() {
    let folder = tempfile::tempdir().unwrap();
    let card = |index: u32| {
        json!({ "uuid": format!("GPU-{index}"), "index": index, "model": "Test", "memory_mib": 15360,
                "health": "healthy", "offers": { "deepomatic.com/shared-gpu": 4, "example.com/own": 2 } })
    };
    let inventory = json!({ "version": 1, "gpus": [card(0), card(1)] }).to_string();
    let node = json!({ "kind": "Node", "metadata": { "name": "a",
                       "annotations": { "inspur.com/gpu-inventory": inventory } } });
    let limits = json!({ "deepomatic.com/shared-gpu": "3" });
    let record = json!({ "version": 1, "node": "a", "time": 1, "containers": [
        { "name": "main", "kind": "app", "position": 0, "whole": false, "resource": "deepomatic.com/shared-gpu",
          "slices": [{ "gpu": "GPU-1", "index": 1, "compute": 750, "count": 3 }] }] });
    let pod = json!({ "kind": "Pod", "metadata": { "name": "p", "namespace": "ns", "uid": "u",
                      "annotations": { "inspur.com/gpu-placement": record.to_string() } },
        "spec": { "nodeName": "a", "containers": [{ "name": "main", "resources": { "limits": limits } }] },
        "status": { "phase": "Running" } });
    let snapshot = write(folder.path(), "c.json", &json!({ "items": [node, pod] }).to_string());
    let text = stdout(&kerf(&["inspect", &snapshot]));
    let second = text.lines().find(|line| line.contains("ns/p")).unwrap();
    let shown = "ns/p (deepomatic.com/shared-gpu: 1 of 4 free) (example.com/own: 0 of 2 free)";
    assert!(second.contains("75 %") && second.contains("15360 of 15360") && second.ends_with(shown), "{text}");
    let shown: Value = serde_json::from_str(&stdout(&kerf(&["inspect", "--json", &snapshot]))).unwrap();
    let shares = &shown["nodes"]["a"]["gpus"][1]["shares"];
    assert_eq!(shares["deepomatic.com/shared-gpu"], json!({ "per_gpu": 4, "free": 1 }));

    let new = |resource: &str, count: u32| {
        let limits = json!({ resource: count.to_string() });
        let pod = json!({ "kind": "Pod", "metadata": { "name": "new" },
                          "spec": { "containers": [{ "name": "main", "resources": { "limits": limits } }] } });
        write(folder.path(), "new.json", &pod.to_string())
    };
    let plan = kerf(&["plan", &new("deepomatic.com/shared-gpu", 5), "--cluster", &snapshot]);
    let main = "  main on GPU 0 (GPU-0): 4 x deepomatic.com/shared-gpu, 1 (GPU-1): 1 x deepomatic.com/shared-gpu\n";
    assert_eq!(stdout(&plan), format!("a: score 10\n{main}"));
    let own = new("example.com/own", 2);
    let unknown = kerf(&["plan", &own, "--cluster", &snapshot]);
    assert!(stdout(&unknown).contains("it may go anywhere"));
    let known =
        kerf(&["plan", &own, "--cluster", &snapshot, "--json", "--share-resources", "example.com/o*,a.b/own"]);
    let known: Value = serde_json::from_str(&stdout(&known)).unwrap();
    assert_eq!(known["best"], json!({ "node": "a", "containers": { "main": ["GPU-0", "GPU-0"] } }));
}

#[test]
fn plan_counts_the_cores_and_memory_of_nodes_that_say_what_they_have() {
    let folder = tempfile::tempdir().unwrap();
    let amounts = json!({ "inspur.com/vcuda-core": "100", "inspur.com/vcuda-memory": "60", "cpu": "4",
                          "memory": "8Gi", "pods": "110" });
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "small" },
                       "status": { "capacity": amounts, "allocatable": amounts } });
    let busy = json!({ "apiVersion": "v1", "kind": "Pod",
                       "metadata": { "name": "busy", "namespace": "ns", "uid": "u" },
                       "spec": { "nodeName": "small", "containers": [
                           { "name": "main", "resources": { "requests": { "cpu": "3500m" } } }] } });
    let snapshot = write(folder.path(), "c.json", &json!({ "items": [node, busy] }).to_string());
    let plan = |cpu: &str| {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: p }}\nspec:\n  containers:\n  - name: main\n    resources:\n      \
             limits: {{ inspur.com/vcuda-core: 100 }}\n      requests: {{ cpu: {cpu} }}\n"
        );
        kerf(&["plan", &write(folder.path(), "pod.yaml", &pod), "--cluster", &snapshot])
    };
    assert_eq!(plan("500m").status.code(), Some(0));
    let short = plan("501m");
    assert_eq!((short.status.code(), stdout(&short).as_str()), (Some(1), "small: Insufficient cpu\n"));
}

#[test]
fn wrong_input_is_named_with_its_file_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let bad = write(folder.path(), "bad.json", "{");
    let odd = "{ \"items\": [\n  {}\n] }";
    let odd = write(folder.path(), "odd.json", odd);
    let pod = "{ \"items\": [{ \"kind\": \"Node\" },\n { \"kind\": \"Pod\",\n  \"metadata\": { \"name\": \"p\" },\n  \"spec\": 7 }] }";
    let pod = write(folder.path(), "pod.json", pod);
    let yaml = write(folder.path(), "pod.yaml", "kind: Pod\nspec:\n  containers: 7\n");
    let two = write(folder.path(), "two.yaml", "kind: Pod\n---\nkind: Pod\n");
    let twice = write(folder.path(), "twice.yaml", "kind: Pod\nkind: Pod\n");
    let numbers = "1, ".repeat(300_000);
    let long = write(folder.path(), "long.yaml", &format!("kind: Pod\nspec: {{ x: [{numbers}] }}\n"));
    let fine = snapshot(folder.path());
    let empty = ["", "null", "{}", "kind: Pod\nspec: {}\n", "kind: Pod\nspec: {containers: []}\n"];
    for text in empty {
        let file = write(folder.path(), "empty.yaml", text);
        for args in [&["plan", &*file, "--cluster", &fine][..], &["plan", &file, "--cluster", &fine, "--json"]] {
            let output = kerf(args);
            assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{text:?}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(
                said.ends_with("empty.yaml: not a Pod: spec.containers is missing or empty\n"),
                "{text:?}: {said}"
            );
        }
    }
    for (args, word) in [
        (vec!["inspect", "/nonexistent"], "/nonexistent"),
        (vec!["inspect", bad.as_str()], "bad.json: line 1, column 1: not JSON"),
        (vec!["inspect", odd.as_str()], "odd.json: line 2: an object without a kind"),
        (vec!["inspect", pod.as_str()], "pod.json: line 4, column 11: Pod /p: invalid type: integer `7`"),
        (
            vec!["plan", yaml.as_str(), "--cluster", fine.as_str()],
            "pod.yaml: line 3, column 15: not a Pod: expected sequence",
        ),
        (
            vec!["plan", two.as_str(), "--cluster", fine.as_str()],
            "two.yaml: line 3, column 1: not a Pod: multiple YAML documents",
        ),
        (
            vec!["plan", twice.as_str(), "--cluster", fine.as_str()],
            "twice.yaml: line 2, column 1: not a Pod: duplicate mapping key: kind\n",
        ),
        (
            vec!["plan", long.as_str(), "--cluster", fine.as_str()],
            "not a Pod: larger or more deeply nested than a Pod may be\n",
        ),
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

/// A snapshot may come from anywhere, and a terminal obeys control characters.
#[test]
fn control_characters_of_names_are_shown_and_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let mut list: Value = serde_json::from_str(&std::fs::read_to_string(&snapshot).unwrap()).unwrap();
    let odd = "a\u{1b}[2J\r\n\u{9b}b";
    list["items"][0]["metadata"]["name"] = odd.into();
    list["items"][2]["metadata"]["name"] = odd.into();
    list["items"][2]["spec"]["nodeName"] = odd.into();
    let gpus = json!({ "version": 1, "gpus": [{ "uuid": "GPU-0", "index": 0, "model": odd, "memory_mib": 15360, "health": "healthy" }] });
    list["items"][0]["metadata"]["annotations"]["inspur.com/gpu-inventory"] = gpus.to_string().into();
    let snapshot = write(folder.path(), "odd.json", &list.to_string());
    let asked = pod(folder.path(), "60", "10");
    let broken = write(
        folder.path(),
        "broken.json",
        &json!({ "items": [{ "kind": "Pod", "metadata": { "name": odd }, "spec": 7 }] }).to_string(),
    );
    for (args, lines) in [
        (&["inspect", &*snapshot][..], 3),
        (&["inspect", &snapshot, "--json"], 0),
        (&["plan", &asked, "--cluster", &snapshot], 4),
        (&["plan", &asked, "--cluster", &snapshot, "--json"], 0),
        (&["inspect", &broken], 1),
    ] {
        let output = kerf(args);
        let text = stdout(&output) + &String::from_utf8(output.stderr).unwrap();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{args:?}: {text:?}");
        assert!(lines == 0 || text.lines().count() == lines, "{args:?}: {text}");
        assert!(text.contains(r"\u001b[2J") && text.contains(r"\u009b"), "{args:?}: {text}");
        if lines == 0 {
            serde_json::from_str::<Value>(&text).unwrap();
        }
    }
}

#[test]
fn doctor_is_the_plugins_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("kerf");
    // by a process of its own: a file that this one writes may be open in the children that other tests start meanwhile,
    // and what is open for writing cannot be executed
    let run = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-ec", script, "sh", env!("CARGO_BIN_EXE_kerf")]).current_dir(folder.path());
        assert!(shell.status().unwrap().success(), "{script}");
    };
    run("cp \"$1\" kerf");
    let doctor = |args: &[&str]| Command::new(&own).args(args).env("PATH", "").output().unwrap();
    let missing = doctor(&["doctor"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("kerf-plugin cannot be started"));
    run(r#"printf '#!/bin/sh\necho "$@"\nexit 3\n' >kerf-plugin; chmod +x kerf-plugin"#);
    for (args, handed_on) in [
        (&["doctor", "-profile=amd", "--json"][..], "doctor -profile=amd --json\n"),
        (&["doctor", "--json", "--domain", "a.b"], "doctor --domain a.b --json\n"),
        (&["--json", "doctor", "--domain=a.b", "--placed"], "doctor --domain a.b --json --placed\n"),
        (&["--domain", "a.b", "doctor", "-profile=amd"], "doctor --domain a.b -profile=amd\n"),
    ] {
        let output = doctor(args);
        assert_eq!((stdout(&output).as_str(), output.status.code()), (handed_on, Some(3)), "{args:?}");
    }
}
