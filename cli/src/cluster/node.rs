//! One node of a cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node as NodeObject, Taint};
use kerf::k8s::{self, Taints};
use kerf::ledger::NodeLedger;

#[derive(Clone, Debug, Default)]
pub struct Node {
    /// With pods that are bound and have not ended, and unbound pods whose record is for this node.
    pub ledger: NodeLedger,
    /// What keeps pods away.
    pub taints: Taints,
    /// The same, as `key=value:effect`.
    pub taint_texts: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Whether containers fail on it because of the node itself.
    pub failing: bool,
    /// Condition `Ready`; `None` where the node does not say, or only a pod names the node.
    pub ready: Option<bool>,
    /// `spec.unschedulable`: `kubectl cordon`.
    pub unschedulable: bool,
}

impl Node {
    /// Everything but the ledger.
    pub(super) fn learn(&mut self, object: &NodeObject) {
        let (spec, status) = (object.spec.as_ref(), object.status.as_ref());
        let conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = { conditions }.find(|condition| condition.type_ == "Ready");
        self.labels = object.metadata.labels.clone().unwrap_or_default();
        (self.taints, self.failing) = (Taints::of(object), k8s::failing(object));
        self.taint_texts = spec.iter().flat_map(|spec| spec.taints.iter().flatten()).map(text).collect();
        self.ready = ready.map(|condition| condition.status == "True");
        self.unschedulable = spec.and_then(|spec| spec.unschedulable).unwrap_or_default();
    }
}

fn text(taint: &Taint) -> String {
    match taint.value.as_deref().filter(|value| !value.is_empty()) {
        Some(value) => format!("{}={value}:{}", taint.key, taint.effect),
        None => format!("{}:{}", taint.key, taint.effect),
    }
}
