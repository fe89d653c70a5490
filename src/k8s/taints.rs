//! What keeps pods off a Node that has room: taints, `spec.unschedulable`, or its deletion. Matched as kube-scheduler
//! does (`k8s.io/api/core/v1/toleration.go`, its plugins `TaintToleration` and `NodeUnschedulable`).

use std::fmt;

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

/// The taint for `spec.unschedulable`: pods that tolerate it may be bound there.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// What closes a Node to some pods, or to all. For most Nodes empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taints {
    deleting: bool,
    unschedulable: bool,
    /// Those with the effect `NoSchedule` or `NoExecute`; others keep no pod away.
    taints: Box<[Taint]>,
}

/// Why a pod may not be bound to a Node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Closed<'a> {
    Deleting,
    /// `spec.unschedulable`: the Node is cordoned
    Unschedulable,
    /// A taint that the pod does not tolerate.
    Taint(&'a Taint),
}

impl Taints {
    pub fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        let closing = |taint: &&Taint| [NO_SCHEDULE, NO_EXECUTE].contains(&&*taint.effect);
        Self {
            deleting: node.metadata.deletion_timestamp.is_some(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or_default(),
            taints: taints.filter(closing).cloned().collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Why a pod with these tolerations may not be bound here; `None` where it may.
    pub fn close(&self, tolerations: &[Toleration]) -> Option<Closed<'_>> {
        let tolerated = |key: &str, value: &str, effect: &str| {
            tolerations.iter().any(|toleration| tolerates(toleration, key, value, effect))
        };
        if self.deleting {
            return Some(Closed::Deleting);
        }
        if self.unschedulable && !tolerated(UNSCHEDULABLE, "", NO_SCHEDULE) {
            return Some(Closed::Unschedulable);
        }
        let intolerable = |taint: &&Taint| !tolerated(&taint.key, text(taint.value.as_ref()), &taint.effect);
        self.taints.iter().find(intolerable).map(Closed::Taint)
    }
}

/// `spec.tolerations[]` of a pod.
pub fn tolerations(pod: &Pod) -> Box<[Toleration]> {
    pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten()).cloned().collect()
}

fn tolerates(toleration: &Toleration, key: &str, value: &str, effect: &str) -> bool {
    let (own_key, own_effect) = (text(toleration.key.as_ref()), text(toleration.effect.as_ref()));
    if !own_effect.is_empty() && own_effect != effect || !own_key.is_empty() && own_key != key {
        return false;
    }
    let own = text(toleration.value.as_ref());
    let compare = |holds: fn(&i64, &i64) -> bool| {
        integer(value).zip(integer(own)).is_some_and(|(taint, own)| holds(&taint, &own))
    };
    match text(toleration.operator.as_ref()) {
        "" | "Equal" => own == value,
        "Exists" => true,
        // the taint's value is a number below the toleration's; an API server that does not know this rejects it
        "Lt" => compare(i64::lt),
        "Gt" => compare(i64::gt),
        // an operator of a later Kubernetes
        _ => false,
    }
}

fn text(field: Option<&String>) -> &str {
    field.map_or("", String::as_str)
}

/// A decimal integer in the one form that Kubernetes accepts: no `+`, no leading zeros.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = text == "0" || !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    if canonical { text.parse().ok() } else { None }
}

impl fmt::Display for Closed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deleting => f.write_str("is being deleted"),
            Self::Unschedulable => f.write_str("is unschedulable"),
            Self::Taint(Taint { key, value, effect, .. }) => {
                let value = text(value.as_ref());
                let equals = if value.is_empty() { "" } else { "=" };
                write!(f, "has a taint that the pod does not tolerate: {key}{equals}{value}:{effect}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn taints(spec: Value) -> Taints {
        Taints::of(&serde_json::from_value(json!({ "metadata": { "name": "n" }, "spec": spec })).unwrap())
    }

    fn tolerations(tolerations: Value) -> Box<[Toleration]> {
        let pod = json!({ "metadata": {}, "spec": { "containers": [], "tolerations": tolerations } });
        super::tolerations(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn tolerations_match_as_kube_scheduler_has_it() {
        let cases = [
            // (key, value, effect) of the taint; the toleration; whether it is tolerated
            (("k", "v", "NoSchedule"), json!({ "key": "k", "value": "v", "effect": "NoSchedule" }), true),
            (("k", "v", "NoSchedule"), json!({ "key": "k", "operator": "Equal", "value": "v" }), true),
            (("k", "v", "NoExecute"), json!({ "key": "k", "operator": "", "value": "v" }), true),
            (("k", "v", "NoSchedule"), json!({ "key": "k", "value": "w" }), false),
            (("k", "v", "NoSchedule"), json!({ "key": "k" }), false),
            (("k", "", "NoSchedule"), json!({ "key": "k" }), true),
            (("k", "v", "NoSchedule"), json!({ "key": "k", "operator": "Exists" }), true),
            (("k", "v", "NoSchedule"), json!({ "key": "j", "operator": "Exists" }), false),
            (("k", "v", "NoSchedule"), json!({ "operator": "Exists" }), true),
            (("k", "v", "NoExecute"), json!({ "operator": "Exists", "effect": "NoSchedule" }), false),
            (
                ("k", "v", "NoExecute"),
                json!({ "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1 }),
                true,
            ),
            // an empty key with Equal: any taint with that value
            (("k", "v", "NoSchedule"), json!({ "value": "v" }), true),
            (("k", "9", "NoSchedule"), json!({ "key": "k", "operator": "Lt", "value": "10" }), true),
            (("k", "10", "NoSchedule"), json!({ "key": "k", "operator": "Lt", "value": "10" }), false),
            (("k", "11", "NoSchedule"), json!({ "key": "k", "operator": "Gt", "value": "10" }), true),
            (("k", "-11", "NoSchedule"), json!({ "key": "k", "operator": "Gt", "value": "-12" }), true),
            (("k", "011", "NoSchedule"), json!({ "key": "k", "operator": "Gt", "value": "10" }), false),
            (("k", "+11", "NoSchedule"), json!({ "key": "k", "operator": "Gt", "value": "10" }), false),
            (("k", "-0", "NoSchedule"), json!({ "key": "k", "operator": "Lt", "value": "10" }), false),
            (("k", "", "NoSchedule"), json!({ "key": "k", "operator": "Lt", "value": "10" }), false),
            (("k", "x", "NoSchedule"), json!({ "key": "k", "operator": "Lt", "value": "10" }), false),
            (
                ("k", "99999999999999999999", "NoSchedule"),
                json!({ "key": "k", "operator": "Gt", "value": "1" }),
                false,
            ),
            (("k", "v", "NoSchedule"), json!({ "key": "k", "operator": "exists", "value": "v" }), false),
        ];
        for ((key, value, effect), toleration, tolerated) in cases {
            let taints = taints(json!({ "taints": [{ "key": key, "value": value, "effect": effect }] }));
            let found = taints.close(&tolerations(json!([{ "key": "other", "operator": "Exists" }, toleration])));
            assert_eq!(found.is_none(), tolerated, "{key}={value}:{effect} {toleration}");
            assert!(taints.close(&[]).is_some());
        }
    }

    #[test]
    fn every_taint_must_be_tolerated_and_preferences_keep_nobody_away() {
        let two = taints(json!({ "taints": [
            { "key": "soft", "effect": "PreferNoSchedule" }, { "key": "a", "effect": "NoSchedule" },
            { "key": "b", "value": "x", "effect": "NoExecute" }, { "key": "odd", "effect": "Later" },
        ] }));
        let a = tolerations(json!([{ "key": "a", "operator": "Exists" }]));
        let found = two.close(&a).unwrap();
        assert_eq!(found.to_string(), "has a taint that the pod does not tolerate: b=x:NoExecute");
        assert_eq!(two.close(&[]).unwrap().to_string(), "has a taint that the pod does not tolerate: a:NoSchedule");
        let both = tolerations(json!([{ "key": "a", "operator": "Exists" }, { "key": "b", "value": "x" }]));
        assert_eq!(two.close(&both), None);
        assert!(taints(json!({ "taints": [{ "key": "soft", "effect": "PreferNoSchedule" }] })).is_empty());
        assert!(Taints::of(&Node::default()).is_empty());
    }

    #[test]
    fn an_unschedulable_node_takes_those_who_tolerate_it() {
        let cordoned = taints(json!({ "unschedulable": true }));
        assert_eq!(cordoned.close(&[]), Some(Closed::Unschedulable));
        for tolerated in [
            json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule" }),
            json!({ "key": "node.kubernetes.io/unschedulable" }),
            json!({ "operator": "Exists" }),
        ] {
            assert_eq!(cordoned.close(&tolerations(json!([tolerated]))), None, "{tolerated}");
        }
        let wrong =
            json!([{ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoExecute" }]);
        assert_eq!(cordoned.close(&tolerations(wrong)), Some(Closed::Unschedulable));
        assert!(taints(json!({ "unschedulable": false })).is_empty());
    }

    #[test]
    fn nobody_is_bound_to_a_node_that_is_being_deleted() {
        let node = json!({ "metadata": { "name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z" } });
        let leaving = Taints::of(&serde_json::from_value(node).unwrap());
        let all = tolerations(json!([{ "operator": "Exists" }]));
        assert_eq!(leaving.close(&all), Some(Closed::Deleting));
    }
}
