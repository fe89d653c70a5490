//! The calls that kube-scheduler makes to an extender, as its `extender.go` makes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::config::ExtenderConfig;
use super::preemption::Candidate;
use super::request;
use super::wire::{
    ExtenderArgs, ExtenderBindingArgs, ExtenderBindingResult, ExtenderFilterResult, ExtenderPreemptionArgs,
    ExtenderPreemptionResult, HostPriority, MetaPod, MetaVictims, NodeList, Victims,
};
use crate::api::object;

/// Why a call to an extender failed; each fails the pod's attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtenderError {
    /// No answer in time.
    #[error("no answer from extender at {url}: {cause}")]
    Unreachable {
        /// The URL that was called.
        url: String,
        /// The transport's error.
        cause: String,
    },
    /// Any status but 200.
    #[error("extender at {url} answered {code}: {body}")]
    Status {
        /// The URL that was called.
        url: String,
        /// The HTTP status.
        code: u16,
        /// The response body.
        body: String,
    },
    /// The answer does not have the agreed form.
    #[error("answer of extender at {url} cannot be read: {cause}")]
    Unreadable {
        /// The URL that was called.
        url: String,
        /// The parser's error.
        cause: String,
    },
    /// The `Error` field of the answer.
    #[error("{0}")]
    Refused(String),
    /// The answer names a node that was not in the question.
    #[error("extender \"{url}\" claims a filtered node \"{node}\" which is not found in the input node list")]
    UnknownNode {
        /// The URL that was called.
        url: String,
        /// The unknown node's name.
        node: String,
    },
}

/// The nodes that filter left, and the reasons for the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filtered {
    /// Names of the nodes that fit, in the order of the answer.
    pub nodes: Vec<String>,
    /// Reasons that evicting pods may remove.
    pub failed: BTreeMap<String, String>,
    /// Reasons that evicting pods does not remove.
    pub unresolvable: BTreeMap<String, String>,
}

/// An HTTP client of an extender.
#[derive(Clone, Debug)]
pub struct ExtenderClient {
    http: reqwest::Client,
    config: Arc<ExtenderConfig>,
}

impl ExtenderClient {
    /// A client with a connection pool of its own.
    pub fn new(config: ExtenderConfig) -> anyhow::Result<Self> {
        if config.enable_https {
            bail!("this stand-in speaks no TLS to extenders");
        }
        if !config.prioritize_verb.is_empty() && config.weight <= 0 {
            bail!("an extender that prioritizes needs a positive weight");
        }
        let http = reqwest::Client::builder()
            .user_agent("Go-http-client/1.1")
            .timeout(config.http_timeout)
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .context("build an HTTP client")?;
        Ok(Self { http, config: Arc::new(config) })
    }

    /// The configuration that it was made from.
    pub fn config(&self) -> &ExtenderConfig {
        &self.config
    }

    /// Whether any container or init container names a managed resource in requests or limits.
    pub fn is_interested(&self, pod: &Value) -> bool {
        let managed = &self.config.managed_resources;
        managed.is_empty()
            || request::containers(pod).any(|container| {
                managed.iter().any(|resource| {
                    ["requests", "limits"]
                        .iter()
                        .any(|list| object::at(container, &["resources", list, &resource.name]).is_some())
                })
            })
    }

    /// Asks which of these nodes fit. Without a verb all do.
    pub async fn filter(&self, pod: &Arc<Value>, nodes: &[Arc<Value>]) -> Result<Filtered, ExtenderError> {
        let verb = self.config.filter_verb.as_str();
        if verb.is_empty() {
            return Ok(Filtered { nodes: names(nodes), ..Filtered::default() });
        }
        let args = self.args(pod, nodes);
        let result: ExtenderFilterResult = self.send(verb, &args).await?;
        self.filtered(verb, nodes, result, self.config.node_cache_capable)
    }

    /// gpu-admission's only verb: filter with whole nodes, whatever the configuration.
    pub async fn predicates(&self, pod: &Arc<Value>, nodes: &[Arc<Value>]) -> Result<Filtered, ExtenderError> {
        let args = ExtenderArgs {
            pod: pod.clone(),
            nodes: Some(NodeList { items: nodes.to_vec(), ..NodeList::default() }),
            node_names: None,
        };
        let result: ExtenderFilterResult = self.send("predicates", &args).await?;
        self.filtered("predicates", nodes, result, false)
    }

    fn filtered(
        &self,
        verb: &str,
        asked: &[Arc<Value>],
        result: ExtenderFilterResult,
        by_name: bool,
    ) -> Result<Filtered, ExtenderError> {
        if !result.error.is_empty() {
            return Err(ExtenderError::Refused(result.error));
        }
        let nodes = match (result.node_names.filter(|_| by_name), result.nodes) {
            (Some(names), _) => names,
            (None, Some(list)) => names(&list.items),
            (None, None) => Vec::new(),
        };
        let known: BTreeSet<&str> = asked.iter().map(|node| object::name(node)).collect();
        if let Some(node) = nodes.iter().find(|node| !known.contains(node.as_str())) {
            return Err(ExtenderError::UnknownNode { url: self.url(verb), node: node.clone() });
        }
        Ok(Filtered { nodes, failed: result.failed_nodes, unresolvable: result.failed_and_unresolvable_nodes })
    }

    /// The extender's scores, unweighted. Without a verb all are zero.
    pub async fn prioritize(
        &self,
        pod: &Arc<Value>,
        nodes: &[Arc<Value>],
    ) -> Result<Vec<HostPriority>, ExtenderError> {
        let verb = self.config.prioritize_verb.as_str();
        if verb.is_empty() {
            let zero = |host| HostPriority { host, score: 0 };
            return Ok(names(nodes).into_iter().map(zero).collect());
        }
        self.send(verb, &self.args(pod, nodes)).await
    }

    /// Asks where evictions help, and of which pods, among these candidates. Without a verb the extender has no say.
    pub(crate) async fn preempt(
        &self,
        pod: &Arc<Value>,
        candidates: Vec<Candidate>,
        on_node: impl Fn(&str) -> Vec<Arc<Value>>,
    ) -> Result<Vec<Candidate>, ExtenderError> {
        let verb = self.config.preempt_verb.as_str();
        if verb.is_empty() || candidates.is_empty() {
            return Ok(candidates);
        }
        let victims =
            |of: &Candidate| (of.node.clone(), Victims { pods: of.victims.clone(), violations: of.violations });
        let meta = |of: &Candidate| {
            let pods = of.victims.iter().map(|pod| MetaPod { uid: object::uid(pod).to_owned() }).collect();
            (of.node.clone(), MetaVictims { pods, violations: of.violations })
        };
        let by_uid = self.config.node_cache_capable;
        let args = ExtenderPreemptionArgs {
            pod: pod.clone(),
            node_name_to_victims: (!by_uid).then(|| candidates.iter().map(victims).collect()),
            node_name_to_meta_victims: by_uid.then(|| candidates.iter().map(meta).collect()),
        };
        let result: ExtenderPreemptionResult = self.send(verb, &args).await?;
        let refuse = |cause: String| ExtenderError::Unreadable { url: self.url(verb), cause };
        let named = result.node_name_to_meta_victims.into_iter().map(|(node, MetaVictims { pods, violations })| {
            if pods.is_empty() {
                return Err(refuse(format!("expected at least one victim pod on node {node:?}")));
            }
            let find = |uid: &str| on_node(&node).into_iter().find(|pod| object::uid(pod) == uid);
            let pod = |MetaPod { uid }: MetaPod| {
                find(&uid).ok_or_else(|| refuse(format!("pod {uid} is not found on node {node:?}")))
            };
            let victims = pods.into_iter().map(pod).collect::<Result<_, _>>()?;
            Ok(Candidate { node, victims, violations })
        });
        named.collect()
    }

    /// Asks the extender to bind a pod.
    pub async fn bind(&self, args: &ExtenderBindingArgs) -> Result<(), ExtenderError> {
        let result: ExtenderBindingResult = self.send(&self.config.bind_verb, args).await?;
        if result.error.is_empty() {
            return Ok(());
        }
        Err(ExtenderError::Refused(result.error))
    }

    /// The request body of filter and prioritize.
    pub fn args(&self, pod: &Arc<Value>, nodes: &[Arc<Value>]) -> ExtenderArgs {
        let by_name = self.config.node_cache_capable;
        ExtenderArgs {
            pod: pod.clone(),
            nodes: (!by_name).then(|| NodeList { items: nodes.to_vec(), ..NodeList::default() }),
            node_names: by_name.then(|| names(nodes)),
        }
    }

    /// Posts anything to a verb; any status but 200 is an error.
    pub async fn send<R: DeserializeOwned>(
        &self,
        verb: &str,
        args: &(impl Serialize + Sync),
    ) -> Result<R, ExtenderError> {
        let url = self.url(verb);
        let unreachable = |error: reqwest::Error| ExtenderError::Unreachable {
            url: url.clone(),
            cause: format!("{:#}", anyhow::Error::new(error)),
        };
        let response = self.http.post(&url).json(args).send().await.map_err(unreachable)?;
        let code = response.status().as_u16();
        let body = response.bytes().await.map_err(unreachable)?;
        if code != 200 {
            return Err(ExtenderError::Status { url, code, body: String::from_utf8_lossy(&body).into_owned() });
        }
        serde_json::from_slice(&body).map_err(|error| ExtenderError::Unreadable { url, cause: error.to_string() })
    }

    fn url(&self, verb: &str) -> String {
        format!("{}/{verb}", self.config.url_prefix.trim_end_matches('/'))
    }
}

fn names(nodes: &[Arc<Value>]) -> Vec<String> {
    nodes.iter().map(|node| object::name(node).to_owned()).collect()
}
