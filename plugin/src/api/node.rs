//! What is read of the Node: no more than is used, so that nothing else that somebody writes on it makes it unreadable;
//! and what is changed of it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kerf::annotation::Keys;
use kube::core::PartialObjectMeta;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct NodeView {
    pub(super) metadata: Metadata,
    pub(super) status: Option<Status>,
}

/// Of the Node's metadata (`ObjectMeta` of Kubernetes' API).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Keys and values; `None` removes.
pub type Changes = BTreeMap<String, Option<String>>;

/// A change of the Node's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePatch {
    pub labels: Changes,
    pub annotations: Changes,
}

/// The annotations of the Node that concern the plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAnnotations {
    /// `gpu-inventory`.
    pub inventory: Option<String>,
    /// `gpu-cordon`.
    pub cordon: Option<String>,
}

impl NodeAnnotations {
    /// Reads them by their `keys`.
    pub fn of(node: &PartialObjectMeta<Node>, keys: &Keys) -> Self {
        let annotation = |key: &str| node.metadata.annotations.as_ref()?.get(key).cloned();
        Self { inventory: annotation(&keys.inventory), cordon: annotation(&keys.cordon) }
    }
}

/// Of `NodeStatus`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) node_info: Option<Info>,
    pub(super) conditions: Option<Vec<Condition>>,
}

/// Of `NodeSystemInfo`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Info {
    #[serde(default)]
    pub(super) kubelet_version: String,
}

/// Of `NodeCondition`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) type_: String,
    pub(super) status: String,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
    /// RFC 3339; years that no clock here knows are allowed.
    pub(super) last_transition_time: Option<String>,
}
