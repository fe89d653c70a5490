//! The real `kerf replay` on real files.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn replay(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kerf")).arg("replay").args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Twelve machines, and 80 pods in the columns of the trace.
fn trace(folder: &Path) -> (String, String) {
    let nodes: String = (0..12).map(|n| format!("node-{n:02},96000,393216,8,G2\n")).collect();
    let pod = |n: usize| {
        let (cards, milli) = [(0, 0), (1, 1000), (1, 810), (1, 320), (1, 650), (2, 1000), (1, 470)][n % 7];
        format!("pod-{n:03},{},8192,{cards},{milli},,LS,Running,{n},{}.0,{n}\n", 1000 * (1 + n % 4), n + 30)
    };
    let pods: String = (0..80).map(pod).collect();
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let head = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time";
    (
        write("nodes.csv", format!("sn,cpu_milli,memory_mib,gpu,model\n{nodes}")),
        write("pods.csv", format!("{head}\n{pods}")),
    )
}

#[test]
fn a_trace_is_replayed_the_same_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let (nodes, pods) = trace(folder.path());
    let run = |threads: &str| {
        let log = folder.path().join(threads);
        let plot = folder.path().join(format!("{threads}.svg"));
        let text = stdout(&replay(&[
            "--nodes",
            &nodes,
            "--pods",
            &pods,
            "--seeds",
            "1-3",
            "--threads",
            threads,
            "--policy",
            "binpack,spread,best-fit,fgd,fragmentation",
            "--log",
            log.to_str().unwrap(),
            "--plot",
            plot.to_str().unwrap(),
        ]));
        let mut logs: Vec<(String, String)> = std::fs::read_dir(&log)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap()))
            .collect();
        logs.sort();
        (text, logs, std::fs::read_to_string(plot).unwrap())
    };
    let (text, logs, plot) = run("1");
    assert_eq!(run("4"), (text.clone(), logs.clone(), plot.clone()));
    assert_eq!(logs.len(), 15);
    let (name, log) = &logs[0];
    assert_eq!(name, "best-fit-1.csv");
    assert!(log.starts_with("seq,pod,node,gpu_indexes,gpu_milli_each,cpu_milli,mem_mib\n0,"), "{log}");
    assert!(plot.starts_with("<svg") && plot.contains(">fragmentation</text>"));
    assert!(text.contains("mean of 3 run(s)") && text.contains("\nfragmentation "), "{text}");
}

#[test]
fn pods_come_and_go_when_the_trace_says_or_at_random() {
    let folder = tempfile::tempdir().unwrap();
    let (nodes, pods) = trace(folder.path());
    for more in
        [["--departures", "--policy=fragmentation", "--json"].as_slice(), &["--seeds=1", "--load=1", "--json"]]
    {
        let args = [["--nodes", &nodes, "--pods", &pods].as_slice(), more].concat();
        let shown: Value = serde_json::from_str(&stdout(&replay(&args))).unwrap();
        let run = &shown["policies"]["fragmentation"][0];
        assert!(run["unallocated_over_time"].as_f64().is_some_and(|part| (0.0..=100.0).contains(&part)), "{shown}");
        assert!(run["lost_demand"].is_number());
    }
}

#[test]
fn a_snapshot_of_a_cluster_is_replayed_from_empty() {
    let folder = tempfile::tempdir().unwrap();
    let node = |name: &str| {
        let capacity = json!({ "inspur.com/vcuda-core": "200", "inspur.com/vcuda-memory": "120" });
        let allocatable = json!({ "cpu": "16", "memory": "64Gi", "pods": "110" });
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
            "status": { "capacity": capacity, "allocatable": allocatable } })
    };
    let pod = |number: usize| {
        let limits = json!({ "inspur.com/vcuda-core": "60", "inspur.com/vcuda-memory": "10" });
        let resources = json!({ "limits": limits, "requests": { "cpu": "500m", "memory": "1Gi" } });
        json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("p{number}"), "namespace": "ns", "uid": format!("u{number}"),
                "creationTimestamp": format!("2026-01-01T00:00:0{number}Z") },
            "spec": { "containers": [{ "name": "main", "resources": resources }] }, "status": { "phase": "Running" } })
    };
    let items: Vec<Value> = [node("a"), node("b")].into_iter().chain((0..5).map(pod)).collect();
    let path = folder.path().join("cluster.json");
    std::fs::write(&path, json!({ "kind": "List", "items": items }).to_string()).unwrap();
    let shown = stdout(&replay(&["--file", path.to_str().unwrap(), "--policy", "fragmentation", "--json"]));
    let run: Value = serde_json::from_str(&shown).unwrap();
    let run = &run["policies"]["fragmentation"][0];
    assert_eq!(
        (&run["pods"], &run["failed"]["share"]),
        (&json!(5), &json!(1)),
        "four cards take four shares of 60 %"
    );
    assert_eq!((&run["asked"], &run["unallocated"]), (&json!(75.0), &json!(40.0)));
}

#[test]
fn pods_without_cards_count_where_they_take_cores_from_those_with_cards() {
    let folder = tempfile::tempdir().unwrap();
    let node = |name: &str, cards: u64| {
        let amounts = json!({ "inspur.com/vcuda-core": (100 * cards).to_string(), "cpu": "4", "memory": "64Gi",
                              "inspur.com/vcuda-memory": (60 * cards).to_string(), "pods": "110" });
        json!({ "kind": "Node", "metadata": { "name": name }, "status": { "capacity": amounts, "allocatable": amounts } })
    };
    let pod = |name: &str, node: &str, owner: &str, limits: Value, cpu: &str| {
        let owner = json!({ "apiVersion": "v1", "kind": owner, "name": "o", "uid": "o", "controller": true });
        let resources = json!({ "limits": limits, "requests": { "cpu": cpu } });
        json!({ "kind": "Pod", "metadata": { "name": name, "namespace": "ns", "uid": name, "ownerReferences": [owner] },
                "spec": { "nodeName": node, "containers": [{ "name": "main", "resources": resources }] } })
    };
    let card = json!({ "inspur.com/vcuda-core": "100" });
    let items = vec![
        node("gpus", 2),
        node("plain", 0),
        pod("agent", "gpus", "DaemonSet", json!({}), "1"),
        pod("batch", "gpus", "ReplicaSet", json!({}), "1"),
        pod("web", "plain", "ReplicaSet", json!({}), "3"),
        pod("refused", "gpus", "ReplicaSet", json!({ "inspur.com/vcuda-core": "150" }), "1"),
        pod("small", "gpus", "Job", card.clone(), "1500m"),
        pod("large", "gpus", "Job", card, "2"),
    ];
    let path = folder.path().join("cluster.json");
    std::fs::write(&path, json!({ "items": items }).to_string()).unwrap();
    let output = replay(&[
        "--file",
        path.to_str().unwrap(),
        "--policy",
        "binpack",
        "--log",
        folder.path().to_str().unwrap(),
    ]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Pod ns/refused: left out, as kerf refuses it: container"), "{said}");
    let log = std::fs::read_to_string(folder.path().join("binpack-in-order.csv")).unwrap();
    let rows: Vec<&str> = log.lines().skip(1).collect();
    // 4 cores less the agent's and the batch pod's: enough for one of the two
    let expected = ["0,ns/batch,gpus,,0,1000,0", "1,ns/large,gpus,0,1000,2000,0", "2,ns/small,,,1000,1500,0"];
    assert_eq!(rows, expected);
}

#[test]
fn averages_over_time_begin_with_the_first_pod() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let nodes = write("nodes.csv", "sn,cpu_milli,memory_mib,gpu,model\na,1000,1000,1,x\n");
    let head = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,creation_time,deletion_time";
    let pods = format!("{head}\np,1,1,1,1000,1700000000,1700000010\nq,1,1,1,500,1700000010,1700000020\n");
    let pods = write("pods.csv", &pods);
    let shown = stdout(&replay(&["--nodes", &nodes, "--pods", &pods, "--departures", "--policy=spread", "--json"]));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["policies"]["spread"][0]["unallocated_over_time"], json!(25.0));
}

/// A process with this much address space has no room for the stacks of a thousand threads.
#[test]
fn there_are_no_more_threads_than_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (nodes, pods) = trace(folder.path());
    for (threads, of_rayon) in [("--threads=1024", "1"), ("--json", "1024")] {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -v 1000000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_kerf"), "replay"]);
        shell.args(["--nodes", &nodes, "--pods", &pods, "--policy", "binpack", threads]);
        stdout(&shell.env("RAYON_NUM_THREADS", of_rayon).output().unwrap());
    }
}

#[test]
fn of_several_runs_that_fail_the_first_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (nodes, pods) = trace(folder.path());
    let logs = folder.path().join("logs");
    // a folder stands where the log of a run is to be written
    for seed in 2..=40 {
        std::fs::create_dir_all(logs.join(format!("binpack-{seed}.csv"))).unwrap();
    }
    let logs = logs.to_str().unwrap();
    for _ in 0..5 {
        let output = replay(&[
            "--nodes",
            &nodes,
            "--pods",
            &pods,
            "--policy",
            "binpack",
            "--seeds",
            "1-40",
            "--threads",
            "8",
            "--log",
            logs,
        ]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("binpack-2.csv"), "{said}");
    }
}

#[test]
fn what_would_take_for_ever_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (nodes, pods) = trace(folder.path());
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let head = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,count";
    let many = write("many.csv", &format!("{head}\na,1,1,1,500,1099511627776\n"));
    let sum = write("sum.csv", &format!("{head}\na,1,1,1,500,9999999\nb,1,1,1,500,2\n"));
    let small = write("small.csv", "name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,1,1\n");
    let large = write("large.csv", &format!("sn,cpu_milli,memory_mib,gpu,model\n{}", "a,1,1,64,x\n".repeat(200)));
    let many_pods = ["--nodes", &nodes, "--pods", &many];
    let sum_of_pods = ["--nodes", &nodes, "--pods", &sum];
    let usual = ["--nodes", &nodes, "--pods", &pods];
    let tiny = ["--nodes", &large, "--pods", &small];
    let cases: [(&[&str; 4], &[&str], &str); 11] = [
        (
            &many_pods,
            &[],
            "many.csv: line 2, column count: \"1099511627776\" is not a whole number from 1 to 10000000",
        ),
        (&sum_of_pods, &[], "sum.csv: line 3, column count: more than 10000000 pods"),
        (&usual, &["--seeds=1", "--load=1", "--stays=inf"], "--stays is not above 0 and at most 10000"),
        (&usual, &["--seeds=1", "--load=1", "--stays=1e300"], "--stays is not above 0 and at most 10000"),
        (&usual, &["--seeds=1", "--load=1", "--stays=nan"], "--stays is not above 0 and at most 10000"),
        (
            &usual,
            &["--seeds=1", "--load=1", "--warm-up=nan"],
            "--warm-up is not at least 0 and shorter than --stays",
        ),
        (
            &usual,
            &["--seeds=1", "--load=1", "--warm-up=-inf"],
            "--warm-up is not at least 0 and shorter than --stays",
        ),
        (&usual, &["--seeds=0-9998,10000-10001"], "more than 10000 seeds"),
        (&usual, &["--seeds=0-18446744073709551615"], "more than 10000 seeds"),
        (&tiny, &["--seeds=1", "--load=100"], "more than 10000000 pods would be drawn"),
        (&tiny, &["--seeds=1", "--demand=1000"], "more than 10000000 pods would be drawn"),
    ];
    for (files, flags, words) in cases {
        // what is not refused ends by a signal soon, and not for want of memory
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -t 5 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_kerf"), "replay"]);
        shell.args(["--policy=binpack"]).args(files).args(flags);
        let output = shell.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn wrong_input_is_named_with_file_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let (nodes, pods) = trace(folder.path());
    let write = |text: &str| {
        let path = folder.path().join("bad.csv");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let head = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n";
    for (text, words) in [
        (
            format!("{head}a,1,1,1,500\nb,x,1,1,500\n"),
            "bad.csv: line 3, column cpu_milli: \"x\" is not a whole number",
        ),
        (
            format!("{head}a,1,1,99,1000\n"),
            "bad.csv: line 2, column num_gpu: \"99\" is not a whole number from 0 to 64",
        ),
        (format!("{head}a,1,1,2,500\n"), "bad.csv: line 2, column gpu_milli: a part of each of several GPUs"),
        (format!("{head}a,1,1\n"), "bad.csv: line 2: 3 columns, but the first line has 5"),
        ("name,cpu_milli\na,1\n".to_owned(), "bad.csv: line 2, column num_gpu: there is no such column"),
        (head.to_owned(), "bad.csv: no pod"),
    ] {
        let output = replay(&["--nodes", &nodes, "--pods", &write(&text)]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
    for (args, word) in [
        (vec!["--pods", pods.as_str()], "--nodes"),
        (vec!["--nodes", nodes.as_str(), "--pods", pods.as_str(), "--policy", "best"], "unknown policy"),
        (vec!["--nodes", nodes.as_str(), "--pods", "/nonexistent.csv"], "/nonexistent.csv"),
        (vec!["--nodes", nodes.as_str(), "--pods", pods.as_str(), "--seeds", "9-1"], "no range of seeds"),
    ] {
        let output = replay(&args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(word), "{said}");
    }
}
