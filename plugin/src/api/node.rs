//! The parts of the Node that are read: only those that are used, so that nothing else that other clients write on
//! it makes it unreadable; and the changes to it.

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

/// The Node's metadata (`ObjectMeta` of Kubernetes' API).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub annotations: Option<BTreeMap<String, String>>,
}

/// By key; `None` removes.
pub type Changes = BTreeMap<String, Option<String>>;

/// The annotations of the Node that concern the plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAnnotations {
    pub inventory: Option<String>,
    pub cordon: Option<String>,
}

impl NodeAnnotations {
    pub fn of(node: &PartialObjectMeta<Node>, keys: &Keys) -> Self {
        let annotation = |key: &str| node.metadata.annotations.as_ref()?.get(key).cloned();
        Self { inventory: annotation(&keys.inventory), cordon: annotation(&keys.cordon) }
    }
}

/// `NodeStatus` of Kubernetes' API.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) node_info: Option<Info>,
    pub(super) conditions: Option<Vec<Condition>>,
}

/// `NodeSystemInfo` of Kubernetes' API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Info {
    #[serde(default)]
    pub(super) kubelet_version: String,
}

/// `NodeCondition` of Kubernetes' API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) type_: String,
    pub(super) status: String,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
    /// RFC 3339; kept as text, so that years that no clock here knows are allowed.
    pub(super) last_transition_time: Option<String>,
}
