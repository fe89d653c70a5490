//! Files for which no Kubernetes library of ours has types: kustomizations and the scheduler's configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kustomization {
    pub api_version: String,
    pub kind: String,
    #[serde(default)]
    pub resources: Vec<String>,
    pub name_suffix: Option<String>,
    #[serde(default)]
    pub components: Vec<String>,
    #[serde(default)]
    pub patches: Vec<Patch>,
    #[serde(default)]
    pub labels: Vec<Value>,
    #[serde(default)]
    pub config_map_generator: Vec<ConfigMap>,
    #[serde(default)]
    pub generator_options: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    pub path: Option<String>,
    pub patch: Option<String>,
    pub target: Option<BTreeMap<String, String>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigMap {
    pub name: String,
    pub namespace: String,
    pub files: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    pub op: String,
    pub path: String,
    pub value: String,
}

/// The fields of `kubescheduler.config.k8s.io/v1` that are used here.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchedulerConfiguration {
    pub api_version: String,
    pub kind: String,
    pub leader_election: Value,
    pub client_connection: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage_of_nodes_to_score: Option<u32>,
    pub extenders: Vec<SchedulerExtender>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchedulerExtender {
    pub url_prefix: String,
    pub filter_verb: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prioritize_verb: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preempt_verb: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind_verb: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    #[serde(rename = "enableHTTPS")]
    pub enable_https: bool,
    pub http_timeout: String,
    pub node_cache_capable: bool,
    pub ignorable: bool,
    pub managed_resources: Vec<ManagedResource>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManagedResource {
    pub name: String,
    pub ignored_by_scheduler: bool,
}
