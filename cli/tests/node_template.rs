//! `kerf node-template`: what it prints is read back as the autoscalers read it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const TAG: &str = "k8s.io/cluster-autoscaler/node-template";
const ANNOTATION: &str = "capacity.cluster-autoscaler.kubernetes.io";

fn kerf(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kerf")).args(["node-template", "--file"]).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn write(folder: &Path, name: &str, value: &Value) -> String {
    let path = folder.join(name);
    std::fs::write(&path, value.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn gpu(index: u32, memory_mib: u64, health: &str, offers: &Value) -> Value {
    json!({ "uuid": format!("GPU-{index}"), "index": index, "model": "Test", "memory_mib": memory_mib, "health": health,
            "offers": offers })
}

/// Two GPUs, one of them unhealthy and one cordoned; labels and taints of all kinds.
fn node(name: &str, gpus: &[Value]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "node.kubernetes.io/instance-type": "g6.12xlarge", "kubernetes.io/hostname": name,
                "nvidia-device-enable": "enable", "nvidia.com/gpu.product": "NVIDIA-L4", "pool": "gpus",
            },
            "annotations": {
                "inspur.com/gpu-inventory": json!({ "version": 1, "gpus": gpus }).to_string(),
                "inspur.com/gpu-labels-vcuda": "nvidia.com/gpu.product,nvidia.com/gpu.gone",
                "inspur.com/gpu-cordon": "0",
            },
        },
        "spec": { "taints": [
            { "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" },
            { "key": "inspur.com/gpu-starting", "effect": "NoSchedule" },
            { "key": "inspur.com/vcuda-core", "effect": "NoSchedule" },
            { "key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule" },
            { "key": "dedicated", "value": "gpus", "effect": "NoExecute" },
        ] },
        "status": {
            "capacity": { "cpu": "48", "memory": "193Gi", "inspur.com/vcuda-core": "200", "inspur.com/vcuda-memory": "119" },
            "allocatable": {
                "cpu": "47810m", "memory": "187904819Ki", "pods": "234", "ephemeral-storage": "95551679124",
                "inspur.com/vcuda-core": "100", "inspur.com/vcuda-memory": "60",
            },
        },
    })
}

fn usual() -> Value {
    // the second has a remainder that is no unit of 256 MiB
    node("a", &[gpu(0, 15_360, "healthy", &json!({})), gpu(1, 15_300, "unhealthy", &json!({}))])
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

#[test]
fn karpenter_gets_a_node_overlay_for_the_instance_type() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "node.json", &usual());
    let capacity = json!({ "inspur.com/vcuda-core": "200", "inspur.com/vcuda-memory": "119" });
    let overlay = |name: &str, types: &[&str]| {
        json!({
            "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay", "metadata": { "name": name },
            "spec": {
                "requirements": [{ "key": "node.kubernetes.io/instance-type", "operator": "In", "values": types }],
                "capacity": capacity,
            },
        })
    };
    let text = stdout(&kerf(&[&path, "--format", "karpenter"]));
    assert_eq!(yaml(&text), overlay("kerf-g6.12xlarge", &["g6.12xlarge"]));
    let json: Value = serde_json::from_str(&stdout(&kerf(&[&path, "--format", "karpenter", "--json"]))).unwrap();
    assert_eq!(json, yaml(&text));
    let args = [&*path, "--format=karpenter", "--instance-type=g6.12xlarge,g6.24xlarge", "--group=gpus"];
    assert_eq!(yaml(&stdout(&kerf(&args))), overlay("gpus", &["g6.12xlarge", "g6.24xlarge"]));
}

#[test]
fn names_are_such_as_kubernetes_takes() {
    let folder = tempfile::tempdir().unwrap();
    let of = |label: &str| {
        let mut node = usual();
        node["metadata"]["labels"]["node.kubernetes.io/instance-type"] = label.into();
        write(folder.path(), "node.json", &node)
    };
    let overlay = yaml(&stdout(&kerf(&[&of("Standard_NC24ads_A100_v4"), "--format=karpenter"])));
    assert_eq!(overlay["metadata"]["name"], "kerf-standard-nc24ads-a100-v4");
    assert_eq!(overlay["spec"]["requirements"][0]["values"], json!(["Standard_NC24ads_A100_v4"]));
    let refused = |label: &str, args: &[&str], word: &str| {
        let path = of(label);
        let output = kerf(&[&[&*path][..], args].concat());
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{args:?}: {output:?}");
        assert!(stderr(&output).contains(word), "{args:?}: {}", stderr(&output));
    };
    let karpenter = "--format=karpenter";
    refused("a", &[karpenter, "--group=Bad Name!"], "error: --group \"Bad Name!\": the name of an object has");
    refused("a", &[karpenter, "--group="], "'--group <NAME>': a name has at least one character");
    refused("a", &["--format=asg", "--group="], "'--group <NAME>': a name has at least one character");
    for types in ["a,,b", "", ",a", "a b", "_a", &"a".repeat(64)] {
        let option = format!("--instance-type={types}");
        refused("a", &[karpenter, &option], "'--instance-type <TYPE,...>': an instance type has 1 to 63 letters");
    }
    refused("", &[karpenter], "name the instance types with --instance-type");
    refused("a b", &[karpenter], "error: node a: label node.kubernetes.io/instance-type: an instance type has");
}

#[test]
fn an_auto_scaling_group_gets_tags_for_resources_labels_and_taints_that_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "node.json", &usual());
    let output = kerf(&[&path, "--format=asg", "--group=gpu-group"]);
    let object: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(stderr(&output), "");
    assert_eq!(object.as_object().unwrap().keys().collect::<Vec<_>>(), ["Tags"]);
    let mut tags = BTreeMap::new();
    for tag in object["Tags"].as_array().unwrap() {
        let rest =
            json!({ "ResourceId": "gpu-group", "ResourceType": "auto-scaling-group", "PropagateAtLaunch": false });
        let (key, value) = (tag["Key"].as_str().unwrap(), tag["Value"].as_str().unwrap());
        let mut others = tag.clone();
        for own in ["Key", "Value"] {
            others.as_object_mut().unwrap().remove(own);
        }
        assert_eq!(others, rest);
        assert!(tags.insert(key.strip_prefix(TAG).unwrap().to_owned(), value.to_owned()).is_none(), "{key}");
    }
    let expected = [
        ("/label/nvidia-device-enable", "enable"),
        ("/label/nvidia.com/gpu.product", "NVIDIA-L4"),
        ("/resources/inspur.com/vcuda-core", "200"),
        ("/resources/inspur.com/vcuda-memory", "119"),
        ("/taint/dedicated", "gpus:NoExecute"),
        ("/taint/inspur.com/vcuda-core", ":NoSchedule"),
    ];
    assert_eq!(tags, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
}

#[test]
fn cluster_api_gets_annotations_and_the_capacity_of_the_machine_template() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "node.json", &usual());
    let output = kerf(&[&path, "--format=cluster-api"]);
    let expected = [
        ("cpu", "47810m"),
        ("memory", "187904819Ki"),
        ("maxPods", "234"),
        ("ephemeral-disk", "95551679124"),
        ("gpu-type", "inspur.com/vcuda-core"),
        ("gpu-count", "200"),
        ("labels", "nvidia-device-enable=enable,nvidia.com/gpu.product=NVIDIA-L4"),
        ("taints", "inspur.com/vcuda-core:NoSchedule,dedicated=gpus:NoExecute"),
    ];
    let annotations: serde_json::Map<String, Value> =
        expected.into_iter().map(|(key, value)| (format!("{ANNOTATION}/{key}"), value.into())).collect();
    assert_eq!(yaml(&stdout(&output)), json!({ "metadata": { "annotations": annotations } }));
    let note = "note: annotations name one resource of GPUs: for inspur.com/vcuda-memory see --format cluster-api-template\n";
    assert_eq!(stderr(&output), note);
    let template = yaml(&stdout(&kerf(&[&path, "--format=cluster-api-template"])));
    let capacity = json!({ "inspur.com/vcuda-core": "200", "inspur.com/vcuda-memory": "119" });
    assert_eq!(template, json!({ "status": { "capacity": capacity } }));
}

#[test]
fn what_is_not_known_of_a_node_is_left_out_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut bare = usual();
    bare["metadata"]["labels"] = Value::Null;
    bare["spec"] = json!({});
    bare["status"] = json!({});
    let path = write(folder.path(), "node.json", &bare);
    let output = kerf(&[&path, "--format=cluster-api"]);
    let annotations = json!({
        format!("{ANNOTATION}/gpu-type"): "inspur.com/vcuda-core", format!("{ANNOTATION}/gpu-count"): "200",
    });
    assert_eq!(yaml(&stdout(&output)), json!({ "metadata": { "annotations": annotations } }));
    for what in ["cpu", "memory"] {
        let note =
            format!("note: the {what} of node a is not known: the group needs {ANNOTATION}/{what} as well, unless");
        assert!(stderr(&output).contains(&note), "{output:?}");
    }
    let output = kerf(&[&path, "--format=karpenter"]);
    assert_eq!(output.status.code(), Some(2));
    let said = "error: node a has no label node.kubernetes.io/instance-type: name the instance types with --instance-type\n";
    assert_eq!(stderr(&output), said);
}

#[test]
fn shares_by_count_and_gpus_that_are_known_by_their_amounts_alone() {
    let folder = tempfile::tempdir().unwrap();
    let offers = json!({ "deepomatic.com/shared-gpu": 100 });
    let capacity = |node: &Value| {
        let path = write(folder.path(), "node.json", node);
        yaml(&stdout(&kerf(&[&path, "--format=cluster-api-template"])))["status"]["capacity"].clone()
    };
    let mut placed = node("a", &[gpu(0, 15_360, "healthy", &offers), gpu(1, 15_360, "healthy", &offers)]);
    placed["status"]["capacity"] = json!({ "cpu": "1", "deepomatic.com/shared-gpu": "200" });
    assert_eq!(capacity(&placed), json!({ "deepomatic.com/shared-gpu": "200" }));
    // beside vcuda, and on a node that says nothing of what it offers
    placed["status"]["capacity"]["inspur.com/vcuda-core"] = "0".into();
    let both = json!({ "deepomatic.com/shared-gpu": "200", "inspur.com/vcuda-core": "200", "inspur.com/vcuda-memory": "120" });
    assert_eq!(capacity(&placed), both);
    placed["status"] = json!({});
    assert_eq!(capacity(&placed), json!({ "deepomatic.com/shared-gpu": "200" }));
    // gpu-manager writes no inventory
    let mut old = usual();
    old["metadata"]["annotations"] = Value::Null;
    assert_eq!(capacity(&old), json!({ "inspur.com/vcuda-core": "200", "inspur.com/vcuda-memory": "119" }));
}

#[test]
fn the_node_is_chosen_and_what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let cpu = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "cpu" } });
    let mut other = usual();
    other["metadata"]["name"] = "b".into();
    let mut odd = usual();
    odd["metadata"]["name"] = "odd".into();
    odd["metadata"]["annotations"]["inspur.com/gpu-inventory"] = "{".into();
    let list = |nodes: &[&Value]| json!({ "apiVersion": "v1", "kind": "List", "items": nodes });
    let one = write(folder.path(), "one.json", &list(&[&cpu, &usual()]));
    assert!(stdout(&kerf(&[&one, "--format=karpenter"])).contains("g6.12xlarge"));
    let all = write(folder.path(), "all.json", &list(&[&cpu, &usual(), &other, &odd]));
    assert!(stdout(&kerf(&[&all, "--format=karpenter", "--node=b"])).contains("g6.12xlarge"));
    let none = write(folder.path(), "none.json", &list(&[&cpu]));
    let refused = |args: &[&str]| {
        let output = kerf(args);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{output:?}");
        stderr(&output)
    };
    let said = refused(&[&all, "--format=karpenter"]);
    assert!(said.ends_with("3 nodes have GPUs: choose one with --node (a, b, odd)\n"), "{said}");
    let said = refused(&[&all, "--format=karpenter", "--node=c"]);
    assert!(said.ends_with("no node is called \"c\": see --node\n"), "{said}");
    let said = refused(&[&none, "--format=karpenter"]);
    assert!(
        said.ends_with("no node has GPUs: the plugin writes inspur.com/gpu-inventory on those that it serves\n"),
        "{said}"
    );
    let said = refused(&[&none, "--format=karpenter", "--node=cpu"]);
    assert!(said.starts_with("error: node cpu: it has no GPUs: neither inspur.com/gpu-inventory nor"), "{said}");
    let said = refused(&[&all, "--format=karpenter", "--node=odd"]);
    assert!(said.starts_with("error: node odd: inspur.com/gpu-inventory: "), "{said}");
    let said = refused(&[&one, "--format=karpenter", "--domain=tencent.com"]);
    assert!(
        said.contains("no GPUs under tencent.com; the nodes have inspur.com/gpu-inventory: see --domain"),
        "{said}"
    );
    let said = refused(&[&one, "--format=asg"]);
    assert!(said.contains("--group <NAME>"), "{said}");
    let said = refused(&[&one, "--format=x"]);
    assert!(said.contains("karpenter, asg, cluster-api, cluster-api-template"), "{said}");

    let domain = format!("{}.example.com", "x".repeat(60));
    let mut long = usual();
    let text = long["metadata"]["annotations"]["inspur.com/gpu-inventory"].take();
    long["metadata"]["annotations"] = json!({ format!("{domain}/gpu-inventory"): text });
    long["status"] = json!({});
    let long = write(folder.path(), "long.json", &long);
    let said = refused(&[&long, "--format=asg", "--group=g", &format!("--domain={domain}")]);
    assert!(said.contains("the key of a tag has at most 128 characters in AWS"), "{said}");
}
