//! `k8s.io/kube-scheduler/extender/v1`: Go structs without JSON tags, so the names are Go's.
//!
//! Go reads names in any case, so answers in lower or camel case are accepted as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// The request body of filter and prioritize.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExtenderArgs {
    /// The pod to place, in normal Kubernetes JSON without `kind` and `apiVersion`.
    #[serde(serialize_with = "untyped")]
    pub pod: Arc<Value>,
    /// Whole nodes, if the extender is not node cache capable; otherwise null.
    pub nodes: Option<NodeList>,
    /// Names, if the extender is node cache capable; otherwise null.
    pub node_names: Option<Vec<String>>,
}

/// Normal Kubernetes JSON inside of the Go struct.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeList {
    /// Always empty on the wire.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Whole Node objects.
    #[serde(default, serialize_with = "all_untyped", deserialize_with = "nullable")]
    pub items: Vec<Arc<Value>>,
}

/// The answer of filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExtenderFilterResult {
    /// The nodes that fit, if whole nodes were sent.
    #[serde(alias = "nodes")]
    pub nodes: Option<NodeList>,
    /// The names of the nodes that fit, if names were sent.
    #[serde(alias = "nodeNames", alias = "nodenames")]
    pub node_names: Option<Vec<String>>,
    /// Why the others do not fit; evicting pods may help.
    #[serde(alias = "failedNodes", alias = "failednodes", deserialize_with = "nullable")]
    pub failed_nodes: BTreeMap<String, String>,
    /// Why the others do not fit; evicting pods does not help.
    #[serde(
        alias = "failedAndUnresolvableNodes",
        alias = "failedandunresolvablenodes",
        deserialize_with = "nullable"
    )]
    pub failed_and_unresolvable_nodes: BTreeMap<String, String>,
    /// Not empty: the whole attempt fails.
    #[serde(alias = "error")]
    pub error: String,
}

/// One node's score in the answer of prioritize.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostPriority {
    /// The node's name.
    #[serde(alias = "host")]
    pub host: String,
    /// 0 to 10, more is better.
    #[serde(alias = "score")]
    pub score: i64,
}

/// The request body of bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExtenderBindingArgs {
    /// The pod's name.
    pub pod_name: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's uid.
    #[serde(rename = "PodUID")]
    pub pod_uid: String,
    /// The chosen node.
    pub node: String,
}

/// The answer of bind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExtenderBindingResult {
    /// Not empty: the pod is not bound.
    #[serde(alias = "error")]
    pub error: String,
}

/// The request body of preempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExtenderPreemptionArgs {
    /// The pod for which others make room.
    #[serde(serialize_with = "untyped")]
    pub pod: Arc<Value>,
    /// Victims as whole pods, if the extender is not node cache capable; otherwise null.
    pub node_name_to_victims: Option<BTreeMap<String, Victims>>,
    /// Victims by uid, if the extender is node cache capable; otherwise null.
    pub node_name_to_meta_victims: Option<BTreeMap<String, MetaVictims>>,
}

/// The pods to evict from one node, as whole objects.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Victims {
    /// The most important first.
    #[serde(serialize_with = "all_untyped")]
    pub pods: Vec<Arc<Value>>,
    /// How many of the evictions violate a disruption budget.
    #[serde(rename = "NumPDBViolations")]
    pub violations: i64,
}

/// The pods to evict from one node, by uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MetaVictims {
    /// The most important first.
    #[serde(alias = "pods", deserialize_with = "nullable")]
    pub pods: Vec<MetaPod>,
    /// How many of the evictions violate a disruption budget.
    #[serde(rename = "NumPDBViolations", alias = "numPDBViolations")]
    pub violations: i64,
}

/// A pod that is known by uid only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaPod {
    /// The pod's uid.
    #[serde(rename = "UID", alias = "uid", default)]
    pub uid: String,
}

/// The answer of preempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExtenderPreemptionResult {
    /// The nodes where evictions help.
    #[serde(alias = "nodeNameToMetaVictims", deserialize_with = "nullable")]
    pub node_name_to_meta_victims: BTreeMap<String, MetaVictims>,
}

/// Go's nil maps and slices are null.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// An object without `kind` and `apiVersion`: the scheduler's typed objects have none.
struct Untyped<'a>(&'a Value);

impl Serialize for Untyped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(object) = self.0.as_object() else {
            return self.0.serialize(serializer);
        };
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in object {
            if name != "kind" && name != "apiVersion" {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

fn untyped<S: Serializer>(object: &Arc<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    Untyped(object).serialize(serializer)
}

fn all_untyped<S: Serializer>(objects: &[Arc<Value>], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(objects.len()))?;
    for object in objects {
        list.serialize_element(&Untyped(object))?;
    }
    list.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_have_gos_names_and_explicit_nulls() {
        let pod = Arc::new(json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "name": "a" } }));
        let names = ExtenderArgs { pod: pod.clone(), nodes: None, node_names: Some(vec!["n".into()]) };
        assert_eq!(
            serde_json::to_string(&names).expect("json"),
            r#"{"Pod":{"metadata":{"name":"a"}},"Nodes":null,"NodeNames":["n"]}"#
        );
        let node = Arc::new(json!({ "kind": "Node", "metadata": { "name": "n" } }));
        let nodes = NodeList { items: vec![node], ..NodeList::default() };
        let whole = ExtenderArgs { pod, nodes: Some(nodes), node_names: None };
        assert_eq!(
            serde_json::to_string(&whole).expect("json"),
            r#"{"Pod":{"metadata":{"name":"a"}},"Nodes":{"metadata":{},"items":[{"metadata":{"name":"n"}}]},"NodeNames":null}"#
        );
        let bind = ExtenderBindingArgs {
            pod_name: "a".into(),
            pod_namespace: "ns".into(),
            pod_uid: "u".into(),
            node: "n".into(),
        };
        assert_eq!(
            serde_json::to_string(&bind).expect("json"),
            r#"{"PodName":"a","PodNamespace":"ns","PodUID":"u","Node":"n"}"#
        );
    }

    #[test]
    fn answers_are_read_in_any_case_and_with_nulls() {
        let upper: ExtenderFilterResult = serde_json::from_value(json!({
            "Nodes": null, "NodeNames": ["n"], "FailedNodes": null, "FailedAndUnresolvableNodes": { "m": "why" }, "Error": ""
        }))
        .expect("valid");
        assert_eq!(upper.node_names, Some(vec!["n".into()]));
        assert_eq!(upper.failed_and_unresolvable_nodes.get("m").map(String::as_str), Some("why"));
        let lower: ExtenderFilterResult =
            serde_json::from_value(json!({ "nodenames": ["n"], "error": "e" })).expect("valid");
        assert_eq!((lower.node_names, lower.error.as_str()), (Some(vec!["n".into()]), "e"));
    }
}
