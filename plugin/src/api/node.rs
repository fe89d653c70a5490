//! What is read of the Node: no more than is used, so that nothing else that somebody writes on it makes it unreadable.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The Node.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    pub(super) metadata: Metadata,
    pub(super) status: Option<Status>,
}

/// Of the Node's metadata (`ObjectMeta` of Kubernetes' API).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Its identity.
    pub uid: Option<String>,
    /// The version that was read.
    pub resource_version: Option<String>,
    /// Its labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its annotations.
    pub annotations: Option<BTreeMap<String, String>>,
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
