//! The extender contract's JSON: Go field names without tags. Written in their own case; read in both.

mod bounded;
mod names;
mod node_name;

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use bounded::{MAX_NODES, MAX_PODS, MAX_VICTIMS, unreadable};
use names::Form;

/// `ExtenderArgs`: the body of filter, prioritize and predicates.
#[derive(Debug, Deserialize)]
pub struct Args<'a> {
    /// The pod to place, unread.
    #[serde(rename = "Pod", alias = "pod", borrow)]
    pub pod: &'a RawValue,
    /// Candidates as whole objects (`nodeCacheCapable: false`).
    #[serde(rename = "Nodes", alias = "nodes", borrow, default)]
    pub nodes: Option<Nodes<'a>>,
    /// Candidates by name (`nodeCacheCapable: true`).
    #[serde(
        rename = "NodeNames",
        alias = "nodenames",
        alias = "nodeNames",
        borrow,
        default,
        deserialize_with = "bounded::list::<_, _, MAX_NODES>"
    )]
    pub node_names: Option<Vec<Name<'a>>>,
}

/// A node's name, borrowed from the body where it has no escapes. (serde does not borrow the items of a list of
/// `Cow` by itself.)
#[derive(Debug, Deserialize)]
pub struct Name<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A `NodeList` whose items are passed on as they came.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Nodes<'a> {
    /// The nodes.
    #[serde(borrow, default, deserialize_with = "items")]
    pub items: Vec<&'a RawValue>,
}

fn items<'de: 'a, 'a, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<&'a RawValue>, D::Error> {
    Ok(bounded::list::<_, &'de RawValue, MAX_NODES>(deserializer)?.unwrap_or_default())
}

/// The candidates of one call, in the form in which they came.
#[derive(Debug)]
pub enum Candidates<'a> {
    /// By name.
    Names(Vec<Name<'a>>),
    /// As objects, with their names.
    Objects(Vec<(Cow<'a, str>, &'a RawValue)>),
}

impl<'a> Args<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// A text for the answer's `Error`.
    pub fn parse(body: &'a [u8]) -> Result<(Pod, Candidates<'a>), String> {
        serde_json::from_slice::<Self>(body).map_err(|error| unreadable(&error))?.split()
    }

    /// Splits the body into pod and candidates. Names win where both are given; neither is no candidate.
    ///
    /// # Errors
    /// A text where the pod cannot be read or is named as no pod is, or where a node object has no name.
    fn split(self) -> Result<(Pod, Candidates<'a>), String> {
        let pod = checked(self.pod)?;
        let candidates = match (self.node_names, self.nodes) {
            (Some(names), _) => Candidates::Names(names),
            (None, Some(nodes)) => Candidates::Objects(
                nodes
                    .items
                    .into_iter()
                    .map(|raw| {
                        let name = node_name::of(raw).ok_or("a node of the request has no name")?;
                        Ok((name, raw))
                    })
                    .collect::<Result<_, String>>()?,
            ),
            (None, None) => Candidates::Names(Vec::new()),
        };
        Ok((pod, candidates))
    }
}

fn checked(pod: &RawValue) -> Result<Pod, String> {
    let pod = bounded::pod(pod)?;
    names::of_pod(&pod)?;
    Ok(pod)
}

impl<'a> Candidates<'a> {
    /// How many there are.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        match self {
            Self::Names(names) => names.len(),
            Self::Objects(objects) => objects.len(),
        }
    }

    /// The candidates' names, in the order given.
    pub fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Names(names) => Box::new(names.iter().map(|name| name.0.as_ref())),
            Self::Objects(objects) => Box::new(objects.iter().map(|(name, _)| name.as_ref())),
        }
    }

    /// An answer with the candidates for whose place and name `keeps` holds, in the form in which they came.
    pub fn keep(&self, keeps: impl Fn(usize, &str) -> bool) -> FilterResult<'_> {
        let mut result = FilterResult::default();
        match self {
            Self::Names(names) => {
                let names = names.iter().map(|name| name.0.as_ref()).enumerate();
                result.node_names =
                    Some(names.filter(|(at, name)| keeps(*at, name)).map(|(_, name)| name).collect());
            }
            Self::Objects(objects) => {
                let kept =
                    objects.iter().enumerate().filter(|(at, (name, _))| keeps(*at, name)).map(|(_, (_, raw))| *raw);
                result.nodes = Some(Nodes { items: kept.collect() });
            }
        }
        result
    }
}

/// `ExtenderFilterResult`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FilterResult<'a> {
    /// Nodes that fit, where objects were sent.
    pub nodes: Option<Nodes<'a>>,
    /// Nodes that fit, where names were sent.
    pub node_names: Option<Vec<&'a str>>,
    /// Nodes that do not fit, but could after evictions; with reasons.
    pub failed_nodes: BTreeMap<&'a str, Cow<'a, str>>,
    /// Nodes that eviction cannot mend; with reasons.
    pub failed_and_unresolvable_nodes: BTreeMap<&'a str, Cow<'a, str>>,
    /// Why the call failed; empty where it did not.
    pub error: String,
}

impl FilterResult<'_> {
    /// The call failed.
    pub fn failed(error: String) -> Self {
        Self { error, ..Self::default() }
    }
}

/// `HostPriority`: an item of prioritize's answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostPriority<'a> {
    /// The node.
    pub host: &'a str,
    /// 0 (worst) to 10 (best).
    pub score: i64,
}

/// `ExtenderPreemptionArgs`: the body of preempt.
#[derive(Debug, Deserialize)]
pub struct PreemptArgs<'a> {
    /// The pod that others are to make room for, unread.
    #[serde(rename = "Pod", alias = "pod", borrow)]
    pub pod: &'a RawValue,
    /// The scheduler's victims as whole objects (`nodeCacheCapable: false`), by node, unread.
    #[serde(
        rename = "NodeNameToVictims",
        alias = "nodeNameToVictims",
        alias = "nodenametovictims",
        borrow,
        default,
        deserialize_with = "bounded::by_node"
    )]
    pub victims: Option<BTreeMap<String, &'a RawValue>>,
    /// The scheduler's victims by uid (`nodeCacheCapable: true`), by node, unread.
    #[serde(
        rename = "NodeNameToMetaVictims",
        alias = "nodeNameToMetaVictims",
        alias = "nodenametometavictims",
        borrow,
        default,
        deserialize_with = "bounded::by_node"
    )]
    pub meta_victims: Option<BTreeMap<String, &'a RawValue>>,
}

/// `Victims`: of the objects nothing but their uid is read.
#[derive(Debug, Deserialize)]
pub struct Victims {
    /// Who is to leave.
    #[serde(rename = "Pods", alias = "pods", default, deserialize_with = "bounded::list::<_, _, MAX_PODS>")]
    pub pods: Option<Vec<VictimPod>>,
    /// How many disruption budgets that would break.
    #[serde(rename = "NumPDBViolations", alias = "numPDBViolations", default)]
    pub violations: i64,
}

/// A Pod, of which the uid matters.
#[derive(Debug, Deserialize)]
pub struct VictimPod {
    /// Its metadata.
    pub metadata: VictimMetadata,
}

/// A Pod's metadata.
#[derive(Debug, Deserialize)]
pub struct VictimMetadata {
    /// `metadata.uid`
    #[serde(default)]
    pub uid: String,
}

/// `MetaVictims`
#[derive(Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct MetaVictims {
    /// Who is to leave.
    #[serde(rename = "Pods", alias = "pods", default, deserialize_with = "list")]
    pub pods: Vec<MetaPod>,
    /// How many disruption budgets that would break, by the scheduler's count of its own victims.
    #[serde(rename = "NumPDBViolations", alias = "numPDBViolations", default)]
    pub violations: i64,
}

/// Go writes an empty list as `null`.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<MetaPod>, D::Error> {
    Ok(bounded::list::<_, _, MAX_PODS>(deserializer)?.unwrap_or_default())
}

/// `MetaPod`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct MetaPod {
    /// `metadata.uid` of the pod.
    #[serde(rename = "UID", alias = "uid")]
    pub uid: String,
}

/// `ExtenderPreemptionResult`: candidates that are left, with their victims.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PreemptResult {
    /// By node.
    pub node_name_to_meta_victims: BTreeMap<String, MetaVictims>,
}

impl<'a> PreemptArgs<'a> {
    /// Reads a body: the pod, and who is to leave which node.
    ///
    /// # Errors
    /// A text for the log.
    pub fn parse(body: &'a [u8]) -> Result<(Pod, BTreeMap<String, MetaVictims>), String> {
        let args: Self = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
        let pod = checked(args.pod)?;
        let (nodes, whole) = match (args.meta_victims, args.victims) {
            (Some(nodes), _) => (nodes, false),
            (None, nodes) => (nodes.unwrap_or_default(), true),
        };
        let mut candidates = BTreeMap::new();
        let mut victims = 0;
        for (node, text) in nodes {
            let read = if whole {
                serde_json::from_str::<Option<Victims>>(text.get()).map(|victims| victims.map(MetaVictims::from))
            } else {
                serde_json::from_str(text.get())
            };
            let read = read.map_err(|error| unreadable(&error))?.unwrap_or_default();
            victims += read.pods.len();
            if victims > MAX_VICTIMS {
                return Err(format!("request cannot be read: more than {MAX_VICTIMS} victims"));
            }
            candidates.insert(node, read);
        }
        Ok((pod, candidates))
    }
}

impl From<Victims> for MetaVictims {
    fn from(victims: Victims) -> Self {
        let pods = victims.pods.into_iter().flatten().map(|pod| MetaPod { uid: pod.metadata.uid });
        Self { pods: pods.collect(), violations: victims.violations }
    }
}

/// `ExtenderBindingArgs`: the body of bind.
#[derive(Debug, Deserialize)]
pub struct BindArgs {
    /// `metadata.name` of the pod.
    #[serde(rename = "PodName", alias = "podName", alias = "podname")]
    pub pod_name: String,
    /// `metadata.namespace` of the pod.
    #[serde(rename = "PodNamespace", alias = "podNamespace", alias = "podnamespace")]
    pub pod_namespace: String,
    /// `metadata.uid` of the pod.
    #[serde(rename = "PodUID", alias = "podUID", alias = "podUid", alias = "poduid")]
    pub pod_uid: String,
    /// The node to bind to.
    #[serde(rename = "Node", alias = "node")]
    pub node: String,
}

impl BindArgs {
    /// Reads a body.
    ///
    /// # Errors
    /// A text for the answer's `Error`, which names the field that is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let args: Self = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
        Form::Subdomain.check("PodName", &args.pod_name)?;
        Form::Label.check("PodNamespace", &args.pod_namespace)?;
        Form::Uid.check("PodUID", &args.pod_uid)?;
        Form::Subdomain.check("Node", &args.node)?;
        Ok(args)
    }
}

/// `ExtenderBindingResult`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BindResult {
    /// Why the pod is not bound; empty where it is.
    pub error: String,
}
