//! `kerf-plugin prune`: nothing of kerf's is left on any Node, and everything else is.

use clap::Parser as _;
use kerf_plugin::prune;
use kerf_testkit::api::{Action, ApiServer, Fault};
use serde_json::{Value, json};

/// More than a page of the list has.
const NODES: usize = 120;

/// A Node as kerf's plugin and the policy for reserved nodes left it, among what others wrote.
fn left(name: &str) -> Value {
    json!({
        "metadata": {
            "name": name,
            "labels": { "kubernetes.io/hostname": name, "nvidia.com/gpu.count": "4" },
            "annotations": {
                "inspur.com/gpu-inventory": "{}",
                "inspur.com/gpu-labels-vcuda": "nvidia.com/gpu.count",
                "example.com/a": "b",
            },
        },
        "spec": { "taints": [
            { "key": "inspur.com/vcuda-core", "effect": "NoSchedule" },
            { "key": "example.com/t", "effect": "NoSchedule" },
        ] },
        "status": { "conditions": [
            { "type": "Ready", "status": "True" },
            { "type": "KerfGPUsHealthy", "status": "True" },
            { "type": "KerfAllocationsSucceed", "status": "False" },
        ] },
    })
}

/// What is to be left of it.
fn cleaned(name: &str) -> [Value; 4] {
    [
        json!({ "kubernetes.io/hostname": name }),
        json!({ "inspur.com/gpu-inventory": "{}", "example.com/a": "b" }),
        json!([{ "key": "example.com/t", "effect": "NoSchedule" }]),
        json!([{ "type": "Ready", "status": "True" }]),
    ]
}

fn shown(node: &Value) -> [Value; 4] {
    ["/metadata/labels", "/metadata/annotations", "/spec/taints", "/status/conditions"]
        .map(|path| node.pointer(path).cloned().unwrap_or_default())
}

struct Cluster {
    api: ApiServer,
    folder: tempfile::TempDir,
}

impl Cluster {
    async fn new(nodes: usize) -> Self {
        let cluster = Self { api: ApiServer::start().await.unwrap(), folder: tempfile::tempdir().unwrap() };
        cluster.api.write_kubeconfig(cluster.folder.path().join("kubeconfig")).unwrap();
        for number in 0..nodes {
            cluster.api.create("nodes", left(&format!("n{number}"))).unwrap();
        }
        for name in ["kerf-scheduler", "kube-scheduler"] {
            cluster
                .api
                .create("leases", json!({ "metadata": { "name": name, "namespace": "kerf-system" } }))
                .unwrap();
        }
        cluster
    }

    async fn prune(&self, flags: &[&str]) -> Result<(), String> {
        let kubeconfig = self.folder.path().join("kubeconfig").display().to_string();
        let words = ["kerf-plugin prune", "--kubeconfig", &kubeconfig];
        let args = prune::Args::parse_from(words.iter().chain(flags));
        prune::run(&args).await.map_err(|error| format!("{error:#}"))
    }

    fn lease(&self, name: &str) -> bool {
        self.api.get("leases", "kerf-system", name).is_ok()
    }
}

#[tokio::test]
async fn nothing_is_left_on_any_node_and_a_second_time_nothing_is_written() {
    let cluster = Cluster::new(NODES).await;
    let flags = ["--taint", "--lease=kerf-system/kerf-scheduler"];
    cluster.prune(&flags).await.unwrap();
    for number in 0..NODES {
        let name = format!("n{number}");
        assert_eq!(shown(&cluster.api.get("nodes", "", &name).unwrap()), cleaned(&name));
    }
    assert!(!cluster.lease("kerf-scheduler") && cluster.lease("kube-scheduler"));
    let written = cluster.api.write_log().len();
    cluster.prune(&flags[..1]).await.unwrap();
    assert_eq!(cluster.api.write_log().len(), written);
}

#[tokio::test]
async fn without_being_told_so_it_leaves_taints_and_leases() {
    let cluster = Cluster::new(1).await;
    cluster.prune(&[]).await.unwrap();
    let node = cluster.api.get("nodes", "", "n0").unwrap();
    assert_eq!(node["spec"]["taints"], left("n0")["spec"]["taints"]);
    assert_eq!(node["status"]["conditions"], cleaned("n0")[3]);
    assert!(cluster.lease("kerf-scheduler"));
    // of another domain nothing is known
    let other = Cluster::new(1).await;
    other.prune(&["--domain=example.org", "--taint"]).await.unwrap();
    let node = other.api.get("nodes", "", "n0").unwrap();
    assert_eq!(shown(&node)[..3], shown(&left("n0"))[..3]);
}

#[tokio::test]
async fn a_node_that_cannot_be_cleaned_is_named_and_the_others_are_clean() {
    let cluster = Cluster::new(3).await;
    // somebody else writes at the same time; a Node is deleted; a right is missing
    cluster.api.inject(Fault::new("patch", "nodes", Action::Status(409)).named("n0").times(2));
    cluster.api.inject(Fault::new("patch", "nodes/status", Action::Status(404)).named("n1"));
    cluster.api.inject(Fault::new("get", "nodes", Action::Status(404)).named("n1"));
    cluster.api.inject(Fault::new("patch", "nodes/status", Action::Status(403)).named("n2"));
    let error = cluster.prune(&["--taint", "--lease=kerf-system/kerf-scheduler"]).await.unwrap_err();
    assert!(error.contains("n2: ") && !error.contains("n0") && !error.contains("n1"), "{error}");
    assert_eq!(shown(&cluster.api.get("nodes", "", "n0").unwrap()), cleaned("n0"));
    assert!(!cluster.lease("kerf-scheduler"));
}
