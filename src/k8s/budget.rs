//! PodDisruptionBudgets as domain values.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::disruption::{Budget, Requirement, Selector};
use crate::ids::PodRef;

/// Translates a budget. `None` where it has no name, which the API server never sends.
pub fn budget(object: &PodDisruptionBudget) -> Option<(PodRef, Budget)> {
    let namespace = object.metadata.namespace.as_deref()?;
    let name = PodRef::new(namespace, object.metadata.name.as_deref()?);
    let selector = object.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let status = object.status.as_ref();
    let budget = Budget {
        namespace: namespace.to_owned(),
        // without a selector it matches no pod, with an empty one all pods
        selector: selector.map_or_else(|| Selector(vec![Requirement::Never]), read),
        // a budget that its controller has not counted yet allows no disruption
        allowed: status.map_or(0, |status| status.disruptions_allowed),
        disrupted: status
            .iter()
            .flat_map(|status| status.disrupted_pods.iter().flatten())
            .map(|(name, _)| name.clone())
            .collect(),
    };
    Some((name, budget))
}

fn read(selector: &LabelSelector) -> Selector {
    let labels = selector.match_labels.iter().flatten();
    let labels = labels.map(|(key, value)| Requirement::In(key.clone(), [value.clone()].into()));
    let expressions = selector.match_expressions.iter().flatten().map(|expression| {
        let (key, values) = (expression.key.clone(), expression.values.iter().flatten().cloned().collect());
        match expression.operator.as_str() {
            "In" => Requirement::In(key, values),
            "NotIn" => Requirement::NotIn(key, values),
            "Exists" => Requirement::Exists(key),
            "DoesNotExist" => Requirement::DoesNotExist(key),
            _ => Requirement::Never,
        }
    });
    Selector(labels.chain(expressions).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn selects(selector: Value, labels: &[(&str, &str)]) -> bool {
        let object = json!({ "metadata": { "name": "b", "namespace": "ns" }, "spec": { "selector": selector } });
        let (_, budget) = budget(&serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!(budget.allowed, 0, "not counted yet");
        budget.selector.matches(&labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn an_empty_selector_is_for_all_pods_and_a_missing_one_for_none() {
        assert!(selects(json!({}), &[]));
        assert!(!selects(Value::Null, &[("app", "web")]));
        assert!(selects(json!({ "matchLabels": { "app": "web" } }), &[("app", "web"), ("x", "y")]));
        let not = json!({ "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["web"] }] });
        assert!(selects(not.clone(), &[]) && !selects(not, &[("app", "web")]));
        let odd = json!({ "matchExpressions": [{ "key": "app", "operator": "Like", "values": ["web"] }] });
        assert!(!selects(odd, &[("app", "web")]));
    }
}
