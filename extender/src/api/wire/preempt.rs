//! Arguments and answer of preempt.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::bounded::{self, MAX_PODS, MAX_VICTIMS};
use super::pod;
use super::unreadable::Unreadable;

/// `ExtenderPreemptionArgs`: the body of preempt.
#[derive(Debug, Deserialize)]
pub struct PreemptArgs<'a> {
    /// The pod that others are evicted for, not parsed yet.
    #[serde(rename = "Pod", alias = "pod", borrow)]
    pub pod: &'a RawValue,
    /// The scheduler's victims as whole objects (`nodeCacheCapable: false`), by node, not parsed yet.
    #[serde(
        rename = "NodeNameToVictims",
        alias = "nodeNameToVictims",
        alias = "nodenametovictims",
        borrow,
        default,
        deserialize_with = "bounded::by_node"
    )]
    pub victims: Option<BTreeMap<String, &'a RawValue>>,
    /// The scheduler's victims by uid (`nodeCacheCapable: true`), by node, not parsed yet.
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

/// `Victims`: only the uid of each object is read.
#[derive(Debug, Deserialize)]
pub struct Victims {
    #[serde(rename = "Pods", alias = "pods", default, deserialize_with = "bounded::list::<_, _, MAX_PODS>")]
    pub pods: Option<Vec<VictimPod>>,
    /// How many disruption budgets the evictions break.
    #[serde(rename = "NumPDBViolations", alias = "numPDBViolations", default)]
    pub violations: i64,
}

#[derive(Debug, Deserialize)]
pub struct VictimPod {
    pub metadata: VictimMetadata,
}

#[derive(Debug, Deserialize)]
pub struct VictimMetadata {
    #[serde(default)]
    pub uid: String,
}

/// `MetaVictims`
#[derive(Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct MetaVictims {
    #[serde(rename = "Pods", alias = "pods", default, deserialize_with = "list")]
    pub pods: Vec<MetaPod>,
    /// How many disruption budgets the evictions break; from the scheduler, for its own victims.
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

/// `ExtenderPreemptionResult`: the remaining candidates, with their victims.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PreemptResult {
    pub node_name_to_meta_victims: BTreeMap<String, MetaVictims>,
}

impl<'a> PreemptArgs<'a> {
    /// Parses a body: the pod, and the victims by node.
    pub fn parse(body: &'a [u8]) -> Result<(Pod, BTreeMap<String, MetaVictims>), Unreadable> {
        let args: Self = serde_json::from_slice(body).map_err(|error| Unreadable::json(&error))?;
        let pod = pod::read(args.pod)?;
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
            let read = read.map_err(|error| Unreadable::json(&error))?.unwrap_or_default();
            victims += read.pods.len();
            if victims > MAX_VICTIMS {
                return Err(Unreadable::TooManyVictims);
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
