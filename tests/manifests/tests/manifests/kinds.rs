//! Files for which no Kubernetes library of ours has types: kustomizations, the scheduler's configuration, and objects of other
//! systems.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{MatchCondition, MatchResources, Variable};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
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
    #[serde(default)]
    pub images: Vec<Image>,
    #[serde(default)]
    pub replacements: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    pub name: String,
    pub new_tag: String,
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
    pub behavior: Option<String>,
    pub options: Option<Value>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_connection: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Value>,
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

/// A `MutatingAdmissionPolicy` or its binding, as far as they are used here.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mutating {
    pub api_version: String,
    pub kind: String,
    pub metadata: Value,
    pub spec: MutatingSpec,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MutatingSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reinvocation_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_constraints: Option<MatchResources>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_conditions: Option<Vec<MatchCondition>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<Vec<Variable>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutations: Option<Vec<Value>>,
    /// Of a binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_resources: Option<MatchResources>,
}

/// An object of Prometheus' operator (`monitoring.coreos.com/v1`).
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Monitoring<T> {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: T,
}

/// The fields of a `PodMonitor` that are used here.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodMonitor {
    pub selector: LabelSelector,
    pub pod_metrics_endpoints: Vec<MetricsEndpoint>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetricsEndpoint {
    pub port: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub honor_labels: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
}

/// The fields of a `PrometheusRule` that are used here.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alerts {
    pub groups: Vec<AlertGroup>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertGroup {
    pub name: String,
    pub rules: Vec<Rule>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rule {
    Alert(Alert),
    Recorded(Recorded),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    pub record: String,
    pub expr: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    pub alert: String,
    pub expr: String,
    pub r#for: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// The fields of OpenShift's `SecurityContextConstraints` (`security.openshift.io/v1`) that are used here.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecurityConstraints {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub allow_host_dir_volume_plugin: bool,
    #[serde(rename = "allowHostIPC")]
    pub allow_host_ipc: bool,
    pub allow_host_network: bool,
    #[serde(rename = "allowHostPID")]
    pub allow_host_pid: bool,
    pub allow_host_ports: bool,
    pub allow_privilege_escalation: bool,
    pub allow_privileged_container: bool,
    pub allowed_capabilities: Vec<String>,
    pub default_add_capabilities: Vec<String>,
    pub required_drop_capabilities: Vec<String>,
    pub read_only_root_filesystem: bool,
    pub run_as_user: Value,
    pub se_linux_context: Value,
    pub seccomp_profiles: Vec<String>,
    pub fs_group: Value,
    pub supplemental_groups: Value,
    pub volumes: Vec<String>,
    pub users: Vec<String>,
    pub groups: Vec<String>,
}
