//! How the scheduler and its extender are set up.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// One entry of `extenders` in a `KubeSchedulerConfiguration` v1.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtenderConfig {
    /// Base URL of the verbs.
    pub url_prefix: String,
    /// Appended to the prefix; empty means that the extender does not filter.
    #[serde(default)]
    pub filter_verb: String,
    /// Empty means that the extender does not prioritize.
    #[serde(default)]
    pub prioritize_verb: String,
    /// Empty means that the scheduler binds by itself.
    #[serde(default)]
    pub bind_verb: String,
    /// Empty means that the extender has no say in preemption.
    #[serde(default)]
    pub preempt_verb: String,
    /// Weight of the extender's scores.
    #[serde(default)]
    pub weight: i64,
    /// Whether names are sent instead of whole nodes.
    #[serde(default)]
    pub node_cache_capable: bool,
    /// How long a call may take; Go's notation, such as `5s` or `100ms`.
    #[serde(default = "five_seconds", deserialize_with = "go_duration", rename = "httpTimeout")]
    pub http_timeout: Duration,
    /// Only pods that request one of these are sent; empty means all pods.
    #[serde(default)]
    pub managed_resources: Vec<ManagedResource>,
    /// Whether a failing extender is skipped instead of failing the pod.
    #[serde(default)]
    pub ignorable: bool,
    /// TLS is not supported here; must be false.
    #[serde(default, rename = "enableHTTPS")]
    pub enable_https: bool,
}

/// An extended resource that an extender manages.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManagedResource {
    /// The resource's full name.
    pub name: String,
    /// Whether the scheduler's own fit check leaves it to the extender.
    #[serde(default)]
    pub ignored_by_scheduler: bool,
}

impl ExtenderConfig {
    /// An extender with the usual verbs (`filter`, `prioritize`, `bind`), node names and a weight of one.
    pub fn new(url_prefix: &str, managed_resources: &[&str]) -> Self {
        Self {
            url_prefix: url_prefix.to_owned(),
            filter_verb: "filter".to_owned(),
            prioritize_verb: "prioritize".to_owned(),
            bind_verb: "bind".to_owned(),
            preempt_verb: String::new(),
            weight: 1,
            node_cache_capable: true,
            http_timeout: five_seconds(),
            managed_resources: managed_resources
                .iter()
                .map(|name| ManagedResource { name: (*name).to_owned(), ignored_by_scheduler: false })
                .collect(),
            ignorable: false,
            enable_https: false,
        }
    }
}

/// Settings that tests of the scheduler may change.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Base URL of the API server.
    pub api_url: String,
    /// The extender, if there is one.
    pub extender: Option<ExtenderConfig>,
    /// Only pods with this `spec.schedulerName`, or with none, are scheduled.
    pub scheduler_name: String,
    /// Seeds the choice among equal nodes.
    pub seed: u64,
    /// How long a pod waits after its first failure; doubles with every further one.
    pub initial_backoff: Duration,
    /// The longest wait after a failure.
    pub max_backoff: Duration,
    /// Unschedulable pods are tried again after this time even if nothing happens.
    pub flush_after: Duration,
    /// Whether runs of equal pods reuse the sorted node list of the first one, as kube-scheduler 1.35 does.
    pub opportunistic_batching: bool,
    /// Whether only a part of a large cluster's nodes is looked at for one pod, as kube-scheduler does.
    pub sample_nodes: bool,
    /// Groups of pods by the label `scheduling.x-k8s.io/pod-group`: how many must have a node before any is bound.
    pub groups: BTreeMap<String, usize>,
    /// How long a pod waits for its group.
    pub permit_timeout: Duration,
    /// Whether the node of a pod that waits in Permit is written into its status, as since 1.35.
    pub nominates_waiting: bool,
    /// Whether pods of lower priority are evicted for a pod that fits nowhere.
    pub preempts: bool,
    /// The most attempts that the journal keeps; each names all nodes that the extender was asked about.
    pub journal_limit: usize,
}

impl SchedulerConfig {
    /// kube-scheduler's defaults, except that it only preempts where the extender has a say in it.
    pub fn new(api_url: impl Into<String>, extender: Option<ExtenderConfig>) -> Self {
        Self {
            api_url: api_url.into(),
            preempts: extender.as_ref().is_some_and(|extender| !extender.preempt_verb.is_empty()),
            extender,
            scheduler_name: "default-scheduler".to_owned(),
            seed: 0,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            flush_after: Duration::from_secs(300),
            opportunistic_batching: false,
            sample_nodes: true,
            groups: BTreeMap::new(),
            permit_timeout: Duration::from_secs(60),
            nominates_waiting: true,
            journal_limit: 2_000,
        }
    }
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn go_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_go_duration(&text).ok_or_else(|| serde::de::Error::custom(format!("not a duration: \"{text}\"")))
}

/// Parses durations such as `1m30s`, `5s`, `1.5s`, `100ms`.
fn parse_go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        assert_eq!(parse_go_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_go_duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(parse_go_duration("1.5s"), Some(Duration::from_millis(1_500)));
        assert_eq!(parse_go_duration("5"), None);
        assert_eq!(parse_go_duration(""), None);
    }

    #[test]
    fn an_entry_of_a_scheduler_configuration_is_read() {
        let config: ExtenderConfig = serde_json::from_value(serde_json::json!({
            "urlPrefix": "http://127.0.0.1:1/x",
            "filterVerb": "filter",
            "prioritizeVerb": "prioritize",
            "bindVerb": "bind",
            "weight": 5,
            "enableHTTPS": false,
            "nodeCacheCapable": true,
            "httpTimeout": "3s",
            "ignorable": false,
            "managedResources": [{ "name": "x/y", "ignoredByScheduler": true }],
        }))
        .expect("valid");
        assert_eq!(config.http_timeout, Duration::from_secs(3));
        assert!(config.managed_resources.first().expect("one").ignored_by_scheduler);
        let typo = serde_json::json!({ "urlPrefix": "x", "filterVrb": "filter" });
        assert!(serde_json::from_value::<ExtenderConfig>(typo).is_err());
    }
}
