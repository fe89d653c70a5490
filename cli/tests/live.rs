//! The real `kerf` program on a stand-in for the API server.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Output};

use kerf_testkit::api::{Action, ApiServer, Fault};
use serde_json::{Value, json};

struct World {
    api: ApiServer,
    folder: tempfile::TempDir,
}

impl World {
    /// A node with two GPUs, one of them half taken, and a pod that waits.
    async fn new() -> Self {
        let world = Self { api: ApiServer::start().await.unwrap(), folder: tempfile::tempdir().unwrap() };
        world.api.write_kubeconfig(world.folder.path().join("config")).unwrap();
        let gpus: Vec<Value> = (0..2)
            .map(|i| json!({ "uuid": format!("GPU-{i}"), "index": i, "model": "Test", "memory_mib": 15360, "health": "healthy" }))
            .collect();
        let inventory = json!({ "version": 1, "gpus": gpus }).to_string();
        world
            .api
            .create(
                "nodes",
                json!({ "metadata": { "name": "node-1", "annotations": { "inspur.com/gpu-inventory": inventory } },
                    "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }),
            )
            .unwrap();
        let mut holds = pod("team", "serves", 50, 30);
        holds["metadata"]["annotations"] =
            json!({ "inspur.com/predicate-gpu-idx-0": "1", "inspur.com/gpu-assigned": "true" });
        holds["spec"]["nodeName"] = "node-1".into();
        holds["status"] = json!({ "phase": "Running" });
        world.api.create("pods", holds).unwrap();
        world.api.create("pods", pod("default", "waits", 200, 120)).unwrap();
        world
    }

    /// kerf's plugin on the node, and what it says.
    fn with_plugin(self) -> Self {
        let pod = json!({ "metadata": { "name": "kerf-plugin-x", "namespace": "kerf-system",
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "kerf-plugin", "uid": "d", "controller": true }] },
            "spec": { "nodeName": "node-1", "containers": [{ "name": "plugin", "ports": [{ "name": "metrics", "containerPort": 9394 }] }] },
            "status": { "phase": "Running" } });
        self.api.create("pods", pod).unwrap();
        let labels = r#"container="main",gpu="GPU-1",index="1",namespace="team",pod="serves""#;
        let text = format!(
            "kerf_plugin_gpu_utilization_ratio{{gpu=\"GPU-1\",index=\"1\",model=\"Test\"}} 0.2\n\
             kerf_plugin_gpu_memory_used_bytes{{gpu=\"GPU-1\",index=\"1\",model=\"Test\"}} 7340032000\n\
             kerf_plugin_container_utilization_ratio{{{labels}}} 0.2\n\
             kerf_plugin_container_memory_used_bytes{{{labels}}} 7340032000\n"
        );
        self.api.answer_proxy("kerf-system", "kerf-plugin-x", 9394, "metrics", &text);
        self
    }

    async fn kerf(&self, args: &[&str]) -> Output {
        let (config, args) =
            (self.folder.path().join("config"), args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        // the stand-in runs on this thread
        tokio::task::spawn_blocking(move || kerf(&config, &args)).await.unwrap()
    }

    async fn text(&self, args: &[&str]) -> String {
        let output = self.kerf(args).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.text(args).await).unwrap()
    }

    /// What is told where it fails.
    async fn refused(&self, args: &[&str]) -> String {
        let output = self.kerf(args).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn kerf(config: &Path, args: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kerf"));
    command.env("KUBECONFIG", config).env_remove("KUBERNETES_SERVICE_HOST").args(args).output().unwrap()
}

fn pod(namespace: &str, name: &str, core: u32, memory: u32) -> Value {
    let limits =
        json!({ "inspur.com/vcuda-core": core.to_string(), "inspur.com/vcuda-memory": memory.to_string() });
    json!({ "metadata": { "name": name, "namespace": namespace },
        "spec": { "containers": [{ "name": "main", "resources": { "limits": limits } }] }, "status": { "phase": "Pending" } })
}

#[tokio::test]
async fn the_cluster_of_the_kubeconfig_is_shown() {
    let world = World::new().await.with_plugin();
    let gpus = world.text(&["get", "gpus"]).await;
    let second = gpus.lines().find(|line| line.contains("team/serves")).unwrap();
    let words: Vec<&str> = second.split_whitespace().collect();
    let expected = [
        "node-1",
        "1",
        "Test",
        "Ready",
        "50%",
        "20%",
        "7.5Gi/15Gi",
        "6.8Gi",
        "team/serves",
        "main",
        "50%",
        "7.5Gi",
    ];
    assert_eq!(words, expected, "{gpus}");
    assert!(gpus.contains("2 GPUs on 1 node; granted 0.5 of 2 GPUs and 7.5Gi of 30Gi"), "{gpus}");
    let nodes = world.text(&["get", "nodes", "-o", "wide"]).await;
    assert!(nodes.contains("node-1") && nodes.contains("0.5/2") && nodes.contains("0.2"), "{nodes}");
    let top = world.text(&["top"]).await;
    assert!(top.contains("node-1/1") && top.contains("20%/50%") && !top.contains('\u{1b}'), "{top}");
    let top = world.json(&["top", "pods", "-A", "--json"]).await;
    assert_eq!(top["pods"].as_array().unwrap().len(), 2, "{top}");
}

#[tokio::test]
async fn pods_are_those_of_a_namespace_or_of_a_gpu() {
    let world = World::new().await;
    let own = world.text(&["get", "pods"]).await;
    assert!(own.contains("waits") && !own.contains("serves"), "the context's namespace: {own}");
    assert!(own.contains("1 more in other namespaces: --all-namespaces"), "{own}");
    assert!(world.text(&["get", "pods", "-n", "team"]).await.contains("serves"));
    let all = world.text(&["get", "pods", "-A"]).await;
    assert!(all.contains("waits") && all.contains("serves") && all.contains("NAMESPACE"), "{all}");
    let on = world.json(&["get", "pods", "-A", "--node", "node-1", "--gpu", "1", "-o", "json"]).await;
    assert_eq!(on["pods"].as_array().unwrap().len(), 1, "{on}");
    let granted = &on["pods"][0]["containers"][0]["gpus"][0]["granted"];
    assert_eq!(
        (&on["pods"][0]["name"], granted),
        (&json!("serves"), &json!({ "compute": 500, "memory_mib": 7680 }))
    );
    let none = world.kerf(&["get", "pods", "-A", "--node", "node-1", "--gpu", "0"]).await;
    assert_eq!(none.status.code(), Some(1), "{none:?}");
    assert!(String::from_utf8(none.stderr).unwrap().contains("no pod holds such a GPU"));
    let yaml = world.text(&["get", "pods", "team/serves", "-o", "yaml"]).await;
    assert!(yaml.contains("name: serves"), "{yaml}");
    for (args, words) in [
        (&["get", "pods", "--node", "x"][..], "no node with GPUs is called \"x\": there is node-1"),
        (&["get", "gpus", "node-1/7"], "node node-1 has no GPU \"7\": it has 0, 1"),
        (&["get", "gpus", "GPU-9"], "no node has a GPU \"GPU-9\""),
        (&["get", "pods", "nobody"], "no pod \"nobody\" in namespace default asks for GPUs"),
        (&["explain", "pod", "serves"], "no pod \"serves\" in namespace default asks for"),
        (&["plan", "--without", "team/nobody"], "--without team/nobody: no pod team/nobody asks for GPUs"),
    ] {
        let said = world.refused(args).await;
        assert!(said.contains(words), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn who_uses_little_is_found_and_what_is_not_measured_is_said() {
    let world = World::new().await;
    let unknown = world.text(&["get", "pods", "-A", "--underused"]).await;
    assert!(unknown.contains("of 1 pod it is not known what they use"), "{unknown}");
    let why = "! what is used is not known (?) of node-1: no plugin of kerf runs there in namespace kerf-system";
    assert!(unknown.contains(why), "{unknown}");
    let world = world.with_plugin();
    let little = world.text(&["get", "pods", "-A", "--underused"]).await;
    assert!(little.contains("serves") && little.contains("20%"), "{little}");
    let enough = world.kerf(&["get", "pods", "-A", "--underused=40"]).await;
    assert!(enough.status.success() && !String::from_utf8_lossy(&enough.stdout).contains("serves"), "{enough:?}");
    world.api.inject(Fault::new("get", "pods/proxy", Action::Status(403)));
    let refused = world.text(&["get", "pods", "-A"]).await;
    assert!(
        refused.contains("no right to get pods/proxy in kerf's namespace, which its Role kerf-viewer gives"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_pod_that_waits_is_explained() {
    let world = World::new().await;
    let explained = world.text(&["explain", "pod", "waits"]).await;
    let lines: Vec<&str> = explained.lines().collect();
    assert_eq!(
        lines[0], "default/waits: it waits: the one node with GPUs has no room for 2 whole GPUs of one node",
        "{explained}"
    );
    assert_eq!(lines[1], "  what helps: it would fit on node-1 if team/serves went (50% and 7.5Gi)", "{explained}");
    assert_eq!(lines[2], "  or: 1 whole GPU of node-1 would fit now");
    assert_eq!(lines[3], "node-1: insufficient entirely free GPUs");
    assert_eq!(lines[4], "  GPU 0 has room: 100% and 15Gi free");
    assert_eq!(lines[5], "  GPU 1 is not entirely free; held by team/serves");
    let there = world.text(&["explain", "pod", "team/serves"]).await;
    let first = "team/serves: it is on node-1: main on GPU 1 (50% 7.5Gi, GPU-1); the node has given them to it\n";
    assert!(there.starts_with(first), "{there}");
    // what would fit if a pod went
    let now = world.kerf(&["plan"]).await;
    assert_eq!(now.status.code(), Some(1), "{now:?}");
    let without = world.text(&["plan", "--without", "team/serves"]).await;
    assert!(without.starts_with("node-1: score 10\n  main on GPU 0 (GPU-0), 1 (GPU-1)\n"), "{without}");
}

#[tokio::test]
async fn every_refusal_says_what_to_do() {
    let world = World::new().await;
    for (resource, code, words) in [
        ("nodes", 401, "does not accept these credentials (401 Unauthorized): log in again"),
        (
            "nodes",
            403,
            "no right to list nodes (injected fault 403): an administrator grants it by the ClusterRole kerf-viewer",
        ),
        ("pods", 403, "no right to list pods of all namespaces"),
        ("*", 403, "no right to list nodes, nor pods of all namespaces"),
        ("pods", 500, "list pods of all namespaces: 500 injected fault 500"),
    ] {
        let fault = world.api.inject(Fault::new("list", resource, Action::Status(code)));
        let said = world.refused(&["get", "gpus"]).await;
        assert!(said.contains(words), "{resource} {code}: {said}");
        fault.remove();
    }
    // the lease is not needed
    world.api.inject(Fault::new("list", "leases", Action::Status(403)));
    assert_eq!(world.json(&["get", "nodes", "-o", "json"]).await["schedulers"], Value::Null);
    let held = world.api.inject(Fault::new("list", "nodes", Action::Hold));
    let said = world.refused(&["get", "gpus", "--request-timeout=1s"]).await;
    assert!(said.contains("has not answered within 1 s"), "{said}");
    held.remove();

    let gone = world.folder.path().join("gone");
    let nobody = json!({ "apiVersion": "v1", "kind": "Config",
        "clusters": [{ "name": "c", "cluster": { "server": "http://127.0.0.1:1" } }], "users": [{ "name": "u", "user": {} }],
        "contexts": [{ "name": "a", "context": { "cluster": "c", "user": "u" } }, { "name": "b", "context": { "cluster": "c", "user": "u" } }] });
    let write = |name: &str, current: &str| {
        let mut config = nobody.clone();
        if !current.is_empty() {
            config["current-context"] = current.into();
        }
        let path = world.folder.path().join(name);
        std::fs::write(&path, config.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (without, with) = (write("without", ""), write("with", "a"));
    for (args, words) in [
        (
            vec!["--kubeconfig", gone.to_str().unwrap()],
            "name one with --kubeconfig or $KUBECONFIG, or read a snapshot with --file",
        ),
        (vec!["--kubeconfig", &without], "has no current context: choose one with --context (it has a, b)"),
        (
            vec!["--kubeconfig", &with, "--context", "c"],
            "has no context \"c\": choose one with --context (it has a, b)",
        ),
        (vec!["--kubeconfig", &with], "http://127.0.0.1:1 cannot be reached"),
        (vec!["--kubeconfig", &with, "--file", "x"], "cannot be used with"),
    ] {
        let said = world.refused(&[&["get", "gpus"], &args[..]].concat()).await;
        assert!(said.contains(words), "{args:?}: {said}");
    }
}

/// More than one page, and a list that is too old before its end.
#[tokio::test]
async fn long_lists_are_read_to_their_end() {
    let world = World::new().await;
    for number in 0..1201 {
        world.api.create("pods", pod("many", &format!("p-{number}"), 10, 1)).unwrap();
    }
    let all = world.json(&["get", "pods", "-A", "-o", "json"]).await;
    assert_eq!(all["pods"].as_array().unwrap().len(), 1203);
    let calls = world.api.requests();
    let lists = calls.get(&("list".to_owned(), "pods".to_owned())).copied();
    assert_eq!(lists, Some(3), "{calls:?}");
}

#[tokio::test]
async fn as_a_plugin_of_kubectl_it_has_its_name() {
    let world = World::new().await;
    let link = world.folder.path().join("kubectl-kerf");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kerf"), &link).unwrap();
    let help = Command::new(&link).args(["get", "--help"]).output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("Usage: kubectl kerf get"), "{help:?}");
    let wrong = Command::new(&link).arg("dance").output().unwrap();
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("Usage: kubectl kerf"), "{wrong:?}");
    let config = world.folder.path().join("config");
    let run = move || Command::new(&link).env("KUBECONFIG", config).args(["get", "gpus"]).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(output.status.success(), "{output:?}");
}
