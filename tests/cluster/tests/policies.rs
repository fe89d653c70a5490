//! What the admission policies protect: users' requests, the choice of a node, and the writes of kerf's own accounts.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use kerf_cluster::control::client;
use kerf_cluster::wait::until;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::core::Request;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::binding::refusal;
use crate::support::draft::{Draft, pod};
use crate::support::policy::leave_out;
use crate::support::stage::{SOON, Stage, annotation, uid};

const EXTENDER: &str = "system:serviceaccount:kerf-system:kerf-extender";
const USERS: [&str; 4] =
    ["inspur.com/vcuda-core-limit", "inspur.com/gpu-policy", "inspur.com/isolation", "inspur.com/gpu-shares"];

/// Impersonates a user at the API server, which the administrator may.
async fn acting(stage: &Stage<'_>, user: &str, groups: &[&str]) -> anyhow::Result<Client> {
    let place = stage.cluster.place();
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(place.path("kubeconfig/admin"))?)?;
    config["users"][0]["user"]["as"] = user.into();
    config["users"][0]["user"]["as-groups"] = groups.into();
    let file = format!("kubeconfig/as-{}", user.replace(':', "-"));
    client(&place.write(&file, config.to_string())?).await
}

/// A user with the usual rights of a cluster's users in this namespace.
pub async fn tenant(stage: &Stage<'_>) -> anyhow::Result<Client> {
    let namespace = format!("--namespace={}", stage.namespace());
    let grant = ["create", "rolebinding", "tenant", "--clusterrole=edit", "--user=tenant", &namespace];
    stage.cluster.control.kubectl(&grant)?;
    let tenant = acting(stage, "tenant", &["system:authenticated"]).await?;
    let pods: Api<Pod> = Api::namespaced(tenant.clone(), stage.namespace());
    // a controller aggregates the role, and the grant takes effect a moment later
    until(SOON, "the tenant may create pods", async || {
        pods.create(&dry(), &object(&pod("probe").app("main", 0, 0))?).await.map(drop).map_err(Into::into)
    })
    .await?;
    Ok(tenant)
}

fn dry() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

fn object(draft: &Draft) -> anyhow::Result<Pod> {
    Ok(serde_json::from_value(draft.value().clone())?)
}

fn annotations(value: Value) -> Patch<Value> {
    Patch::Merge(json!({ "metadata": { "annotations": value } }))
}

fn denied<T>(result: Result<T, kube::Error>, with: &str, what: &str) -> anyhow::Result<()> {
    let (code, text) = refusal(result).with_context(|| what.to_owned())?;
    ensure!(code == 403 && text.contains(with), "{what}: {code} {text}");
    Ok(())
}

/// Annotations can change while the pod waits; from its binding on they are fixed, also while it ends and after.
pub async fn what_users_ask_for_is_fixed_once_a_pod_is_bound(stage: &Stage<'_>) -> anyhow::Result<()> {
    leave_out(stage).await?;
    let pods: Api<Pod> = Api::namespaced(tenant(stage).await?, stage.namespace());
    let params = PatchParams::default();
    stage.create(&pod("waits").app("main", 10, 1).with("schedulerName", "nobody")).await?;
    for key in USERS {
        pods.patch("waits", &params, &annotations(json!({ key: "x" }))).await.with_context(|| key.to_owned())?;
        pods.patch("waits", &params, &annotations(json!({ key: null }))).await.with_context(|| key.to_owned())?;
    }
    let set = "inspur.com/vcuda-core-limit";
    let mut bound = pod("bound").app("main", 10, 1).annotation(set, "50").value().clone();
    bound["metadata"]["finalizers"] = json!(["example.com/stays"]);
    stage.create_object(bound).await?;
    stage.phase("bound", &["Running"]).await?;
    let fixed = "are fixed once a pod is bound";
    for state in ["runs", "ends", "has ended"] {
        match state {
            "ends" => drop(stage.pods().delete("bound", &DeleteParams::default()).await?),
            "has ended" => drop(stage.phase("bound", &["Succeeded", "Failed"]).await?),
            _ => {}
        }
        for key in USERS {
            let what = format!("{key} while it {state}");
            let changes = [json!({ key: "x" }), json!({ key: "60", "example.com/other": "y" })];
            let removed = (key == set).then(|| json!({ key: null }));
            for change in changes.into_iter().chain(removed) {
                denied(pods.patch("bound", &params, &annotations(change.clone())).await, fixed, &what)?;
                // not even the administrator, nor through the status
                let status = stage.pods().patch_status("bound", &params, &annotations(change)).await;
                denied(status, fixed, &what)?;
            }
        }
        denied(pods.patch("bound", &params, &annotations(Value::Null)).await, "", "all of them")?;
        pods.patch("bound", &params, &annotations(json!({ "example.com/other": state }))).await?;
        let now = pods.get("bound").await?;
        ensure!(annotation(&now, set) == Some("50"), "{state}: {:?}", now.metadata.annotations);
        let mut whole = now;
        whole.metadata.annotations.get_or_insert_default().insert(set.to_owned(), "90".to_owned());
        denied(pods.replace("bound", &PostParams::default(), &whole).await, fixed, state)?;
    }
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    stage.pods().patch("bound", &params, &free).await?;
    Ok(())
}

/// Whatever other parts of a pod its user may write: none of them carries an annotation of kerf's past the policies.
pub async fn no_subresource_carries_an_annotation(stage: &Stage<'_>) -> anyhow::Result<()> {
    leave_out(stage).await?;
    let pods: Api<Pod> = Api::namespaced(tenant(stage).await?, stage.namespace());
    stage.create(&pod("bound").app("main", 10, 1)).await?;
    stage.phase("bound", &["Running"]).await?;
    let kept = |pod: &Pod| {
        let all = pod.metadata.annotations.clone().unwrap_or_default();
        all.into_iter().filter(|(key, _)| key.starts_with("inspur.com/")).collect::<Vec<_>>()
    };
    let before = until(SOON, "the node has confirmed it", async || {
        let pod = stage.pods().get("bound").await?;
        ensure!(annotation(&pod, "inspur.com/gpu-isolation").is_some(), "{:?}", pod.metadata.annotations);
        Ok(kept(&pod))
    })
    .await?;
    for key in USERS.into_iter().chain(["inspur.com/gpu-placement", "inspur.com/predicate-gpu-idx-0"]) {
        let debugger = json!({ "name": format!("d-{}", key.len()), "image": "busybox:1.37", "command": ["true"] });
        for (subresource, spec) in [
            ("resize", json!({ "containers": [{ "name": "main", "resources": { "requests": { "cpu": "1m" } } }] })),
            ("ephemeralcontainers", json!({ "ephemeralContainers": [debugger] })),
        ] {
            let patch = json!({ "metadata": { "annotations": { key: "x" } }, "spec": spec });
            let params = PatchParams::default();
            let patched = pods.patch_subresource(subresource, "bound", &params, &Patch::Strategic(patch)).await;
            let now = stage.pods().get("bound").await?;
            ensure!(kept(&now) == before, "{subresource} with {key}: {patched:?}: {:?}", now.metadata.annotations);
        }
        // a pod that is made by server-side apply, with a generated name, or whose init containers alone
        // have requests
        let set = json!({ key: "x" });
        let mut made = pod("").init("first", 10, 1).app("main", 0, 0).on("node-1").value().clone();
        made["metadata"] = json!({ "generateName": "made-", "annotations": set });
        made["spec"]["nodeName"] = json!("node-1");
        let created = pods.create(&dry(), &serde_json::from_value(made.clone())?).await;
        denied(created, "", &format!("generateName with {key}"))?;
        made["metadata"] = json!({ "name": "applied", "annotations": set });
        (made["apiVersion"], made["kind"]) = (json!("v1"), json!("Pod"));
        let params = PatchParams { dry_run: true, ..PatchParams::apply("tenant") };
        denied(pods.patch("applied", &params, &Patch::Apply(made)).await, "", &format!("apply with {key}"))?;
        let change =
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "bound", "annotations": set } });
        let params = PatchParams::apply("tenant").force();
        denied(
            pods.patch("bound", &params, &Patch::Apply(change)).await,
            "",
            &format!("apply to bound with {key}"),
        )?;
    }
    Ok(())
}

/// No GPUs were chosen for a pod that comes with its node's name; kubelets show their static pods that way.
pub async fn a_pod_that_asks_for_gpus_names_no_node(stage: &Stage<'_>) -> anyhow::Result<()> {
    leave_out(stage).await?;
    let tenant = tenant(stage).await?;
    let as_tenant: Api<Pod> = Api::namespaced(tenant.clone(), stage.namespace());
    let shapes = [
        pod("share").app("main", 10, 1),
        pod("whole").app("main", 100, 0),
        pod("second").app("plain", 0, 0).app("main", 10, 1),
        pod("memory").app("main", 0, 1),
        pod("init").init("first", 10, 1).app("main", 0, 0),
        pod("sidecar").sidecar("beside", 10, 1).app("main", 0, 0),
    ];
    let mirror = |draft: &Draft| draft.clone().annotation("kubernetes.io/config.mirror", "1");
    for draft in &shapes {
        as_tenant.create(&dry(), &object(draft)?).await.with_context(|| draft.name.clone())?;
        let named = draft.clone().with("nodeName", "node-1");
        for pods in [&as_tenant, &stage.pods()] {
            for named in [&named, &mirror(&named)] {
                denied(pods.create(&dry(), &object(named)?).await, "is placed by kerf", &named.name)?;
            }
        }
    }
    let plain = pod("plain").app("main", 0, 0).with("nodeName", "node-1");
    as_tenant.create(&dry(), &object(&plain)?).await.context("without GPUs")?;

    // as a kubelet does
    let kubelet = client(&stage.cluster.place().path("kubeconfig/node-1")).await?;
    let node = Api::<Node>::all(stage.cluster.client.clone()).get("node-1").await?;
    let mut own = mirror(&pod("static-node-1").app("main", 10, 1).with("nodeName", "node-1")).value().clone();
    own["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": node.metadata.uid, "controller": true }]);
    let pods: Api<Pod> = Api::namespaced(kubelet, stage.namespace());
    pods.create(&dry(), &serde_json::from_value(own)?).await.context("a mirror pod")?;

    // a DaemonSet's pods are bound to their nodes by affinity, and so are placed
    let sets: Api<DaemonSet> = Api::namespaced(tenant, stage.namespace());
    let spec = &shapes[0].value()["spec"];
    let labels = json!({ "app": "everywhere" });
    let set = json!({
        "metadata": { "name": "everywhere" },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": spec },
        },
    });
    sets.create(&PostParams::default(), &serde_json::from_value(set)?).await?;
    let nodes = stage.cluster.nodes.len();
    let everywhere = until(SOON, "the DaemonSet's pods run", async || {
        let status = sets.get("everywhere").await?.status.context("no status")?;
        ensure!(usize::try_from(status.number_ready)? == nodes, "{status:?}");
        Ok(())
    })
    .await;
    let placed = stage.list().await?;
    sets.delete("everywhere", &DeleteParams::background()).await?;
    everywhere?;
    ensure!(placed.iter().all(|pod| annotation(pod, "inspur.com/gpu-placement").is_some()), "not placed by kerf");
    Ok(())
}

/// Kubelets may not change them either: the garbage collector would delete a Node because of its owner, and could
/// not delete a pod with a finalizer.
pub async fn a_plugin_changes_no_owners_and_no_finalizers(stage: &Stage<'_>) -> anyhow::Result<()> {
    let plugin = client(&stage.cluster.place().path("kubeconfig/kerf-plugin-node-1")).await?;
    let params = PatchParams::default();
    let mut own = pod("own").app("main", 10, 1).on("node-1").value().clone();
    own["metadata"]["finalizers"] = json!(["example.com/stays"]);
    stage.create_object(own).await?;
    stage.phase("own", &["Running"]).await?;
    let owner = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000" }]);
    let pods: Api<Pod> = Api::namespaced(plugin.clone(), stage.namespace());
    let nodes: Api<Node> = Api::all(plugin);
    let before = stage.pods().get("own").await?.metadata;
    let rule = "changes no owner references and no finalizers";
    let patches = [
        json!({ "ownerReferences": owner }),
        json!({ "finalizers": ["example.com/other", "example.com/stays"] }),
        json!({ "finalizers": null }),
    ];
    for metadata in patches {
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let patched = pods.patch_status("own", &params, &patch).await;
        // the API server ignores owner references in a write of a pod's status
        if metadata["ownerReferences"].is_null() {
            denied(patched, rule, &format!("pod: {metadata}"))?;
        }
        let after = stage.pods().get("own").await?.metadata;
        let unchanged = after.owner_references == before.owner_references && after.finalizers == before.finalizers;
        ensure!(unchanged, "pod: {metadata}: {after:?}");
    }
    for metadata in [json!({ "ownerReferences": owner }), json!({ "finalizers": ["example.com/other"] })] {
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        denied(nodes.patch_status("node-1", &params, &patch).await, rule, &format!("Node: {metadata}"))?;
    }
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    stage.pods().patch("own", &params, &free).await?;
    Ok(())
}

/// The extender's account binds only with a record, to the node in that record, and of waiting pods it changes only
/// kerf's annotations.
pub async fn the_extender_binds_with_a_record_only(stage: &Stage<'_>) -> anyhow::Result<()> {
    let waiting = stage.create(&pod("waits").app("main", 10, 1).with("schedulerName", "nobody")).await?;
    let token = client(&stage.cluster.place().path("kubeconfig/kerf-extender")).await?;
    let extender: Api<Pod> = Api::namespaced(token, stage.namespace());
    let uid = uid(&waiting)?;
    let bind = async |pods: &Api<Pod>, annotations: Value| {
        let body = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": "waits", "uid": uid, "annotations": annotations },
            "target": { "apiVersion": "v1", "kind": "Node", "name": "node-1" },
        });
        pods.create_subresource::<_, Value>("binding", "waits", &dry(), &body).await
    };
    let record = |node: &str| json!({ "inspur.com/gpu-placement": "{}", "inspur.com/predicate-node": node });
    let rule = "binds with a record of cards";
    for bad in [json!({}), Value::Null, record("node-2"), json!({ "inspur.com/gpu-placement": "{}" })] {
        denied(bind(&extender, bad.clone()).await, rule, &bad.to_string())?;
    }
    denied(bind(&extender, json!({ "inspur.com/predicate-node": "node-1" })).await, rule, "no placement")?;
    bind(&extender, record("node-1")).await.context("with a record")?;
    for key in USERS {
        let mut with = record("node-1");
        with[key] = "x".into();
        denied(bind(&extender, with).await, "a binding does not bring", key)?;
        denied(bind(&stage.pods(), json!({ key: "x" })).await, "a binding does not bring", key)?;
    }
    bind(&stage.pods(), json!({ "example.com/other": "x" })).await.context("another's binding")?;

    // with all rights, only the policy still applies
    let mighty: Api<Pod> = Api::namespaced(acting(stage, EXTENDER, &["system:masters"]).await?, stage.namespace());
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    mighty.patch("waits", &params, &annotations(record("node-1"))).await.context("a record on a pod that waits")?;
    for (patch, rule) in [
        (
            json!({ "metadata": { "annotations": { "inspur.com/gpu-policy": "spread" } } }),
            "no annotations but kerf's own",
        ),
        (json!({ "metadata": { "annotations": { "example.com/x": "y" } } }), "no annotations but kerf's own"),
        (json!({ "metadata": { "labels": { "x": "y" } } }), "nothing of a pod but annotations"),
        (json!({ "metadata": { "finalizers": ["example.com/x"] } }), "nothing of a pod but annotations"),
        (json!({ "spec": { "activeDeadlineSeconds": 1 } }), "nothing of a pod but annotations"),
    ] {
        denied(mighty.patch("waits", &params, &Patch::Merge(&patch)).await, rule, &patch.to_string())?;
    }
    let status = Patch::Merge(json!({ "status": { "phase": "Failed" } }));
    denied(mighty.patch_status("waits", &params, &status).await, "nothing of a pod but annotations", "status")?;
    stage.create(&pod("bound").app("main", 10, 1)).await?;
    stage.phase("bound", &["Running"]).await?;
    denied(mighty.patch("bound", &params, &annotations(record("node-1"))).await, "no pod that is bound", "bound")
}

/// The API server returns in a header of each answer the flow schema of the request, also where it refuses it.
async fn falls_into(client: &Client, request: &http::Request<Vec<u8>>, schema: &FlowSchema) -> anyhow::Result<()> {
    let mut sent = http::Request::new(kube::client::Body::from(request.body().clone()));
    *sent.method_mut() = request.method().clone();
    *sent.uri_mut() = request.uri().clone();
    *sent.headers_mut() = request.headers().clone();
    let answer = client.send(sent).await?;
    let header = answer.headers().get("x-kubernetes-pf-flowschema-uid").context("no header")?;
    let wanted = schema.metadata.uid.as_deref();
    ensure!(Some(header.to_str()?) == wanted, "{} {}: {header:?}", request.method(), request.uri());
    Ok(())
}

pub async fn the_extenders_requests_have_a_place_in_the_queues(stage: &Stage<'_>) -> anyhow::Result<()> {
    let schemas: Api<FlowSchema> = Api::all(stage.cluster.client.clone());
    let [own, lease] = ["kerf-extender", "kerf-scheduler-lease"].map(|name| schemas.get(name));
    let (own, lease) = (own.await?, lease.await?);
    let file: PathBuf = stage.cluster.place().path("kubeconfig/kerf-extender");
    let extender = client(&file).await?;
    let scheduler = "system:serviceaccount:kerf-system:kerf-scheduler";
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kerf-system", "system:authenticated"];
    let scheduler = acting(stage, scheduler, &groups).await?;

    let namespaced = format!("/api/v1/namespaces/{}/pods", stage.namespace());
    let mut requests = Vec::new();
    for url in ["/api/v1/nodes", "/api/v1/pods", &namespaced, "/apis/policy/v1/poddisruptionbudgets"] {
        requests.push(Request::new(url).list(&ListParams::default())?);
    }
    for url in ["/api/v1/nodes", "/api/v1/pods"] {
        requests.push(Request::new(url).watch(&WatchParams::default().timeout(1), "0")?);
    }
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "target": { "kind": "Node", "name": "node-1" } });
    let bind = Request::new(&namespaced);
    requests.push(bind.create_subresource("binding", "nobody", &dry(), binding.to_string().into())?);
    let retry = Request::new("/apis/storage.k8s.io/v1/namespaces/kerf-system/csistoragecapacities");
    let nothing = Patch::Merge(json!({}));
    requests.push(retry.patch(
        "kerf-extender",
        &PatchParams { dry_run: true, ..PatchParams::default() },
        &nothing,
    )?);
    let leases = Request::new("/apis/coordination.k8s.io/v1/namespaces/kerf-system/leases");
    let renewal = leases.replace("kerf-scheduler", &dry(), "{}".into())?;
    let news = leases.list(&ListParams::default())?;

    until(SOON, "the schemas are in force", async || {
        for request in &requests {
            falls_into(&extender, request, &own).await?;
            falls_into(&scheduler, request, &own).await?;
        }
        falls_into(&scheduler, &news, &own).await?;
        falls_into(&scheduler, &renewal, &lease).await
    })
    .await
}
