//! `kerf-plugin prune`: takes away what plugins and kerf's scheduler leave in a cluster, after they were uninstalled.
//!
//! That is, on Nodes: conditions, labels, and where it is told so the taint of reserved nodes; and the scheduler's lease. Labels
//! are those in the plugins' lists, which go with them. Other annotations stay: those of pods say which GPUs they hold, and a
//! Node's inventory has no effect without kerf. A plugin that still runs writes its own again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kerf::annotation::{Domain, Keys};
use kerf::k8s::ALLOCATIONS_SUCCEED;
use kerf::terminal;
use kerf_runtime::lease_name::LeaseName;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams};
use kube::core::Request;
use kube::{Client, Resource as _};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use crate::vendor;

/// Nodes of one page of a list: the answers stay small however many there are.
const PAGE: u32 = 50;
/// No call takes longer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a Node that others change at the same time is read again.
const ATTEMPTS: u32 = 8;
/// How conditions of kerf's plugins end; they begin with `Kerf`.
const HEALTHY: &str = "GPUsHealthy";

/// Takes away what kerf leaves in a cluster, after it was uninstalled: conditions and labels of Nodes, and the scheduler's
/// lease. Annotations stay
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "kerf-plugin prune", version)]
pub struct Args {
    /// Prefix of resources and annotations
    #[arg(long, env = "KERF_DOMAIN", default_value = "inspur.com")]
    pub domain: Domain,
    /// How to reach the API server [default: as a pod of the cluster, or as kubectl does]
    #[arg(long, env = "KERF_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Also take away the taint `<domain>/vcuda-core` of reserved nodes
    #[arg(long)]
    pub taint: bool,
    /// Also delete this lease, which kerf's scheduler held
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub lease: Option<LeaseName>,
}

/// The parts of a Node that kerf may have written.
#[derive(Clone, Debug, Default, Deserialize)]
struct Shown {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    /// As they are, so that fields that are not known here are written back.
    #[serde(default)]
    taints: Vec<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Page {
    metadata: PageMetadata,
    items: Vec<Shown>,
}

#[derive(Debug, Default, Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    next: String,
}

/// What is to be taken from the status and the metadata of a Node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Leftover {
    conditions: BTreeSet<String>,
    labels: BTreeSet<String>,
    /// Annotations that list labels.
    lists: BTreeSet<String>,
}

impl Leftover {
    fn of(node: &Shown, keys: &Keys) -> Self {
        let kinds = node.status.conditions.iter().map(|condition| &condition.kind);
        let conditions = kinds.filter(|kind| is_kerfs(kind)).cloned().collect();
        let lists: BTreeMap<&String, &String> =
            node.metadata.annotations.iter().filter(|(key, _)| key.starts_with(&keys.labels)).collect();
        let listed = lists.values().flat_map(|text| text.split(','));
        // a list is not trusted for keys that no vendor's labels have
        let own = listed.filter(|key| vendor::of_label(key).is_some() && node.metadata.labels.contains_key(*key));
        Self {
            conditions,
            labels: own.map(str::to_owned).collect(),
            lists: lists.keys().map(|key| (*key).clone()).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.labels.is_empty() && self.lists.is_empty()
    }

    /// The strategic merge patch of `nodes/status` that takes it away, from this Node and no later one of its name.
    fn patch(&self, uid: &str) -> Value {
        let none = |keys: &BTreeSet<String>| -> BTreeMap<String, Value> {
            keys.iter().map(|key| (key.clone(), Value::Null)).collect()
        };
        let conditions: Vec<Value> =
            self.conditions.iter().map(|kind| json!({ "type": kind, "$patch": "delete" })).collect();
        json!({
            "metadata": { "uid": uid, "labels": none(&self.labels), "annotations": none(&self.lists) },
            "status": { "conditions": conditions },
        })
    }
}

/// Whether a condition of this type is one that kerf's plugins write.
fn is_kerfs(kind: &str) -> bool {
    let word = kind.strip_prefix("Kerf").and_then(|rest| rest.strip_suffix(HEALTHY));
    kind == ALLOCATIONS_SUCCEED || word.is_some_and(|word| word.chars().all(|c| c.is_ascii_alphabetic()))
}

/// The taints of a Node other than that of reserved nodes; `None` where it does not have it.
fn other_taints(node: &Shown, keys: &Keys) -> Option<Vec<Value>> {
    let taints = &node.spec.taints;
    let rest: Vec<Value> = taints.iter().filter(|taint| taint["key"] != keys.core.as_str()).cloned().collect();
    (rest.len() < taints.len()).then_some(rest)
}

/// Goes through all Nodes, then deletes the lease. Prints what was taken from where.
///
/// # Errors
/// Where the Nodes cannot be listed, or something could not be taken away; the rest was then tried all the same.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let client = kerf_runtime::client::connect(args.kubeconfig.as_deref()).await?;
    let keys = Keys::new(args.domain.clone());
    let mut failed = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let found: Page = ask(&client, nodes().list(&page)).await.context("the Nodes cannot be listed")?;
        for node in &found.items {
            match clean(&client, node, &keys, args.taint).await {
                Ok(said) if said.is_empty() => {}
                Ok(said) => println!("{}", terminal::line(&format!("{}: {}", node.metadata.name, said.join(", ")))),
                Err(error) => failed.push(format!("{}: {error:#}", node.metadata.name)),
            }
        }
        if found.metadata.next.is_empty() {
            break;
        }
        page = page.continue_token(&found.metadata.next);
    }
    if let Some(lease) = &args.lease {
        match delete_lease(&client, lease).await {
            Ok(true) => println!("lease {lease}"),
            Ok(false) => {}
            Err(error) => failed.push(format!("lease {lease}: {error:#}")),
        }
    }
    if !failed.is_empty() {
        bail!("{}", terminal::line(&failed.join("; ")));
    }
    Ok(())
}

/// Takes what kerf has left from one Node; returns what that was, in words. One that is gone has nothing.
async fn clean(client: &Client, node: &Shown, keys: &Keys, taint: bool) -> anyhow::Result<Vec<String>> {
    let mut said = Vec::new();
    let leftover = Leftover::of(node, keys);
    if !leftover.is_empty() {
        let patch = Patch::Strategic(leftover.patch(&node.metadata.uid));
        let params = PatchParams::default();
        let wrote =
            ask::<IgnoredAny>(client, nodes().patch_subresource("status", &node.metadata.name, &params, &patch))
                .await;
        if !gone(&wrote) {
            wrote?;
            said.extend(leftover.conditions.iter().map(|kind| format!("condition {kind}")));
            said.extend(leftover.labels.iter().map(|key| format!("label {key}")));
        }
    }
    if taint && other_taints(node, keys).is_some() && untaint(client, &node.metadata.name, keys).await? {
        said.push(format!("taint {}", keys.core));
    }
    Ok(said)
}

/// Takes the taint of reserved nodes from a Node, as it is now. Returns whether it had it.
async fn untaint(client: &Client, name: &str, keys: &Keys) -> anyhow::Result<bool> {
    for _ in 0..ATTEMPTS {
        let read = ask::<Shown>(client, nodes().get(name, &GetParams::default())).await;
        if gone(&read) {
            return Ok(false);
        }
        let now = read?;
        let Some(rest) = other_taints(&now, keys) else { return Ok(false) };
        let Metadata { uid, resource_version, .. } = &now.metadata;
        let body = json!({
            "metadata": { "uid": uid, "resourceVersion": resource_version },
            "spec": { "taints": rest },
        });
        let params = PatchParams::default();
        let wrote = ask::<IgnoredAny>(client, nodes().patch(name, &params, &Patch::Merge(body))).await;
        match wrote {
            Ok(IgnoredAny) => return Ok(true),
            // somebody else has changed it since
            Err(error) if code(&error) == Some(409) => {}
            Err(error) => return Err(error),
        }
    }
    bail!("others change it again and again; its taint {} is still there", keys.core)
}

/// Returns whether it was there.
async fn delete_lease(client: &Client, lease: &LeaseName) -> anyhow::Result<bool> {
    let leases = Request::new(Lease::url_path(&(), Some(&lease.namespace)));
    let deleted = ask::<IgnoredAny>(client, leases.delete(&lease.name, &DeleteParams::default())).await;
    if gone(&deleted) {
        return Ok(false);
    }
    deleted.map(|IgnoredAny| true)
}

fn nodes() -> Request {
    Request::new(Node::url_path(&(), None))
}

async fn ask<T: DeserializeOwned>(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(DEADLINE, client.request(request?)).await;
    Ok(answer.with_context(|| format!("no answer within {DEADLINE:?}"))??)
}

/// The code in the API server's answer.
fn code(error: &anyhow::Error) -> Option<u16> {
    match error.downcast_ref::<kube::Error>()? {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn gone<T>(answer: &anyhow::Result<T>) -> bool {
    answer.as_ref().err().and_then(code) == Some(404)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: Value) -> Shown {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_kerf_wrote_is_left_over() {
        let kinds =
            ["Ready", "KerfGPUsHealthy", "KerfAmdGPUsHealthy", ALLOCATIONS_SUCCEED, "Kerf-1GPUsHealthy", "Kerf"];
        let shown = node(json!({
            "metadata": {
                "name": "n", "uid": "u",
                "labels": { "nvidia.com/gpu.count": "1", "nvidia.com/gpu.present": "true", "kubernetes.io/hostname": "n" },
                "annotations": {
                    "inspur.com/gpu-inventory": "{}",
                    "inspur.com/gpu-labels-vcuda": "nvidia.com/gpu.count,nvidia.com/gpu.memory,kubernetes.io/hostname,,",
                    "example.com/gpu-labels-vcuda": "nvidia.com/gpu.present",
                },
            },
            "status": { "conditions": kinds.map(|kind| json!({ "type": kind, "status": "True" })) },
        }));
        let leftover = Leftover::of(&shown, &Keys::default());
        let set = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<String>>();
        assert_eq!(leftover.conditions, set(&["KerfGPUsHealthy", "KerfAmdGPUsHealthy", ALLOCATIONS_SUCCEED]));
        // of the listed ones the label that is there and a vendor's
        assert_eq!(leftover.labels, set(&["nvidia.com/gpu.count"]));
        assert_eq!(leftover.lists, set(&["inspur.com/gpu-labels-vcuda"]));
        let patch = leftover.patch("u");
        assert_eq!(patch["metadata"]["labels"], json!({ "nvidia.com/gpu.count": null }));
        assert_eq!(patch["metadata"]["annotations"], json!({ "inspur.com/gpu-labels-vcuda": null }));
        assert_eq!(
            patch["status"]["conditions"][0],
            json!({ "type": "KerfAllocationsSucceed", "$patch": "delete" })
        );
        assert!(Leftover::of(&node(json!({ "metadata": { "name": "n" } })), &Keys::default()).is_empty());
    }

    #[test]
    fn the_taint_of_reserved_nodes_goes_and_others_stay_as_they_are() {
        let other = json!({ "key": "a", "effect": "NoSchedule", "later": 1 });
        let taints = json!([{ "key": "inspur.com/vcuda-core", "effect": "NoSchedule" }, other.clone()]);
        let shown = node(json!({ "metadata": { "name": "n" }, "spec": { "taints": taints } }));
        assert_eq!(other_taints(&shown, &Keys::default()), Some(vec![other.clone()]));
        let without = node(json!({ "metadata": { "name": "n" }, "spec": { "taints": [other] } }));
        assert_eq!(other_taints(&without, &Keys::default()), None);
    }
}
