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

/// Where a plan of one pod puts it: its node, and the GPUs of its containers. Null where it fits nowhere, or anywhere.
fn best(plan: &Value) -> Value {
    let mut placed = plan["plans"][0]["workloads"][0]["placements"][0].clone();
    placed.as_object_mut().map(|placed| placed.remove("pod"));
    placed
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
    for (core, status, refused) in [("150", 1, json!(rule)), ("0", 0, Value::Null), ("30", 0, Value::Null)] {
        let asked = pod(folder.path(), core, if core == "0" { "0" } else { "10" });
        let plan = kerf(&["plan", &asked, "--file", &snapshot, "--json"]);
        assert_eq!(plan.status.code(), Some(status), "{plan:?}");
        let plan: Value = serde_json::from_str(&stdout(&plan)).unwrap();
        let own = &plan["plans"][0]["workloads"][0];
        assert_eq!((&own["refused"], &plan["notes"]), (&refused, &json!([])), "{core}");
        assert_eq!(
            (best(&plan).is_null(), own["asks_for_gpus"] == json!(core != "0")),
            (core != "30", true),
            "{core}"
        );
        assert_eq!((plan.as_object().unwrap().len(), own.as_object().unwrap().len()), (2, 8), "{plan}");
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
        (&["get", "gpus", "--file", &*snapshot][..], 0),
        (&["plan", &asked, "--file", &snapshot], 0),
        (&["plan", &odd, "--file", &snapshot], 2),
        (&["node-template", "--file", &noted, "--format=cluster-api"], 0),
        (&["replay", "--file", &noted], 0),
        (&["replay", "--file", "/nonexistent"], 2),
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
        &["get", "gpus", "--file", &*snapshot][..],
        &["get", "gpus", "--json", "--file", &snapshot],
        &["get", "nodes", "--file", &snapshot],
        &["get", "pods", "-A", "-o=wide", "--file", &snapshot],
        &["top", "--file", &snapshot],
        &["explain", "pod", "ns/p", "--file", &snapshot],
        &["completion", "bash"],
        &["man"],
        &["plan", &asked, "--file", &snapshot],
        &["plan", &asked, "--file", &snapshot, "--json"],
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
    let text = |path: &str| stdout(&kerf(&["get", "nodes", "--file", path]));
    let json = |path: &str| -> Value {
        serde_json::from_str(&stdout(&kerf(&["get", "nodes", "--json", "--file", path]))).unwrap()
    };
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
        let inspected = kerf(&["get", "gpus", "--json", "--file", &snapshot]);
        assert!(inspected.status.success(), "{inspected:?}");
        let shown: Value = serde_json::from_str(&stdout(&inspected)).unwrap();
        assert_eq!(shown["nodes"][0]["gpus"][1]["granted"]["compute"], 600);
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
        let shown: Value =
            serde_json::from_str(&stdout(&kerf(&["get", "gpus", "--json", "--file", &snapshot]))).unwrap();
        let gpus = shown["nodes"][0]["gpus"].as_array().unwrap();
        assert_eq!(gpus.iter().map(|gpu| gpu["granted"]["compute"].clone()).collect::<Vec<_>>(), used, "{core}");
        let table = stdout(&kerf(&["get", "gpus", "--file", &snapshot]));
        let planned = kerf(&["plan", &asked, "--file", &snapshot, "--json"]);
        let plan: Value = serde_json::from_str(&stdout(&planned)).unwrap();
        assert_eq!(best(&plan).is_null(), used[0] > 400, "{core}: {plan}");
        let text = |value: &Value| value.to_string();
        for shown in [text(&shown["nodes"][0]["notes"]), table.clone(), text(&plan["notes"])] {
            match note {
                Some(note) => assert!(shown.contains("ns/p: ") && shown.contains(note), "{core}: {shown}"),
                None => assert!(!shown.contains("ns/p: "), "{shown}"),
            }
        }
        let rows = table.matches("(GPU unknown)").count();
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
    let shown: Value =
        serde_json::from_str(&stdout(&kerf(&["get", "gpus", "--json", "--file", &snapshot]))).unwrap();
    assert_eq!(shown["nodes"][0]["trouble"]["code"], "lost-inventory", "{shown}");
    assert_eq!(shown["nodes"].as_array().unwrap().len(), 1, "{shown}");
    let table = stdout(&kerf(&["get", "gpus", "--file", &snapshot]));
    assert!(table.contains("! a: GPU inventory of the node is missing: it takes no pod\n"), "{table}");
    assert!(table.contains("! a: ns/p: on GPUs that the node does not have: index-1\n"), "{table}");
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
            let shown: Value =
                serde_json::from_str(&stdout(&kerf(&["get", "gpus", "--json", "--file", &snapshot]))).unwrap();
            let gpus = shown["nodes"][0]["gpus"].as_array().unwrap();
            let used = gpus.iter().map(|gpu| gpu["granted"]["compute"].clone()).collect::<Vec<_>>();
            assert_eq!(used, [600, 600], "{uid}");
            let planned = kerf(&["plan", &asked, "--file", &snapshot, "--json"]);
            let plan: Value = serde_json::from_str(&stdout(&planned)).unwrap();
            assert!(best(&plan).is_null(), "{uid}: {plan}");
        }
    }
    list["items"][2]["metadata"] = json!({ "namespace": "ns" });
    let nameless = kerf(&["get", "gpus", "--file", &write(folder.path(), "nameless.json", &list.to_string())]);
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
        let planned = kerf(&["plan", &pod, "--file", &snapshot, "--json"]);
        serde_json::from_str::<Value>(&stdout(&planned)).unwrap()
    };
    assert_eq!(plan(&list, json!({ "schedulerName": "kerf-scheduler" }))["notes"], json!([]));
    let affinity = json!({ "affinity": { "nodeAffinity": {}, "podAntiAffinity": {} }, "schedulerName": "volcano", "nodeName": "b" });
    let odd = plan(&list, affinity);
    assert_eq!(best(&odd)["node"], "a");
    let expected = [
        "not looked at, but by kube-scheduler: spec.affinity.nodeAffinity, spec.affinity.podAntiAffinity",
        "spec.schedulerName is volcano: this holds if that scheduler calls kerf's extender",
        "spec.nodeName is not looked at: a new pod that names its node is refused",
    ];
    assert_eq!(odd["notes"], json!(expected));
    // labels are known
    let selector = json!({ "nodeSelector": { "pool": "a100" } });
    let elsewhere = plan(&list, selector.clone());
    assert!(best(&elsewhere).is_null(), "{elsewhere}");
    assert_eq!(
        elsewhere["plans"][0]["workloads"][0]["unfit"]["a"],
        "node does not have the labels of the pod's nodeSelector"
    );
    list["items"][0]["metadata"]["labels"] = json!({ "pool": "a100" });
    assert_eq!(best(&plan(&list, selector))["node"], "a");
    // nothing is held by pods that are not there
    list["items"].as_array_mut().unwrap().retain(|item| item["kind"] == "Node");
    let note =
        "the snapshot has no pods, so every GPU looks free: take it by kubectl get nodes,pods --all-namespaces";
    assert_eq!(plan(&list, json!({}))["notes"], json!([note]));
    let inspected =
        stdout(&kerf(&["get", "gpus", "--file", &write(folder.path(), "asked.json", &list.to_string())]));
    assert!(inspected.contains(&format!("! {note}")), "{inspected}");
}

/// Nodes of one resource domain, asked for another.
#[test]
fn gpus_of_another_resource_domain_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let other = kerf(&["get", "gpus", "--domain=tencent.com", "--file", &snapshot]);
    let note = "no GPUs under tencent.com; the nodes have inspur.com/gpu-inventory: see --domain";
    assert!(other.status.code() == Some(1) && stdout(&other).contains(note), "{}", stdout(&other));
    let shown: Value = serde_json::from_str(&stdout(&kerf(&[
        "get",
        "gpus",
        "--json",
        "--domain=tencent.com",
        "--file",
        &snapshot,
    ])))
    .unwrap();
    assert_eq!(shown["notes"], json!([note]));
    let own = kerf(&["get", "gpus", "--file", &snapshot]);
    assert!(!stdout(&own).contains("no GPUs"), "{}", stdout(&own));

    // by its capacity alone
    let node = json!({ "kind": "Node", "metadata": { "name": "a" }, "status": { "capacity": { "inspur.com/vcuda-core": "200" } } });
    let bare = write(folder.path(), "bare.json", &json!({ "items": [node] }).to_string());
    let other = stdout(&kerf(&["get", "gpus", "--domain=tencent.com", "--file", &bare]));
    assert!(other.contains("the nodes have inspur.com/vcuda-core"), "{other}");

    // pods of the other domain hold cards of a node
    let mut list: Value = serde_json::from_str(&std::fs::read_to_string(&snapshot).unwrap()).unwrap();
    let inventory = list["items"][0]["metadata"]["annotations"]["inspur.com/gpu-inventory"].take();
    list["items"][0]["metadata"]["annotations"] = json!({ "tencent.com/gpu-inventory": inventory });
    let both = write(folder.path(), "both.json", &list.to_string());
    let held = stdout(&kerf(&["get", "gpus", "--domain=tencent.com", "--file", &both]));
    assert!(
        held.contains("! a: pods of another resource domain hold GPUs of the node: it takes no pod until"),
        "{held}"
    );
    let asked = write(
        folder.path(),
        "asked.yaml",
        &std::fs::read_to_string(pod(folder.path(), "60", "10")).unwrap().replace("inspur.com", "tencent.com"),
    );
    let plan = kerf(&["plan", &asked, "--domain=tencent.com", "--file", &both]);
    assert!(
        !plan.status.success() && stdout(&plan).contains("a: pods of another resource domain"),
        "{}",
        stdout(&plan)
    );
}

#[test]
fn who_holds_how_much_of_each_gpu_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let table = kerf(&["get", "gpus", "--file", &snapshot]);
    assert!(table.status.success());
    let text = stdout(&table);
    let second = text.lines().find(|line| line.contains("ns/p")).unwrap();
    assert!(
        second.contains("60%") && second.contains("2.5Gi/15Gi") && second.ends_with("ns/p main 60% 2.5Gi"),
        "{text}"
    );
    let shown: Value =
        serde_json::from_str(&stdout(&kerf(&["get", "gpus", "--json", "--file", &snapshot]))).unwrap();
    assert_eq!(shown["nodes"][0]["gpus"][1]["granted"]["compute"], 600);
    assert_eq!(shown["nodes"].as_array().unwrap().len(), 1, "a node without GPUs is not among them: {shown}");
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
        let output = kerf(&["plan", &pod, "--file", &snapshot, "--json"]);
        let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let expected = json!({ "node": "a", "containers": { "small": ["GPU-1"], "large": ["GPU-0"] } });
        assert_eq!(best(&found), expected, "{found}");
    }
}

#[test]
fn plan_says_where_a_pod_goes_and_why_not_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let plan = |core: &str, memory: &str| {
        let pod = pod(folder.path(), core, memory);
        kerf(&["plan", &pod, "--file", &snapshot, "--json"])
    };
    let fits = plan("40", "10");
    assert_eq!(fits.status.code(), Some(0));
    let fits: Value = serde_json::from_str(&stdout(&fits)).unwrap();
    assert_eq!(best(&fits), json!({ "node": "a", "containers": { "main": ["GPU-1"] } }));
    assert_eq!(fits["plans"][0]["workloads"][0]["unfit"], json!({ "cpu": "no GPU device" }));
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
    let text = stdout(&kerf(&["get", "gpus", "--file", &snapshot]));
    let second = text.lines().find(|line| line.contains("ns/p")).unwrap();
    let shown = "ns/p main 3 x deepomatic.com/shared-gpu, (deepomatic.com/shared-gpu: 1 of 4 free), (example.com/own: 0 of 2 free)";
    assert!(second.contains("75%") && second.contains("15Gi/15Gi") && second.ends_with(shown), "{text}");
    let shown: Value =
        serde_json::from_str(&stdout(&kerf(&["get", "gpus", "--json", "--file", &snapshot]))).unwrap();
    let shares = &shown["nodes"][0]["gpus"][1]["offers"];
    assert_eq!(shares["deepomatic.com/shared-gpu"], json!({ "per_gpu": 4, "free": 1 }));

    let new = |resource: &str, count: u32| {
        let limits = json!({ resource: count.to_string() });
        let pod = json!({ "kind": "Pod", "metadata": { "name": "new" },
                          "spec": { "containers": [{ "name": "main", "resources": { "limits": limits } }] } });
        write(folder.path(), "new.json", &pod.to_string())
    };
    let plan = kerf(&["plan", &new("deepomatic.com/shared-gpu", 5), "--file", &snapshot]);
    let main = "  main on GPU 0 (GPU-0): 4 x deepomatic.com/shared-gpu, 1 (GPU-1): 1 x deepomatic.com/shared-gpu\n";
    assert_eq!(stdout(&plan), format!("a: score 10\n{main}"));
    let own = new("example.com/own", 2);
    let unknown = kerf(&["plan", &own, "--file", &snapshot]);
    assert!(stdout(&unknown).contains("asks for no GPU: it may go anywhere"));
    let known = kerf(&["plan", &own, "--file", &snapshot, "--json", "--share-resources", "example.com/o*,a.b/own"]);
    let known: Value = serde_json::from_str(&stdout(&known)).unwrap();
    assert_eq!(best(&known), json!({ "node": "a", "containers": { "main": ["GPU-0", "GPU-0"] } }));
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
        kerf(&["plan", &write(folder.path(), "pod.yaml", &pod), "--file", &snapshot])
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
    let two = write(folder.path(), "two.yaml", "kind: Service\n---\nkind: Pod\nspec: 7\n");
    let twice = write(folder.path(), "twice.yaml", "kind: Pod\nkind: Pod\n");
    let numbers = "1, ".repeat(300_000);
    let long = write(folder.path(), "long.yaml", &format!("kind: Pod\nspec: {{ x: [{numbers}] }}\n"));
    let fine = snapshot(folder.path());
    let kinds = "expected a Pod, Deployment, StatefulSet, ReplicaSet, ReplicationController, Job or CronJob";
    let missing = "not a Pod: spec.containers is missing or empty";
    let in_template = "not a Deployment: spec.template.spec.containers is missing or empty";
    for (text, end) in [
        ("", kinds),
        ("# nothing\n---\n", kinds),
        ("null", kinds),
        ("{}", kinds),
        ("kind: ConfigMap\n", kinds),
        ("kind: Pod\nspec: {}\n", missing),
        ("kind: Pod\nspec: {containers: []}\n", missing),
        ("kind: Deployment\nspec: {replicas: 2}\n", in_template),
        ("kind: DaemonSet\n", "plan its template as a Pod"),
    ] {
        let file = write(folder.path(), "empty.yaml", text);
        for args in [&["plan", &*file, "--file", &fine][..], &["plan", &file, "--file", &fine, "--json"]] {
            let output = kerf(args);
            assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{text:?}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains("empty.yaml: ") && said.ends_with(&format!("{end}\n")), "{text:?}: {said}");
        }
    }
    for (args, word) in [
        (vec!["get", "gpus", "--file", "/nonexistent"], "/nonexistent"),
        (vec!["get", "gpus", "--file", bad.as_str()], "bad.json: line 1, column 1: not JSON"),
        (vec!["get", "gpus", "--file", odd.as_str()], "odd.json: line 2: an object without a kind"),
        (
            vec!["get", "gpus", "--file", pod.as_str()],
            "pod.json: line 4, column 11: Pod /p: invalid type: integer `7`",
        ),
        (
            vec!["plan", yaml.as_str(), "--file", fine.as_str()],
            "pod.yaml: line 3, column 15: not a Pod: expected sequence",
        ),
        (
            vec!["plan", two.as_str(), "--file", fine.as_str()],
            "two.yaml: line 4, column 7: not a Pod: expected mapping",
        ),
        (
            vec!["plan", twice.as_str(), "--file", fine.as_str()],
            "twice.yaml: line 2, column 1: not a workload: duplicate mapping key: kind\n",
        ),
        (
            vec!["plan", long.as_str(), "--file", fine.as_str()],
            "larger or more deeply nested than such an object may be\n",
        ),
        (vec!["plan", bad.as_str(), "--file", bad.as_str()], "bad.json"),
        (vec!["get", "gpus", "--domain", "nonsense"], "--domain"),
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
        (&["get", "gpus", "--file", &*snapshot][..], 5),
        (&["get", "gpus", "--file", &snapshot, "--json"], 0),
        (&["plan", &asked, "--file", &snapshot], 4),
        (&["plan", &asked, "--file", &snapshot, "--json"], 0),
        (&["get", "gpus", "--file", &broken], 1),
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

/// A script for each shell, and a page for each command.
#[test]
fn completions_and_the_manual_have_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&kerf(&["completion", shell]));
        assert!(
            ["explain", "node-template", "--underused"]
                .iter()
                .all(|word| script.contains(word.trim_start_matches('-'))),
            "{shell}"
        );
    }
    let bash = stdout(&kerf(&["completion", "bash"]));
    let checked = Command::new("bash").args(["-n", "-c", &bash]).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("man1");
    assert!(kerf(&["man", "--to", to.to_str().unwrap()]).status.success());
    for page in ["kerf", "kerf-get", "kerf-get-pods", "kerf-explain-pod", "kerf-plan", "kerf-top"] {
        let text = std::fs::read_to_string(to.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(".SH OPTIONS"), "{page}: {text}");
    }
    assert!(stdout(&kerf(&["man"])).contains(".TH kerf 1"));
}

/// A workload, and what it is planned onto the snapshot's two GPUs with.
fn plan(folder: &Path, workload: &str, args: &[&str]) -> (Option<i32>, String) {
    let file = write(folder, "workload.yaml", workload);
    let output = kerf(&[&["plan", &*file, "--file", &snapshot(folder)], args].concat());
    assert!(output.stderr.is_empty(), "{output:?}");
    (output.status.code(), stdout(&output))
}

const LIMITS: &str = "resources: {limits: {inspur.com/vcuda-core: 40, inspur.com/vcuda-memory: 10}}";

#[test]
fn workloads_are_planned_pod_by_pod() {
    let folder = tempfile::tempdir().unwrap();
    let template = format!("template: {{spec: {{containers: [{{name: main, {LIMITS}}}]}}}}");
    let of = |kind: &str, more: &str| {
        format!("kind: {kind}\nmetadata: {{name: w, namespace: team}}\nspec: {{{more}{template}}}\n")
    };
    // 100 % and 40 % are free
    for (workload, line, status) in [
        (of("Deployment", "replicas: 3, "), "Deployment team/w: all 3 pods fit", 0),
        (of("StatefulSet", "replicas: 4, "), "StatefulSet team/w: 3 of 4 pods fit", 1),
        (of("ReplicaSet", ""), "a: score 10", 0),
        (of("Job", "parallelism: 5, completions: 2, "), "Job team/w: all 2 pods fit", 0),
        (of("Job", "parallelism: 5, "), "Job team/w: 3 of 5 pods fit", 1),
        (of("Deployment", "replicas: 0, "), "Deployment team/w: all 0 pods fit", 0),
    ] {
        let (code, text) = plan(folder.path(), &workload, &[]);
        assert_eq!((code, text.lines().next()), (Some(status), Some(line)), "{text}");
    }
    let (_, text) = plan(folder.path(), &of("StatefulSet", "replicas: 4, "), &[]);
    assert!(text.contains("  w-0 on a: main on GPU ") && text.contains("  w-2 on a"), "{text}");
    assert!(text.contains("  not on a: insufficient vcuda-core on a single GPU"), "{text}");
    let cron = format!(
        "kind: CronJob\nmetadata: {{name: w}}\nspec: {{jobTemplate: {{spec: {{parallelism: 2, {template}}}}}}}\n"
    );
    assert!(plan(folder.path(), &cron, &[]).1.starts_with("CronJob w: all 2 pods fit"));
    // documents one after the other, and what makes no pods
    let both = of("Deployment", "replicas: 2, ")
        + "---\nkind: Service\nmetadata: {name: s}\n---\n"
        + &of("Job", "parallelism: 2, ");
    let (code, text) = plan(folder.path(), &both, &[]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("Deployment team/w: all 2 pods fit") && text.contains("Job team/w: 1 of 2 pods fit"),
        "{text}"
    );
    assert!(text.contains("Service: not looked at"), "{text}");
    // as kubectl get --output json prints several
    let deployment = json!({ "kind": "Deployment", "metadata": { "name": "d" }, "spec": { "replicas": 2, "template": { "spec": { "containers": [
        { "name": "main", "resources": { "limits": { "inspur.com/vcuda-core": "40", "inspur.com/vcuda-memory": "10" } } }] } } } });
    let list = json!({ "kind": "List", "items": [deployment] }).to_string();
    assert!(plan(folder.path(), &list, &[]).1.starts_with("Deployment d: all 2 pods fit"));
}

#[test]
fn policies_are_compared_side_by_side_and_pods_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    let pod = format!("kind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{{name: main, {LIMITS}}}]}}\n");
    let (code, text) = plan(folder.path(), &pod, &["--policy", "binpack,spread"]);
    assert_eq!(code, Some(0));
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let of = |policy: &str| rows.iter().find(|row| row[0] == policy).unwrap().clone();
    assert_eq!(of("binpack")[1..6], ["1", "of", "1", "1", "1"], "an empty GPU is left: {text}");
    assert_eq!(of("spread")[1..6], ["1", "of", "1", "1", "0"], "{text}");
    let plans: Value =
        serde_json::from_str(&plan(folder.path(), &pod, &["--policy=binpack,spread", "--json"]).1).unwrap();
    let gpu = |at: usize| plans["plans"][at]["workloads"][0]["placements"][0]["containers"]["main"][0].clone();
    assert_eq!((gpu(0), gpu(1)), (json!("GPU-1"), json!("GPU-0")), "{plans}");
    let two = pod.replace("vcuda-core: 40, inspur.com/vcuda-memory: 10", "vcuda-core: 200");
    assert_eq!(plan(folder.path(), &two, &[]).0, Some(1));
    assert_eq!(plan(folder.path(), &two, &["--without", "ns/p"]).0, Some(0));
}

/// Each reason has its help, the first of all that would help first.
#[test]
fn what_would_help_a_pod_that_waits_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut list: Value = serde_json::from_str(&std::fs::read_to_string(snapshot(folder.path())).unwrap()).unwrap();
    let node = list["items"][0].clone();
    let explained = |list: &mut Value, core: &str, node: &Value, more: Value| -> Value {
        let mut spec = json!({ "containers": [{ "name": "main", "resources": { "limits":
            { "inspur.com/vcuda-core": core, "inspur.com/vcuda-memory": if core == "200" { "0" } else { "10" } } } }] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        list["items"].as_array_mut().unwrap().truncate(3);
        list["items"][0] = node.clone();
        let pod = json!({ "kind": "Pod", "metadata": { "name": "w", "namespace": "ns", "uid": "w" }, "spec": spec, "status": { "phase": "Pending" } });
        list["items"].as_array_mut().unwrap().push(pod);
        let path = write(folder.path(), "waits.json", &list.to_string());
        serde_json::from_str(&stdout(&kerf(&["explain", "pod", "ns/w", "--file", &path, "-o", "json"]))).unwrap()
    };
    let with = |change: &dyn Fn(&mut Value)| {
        let mut node = node.clone();
        change(&mut node);
        node
    };
    let cordoned = with(&|node| node["metadata"]["annotations"]["inspur.com/gpu-cordon"] = "0".into());
    let closed = with(&|node| node["spec"]["unschedulable"] = true.into());
    let tainted = with(&|node| node["spec"]["taints"] = json!([{ "key": "gpu", "effect": "NoSchedule" }]));
    let ill = with(&|node| {
        let inventory = node["metadata"]["annotations"]["inspur.com/gpu-inventory"].as_str().unwrap().replacen(
            "healthy",
            "unhealthy",
            1,
        );
        node["metadata"]["annotations"]["inspur.com/gpu-inventory"] = inventory.into();
    });
    for (core, node, more, summary, help) in [
        ("80", &node, json!({}), "it fits on a now", "wait a moment"),
        (
            "200",
            &node,
            json!({}),
            "it waits: the one node with GPUs has no room",
            "it would fit on a if ns/p went (60% and 2.5Gi)",
        ),
        (
            "80",
            &cordoned,
            json!({}),
            "it waits",
            "if GPU 0 were not cordoned: kubectl annotate node a inspur.com/gpu-cordon-",
        ),
        ("80", &ill, json!({}), "it waits", "it would fit on a if GPU 0 were healthy again"),
        ("80", &closed, json!({}), "it waits", "its GPUs would fit on a: the node is cordoned: kubectl uncordon a"),
        ("80", &tainted, json!({}), "it waits", "give the pod a toleration for it"),
        ("80", &node, json!({ "nodeSelector": { "pool": "x" } }), "it waits", "drop or change its nodeSelector"),
        (
            "80",
            &node,
            json!({ "schedulingGates": [{ "name": "queue" }] }),
            "it waits for its scheduling gates",
            "whoever set queue must remove it",
        ),
        ("150", &node, json!({}), "it is refused everywhere", "change its request"),
        ("300", &node, json!({}), "it waits", "no node of the cluster could take it even if it were empty"),
    ] {
        let said = explained(&mut list, core, node, more);
        assert!(said["summary"].as_str().unwrap().starts_with(summary), "{core}: {said}");
        assert!(said["help"][0].as_str().unwrap().contains(help), "{core}, {help}: {said}");
    }
    let said = explained(&mut list, "200", &node, json!({}));
    assert_eq!(said["nodes"][0]["gpus"][1]["text"], "is not entirely free; held by ns/p", "{said}");
}
