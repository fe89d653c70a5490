//! The parts of the Node that are read: only those that are used, so that nothing else that other clients write on
//! it makes it unreadable; and the changes to it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kerf::annotation::Keys;
use kerf::units::parse_quantity;
use kube::Resource;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(super) struct NodeView {
    pub(super) metadata: Metadata,
    pub(super) spec: Option<Spec>,
    pub(super) status: Option<Status>,
}

/// The Node as the watch reads it. Its conditions are not read, so nothing that is wrong with them matters.
#[derive(Clone, Debug, Deserialize)]
pub struct WatchedNode {
    metadata: ObjectMeta,
    spec: Option<Spec>,
    status: Option<Offers>,
}

impl Resource for WatchedNode {
    type DynamicType = ();
    type Scope = <Node as Resource>::Scope;

    fn kind(dt: &()) -> Cow<'_, str> {
        <Node as Resource>::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        <Node as Resource>::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        <Node as Resource>::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        <Node as Resource>::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// `NodeSpec` of Kubernetes' API.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Spec {
    /// As they are, so that fields that a later Kubernetes adds are written back.
    taints: Option<Vec<Value>>,
}

impl Spec {
    /// The taints other than the startup taint; `None` where that is not among them.
    fn beside(&self, startup: &str) -> Option<Vec<Value>> {
        let taints = self.taints.as_deref().unwrap_or_default();
        let rest: Vec<Value> = taints.iter().filter(|taint| taint["key"] != startup).cloned().collect();
        (rest.len() < taints.len()).then_some(rest)
    }
}

/// A part of `NodeStatus` of Kubernetes' API.
#[derive(Clone, Debug, Default, Deserialize)]
struct Offers {
    allocatable: Option<BTreeMap<String, String>>,
}

/// The resources of which there is at least one.
fn offered(allocatable: Option<&BTreeMap<String, String>>) -> BTreeSet<String> {
    let amounts = allocatable.into_iter().flatten();
    let some = amounts.filter(|(_, amount)| parse_quantity(amount).is_ok_and(|amount| amount > 0));
    some.map(|(name, _)| name.clone()).collect()
}

/// A Node that has the startup taint, as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Starting {
    pub uid: String,
    pub resource_version: String,
    /// Its other taints.
    pub taints: Vec<Value>,
    pub inventory: Option<String>,
    /// The resources that it offers.
    pub offered: BTreeSet<String>,
}

impl NodeView {
    /// `None` without the startup taint. What the API server sends has a uid and a version.
    pub(super) fn starting(self, keys: &Keys) -> Option<Starting> {
        let taints = self.spec?.beside(&keys.starting)?;
        Some(Starting {
            uid: self.metadata.uid?,
            resource_version: self.metadata.resource_version?,
            taints,
            inventory: self.metadata.annotations.and_then(|mut all| all.remove(&keys.inventory)),
            offered: offered(self.status.and_then(|status| status.allocatable).as_ref()),
        })
    }
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

/// What the Node shows that concerns the plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeShown {
    pub inventory: Option<String>,
    pub cordon: Option<String>,
    /// While it has the startup taint: the resources that it offers.
    pub starting: Option<BTreeSet<String>>,
}

impl NodeShown {
    pub fn of(node: &WatchedNode, keys: &Keys) -> Self {
        let annotation = |key: &str| node.metadata.annotations.as_ref()?.get(key).cloned();
        let offered = || offered(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        let tainted = node.spec.as_ref().is_some_and(|spec| spec.beside(&keys.starting).is_some());
        Self {
            inventory: annotation(&keys.inventory),
            cordon: annotation(&keys.cordon),
            starting: tainted.then(offered),
        }
    }
}

/// `NodeStatus` of Kubernetes' API.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    allocatable: Option<BTreeMap<String, String>>,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn node(taints: &[Value], allocatable: &Value) -> Value {
        json!({
            "metadata": { "name": "n", "uid": "u", "resourceVersion": "7" },
            "spec": { "taints": taints },
            "status": { "allocatable": allocatable },
        })
    }

    #[test]
    fn a_resource_is_offered_where_there_is_one_of_it() {
        let amounts = json!({ "cpu": "1500m", "a.b/c": "0", "a.b/d": "1", "a.b/e": "2k", "a.b/f": "?" });
        let view: NodeView = serde_json::from_value(node(&[json!({ "key": "x/gpu-starting" })], &amounts)).unwrap();
        let keys = Keys { starting: "x/gpu-starting".to_owned(), ..Keys::default() };
        let offered = view.starting(&keys).unwrap().offered;
        assert_eq!(offered.into_iter().collect::<Vec<_>>(), ["a.b/d", "a.b/e"]);
    }

    #[test]
    fn a_node_without_spec_or_status_has_no_taint() {
        let keys = Keys::default();
        for text in
            [r#"{"metadata":{}}"#, r#"{"metadata":{},"spec":{}}"#, r#"{"metadata":{},"spec":{"taints":[]}}"#]
        {
            assert_eq!(serde_json::from_str::<NodeView>(text).unwrap().starting(&keys), None);
            let watched: WatchedNode = serde_json::from_str(text).unwrap();
            assert_eq!(NodeShown::of(&watched, &keys), NodeShown::default());
        }
    }

    proptest! {
        /// Of all taints the startup taint alone is left out, whatever its value and effect; the others keep their order
        /// and their fields.
        #[test]
        fn other_taints_stay_as_they_are(
            all in proptest::collection::vec((0..4_usize, "[a-z]{0,3}", prop::option::of("[A-Z]{1,3}")), 0..6),
        ) {
            let keys = Keys::default();
            let names = [&*keys.starting, "inspur.com/vcuda-core", "inspur.com/gpu-startin", "gpu-starting"];
            let taints: Vec<Value> = all
                .iter()
                .map(|(name, value, added)| json!({ "key": names[*name], "value": value, "effect": "NoSchedule", "timeAdded": added }))
                .collect();
            let others: Vec<Value> = taints.iter().filter(|taint| taint["key"] != names[0]).cloned().collect();
            let object = node(&taints, &json!({}));
            let view: NodeView = serde_json::from_value(object.clone()).unwrap();
            let starting = view.starting(&keys);
            let watched: WatchedNode = serde_json::from_value(object).unwrap();
            prop_assert_eq!(NodeShown::of(&watched, &keys).starting.is_some(), starting.is_some());
            prop_assert_eq!(starting.is_some(), others.len() < taints.len());
            if let Some(starting) = starting {
                prop_assert_eq!(starting.taints, others);
            }
        }
    }
}
