//! Disruption budgets (PodDisruptionBudgets of policy/v1): which evictions break one.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::PodRef;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub namespace: String,
    pub selector: Selector,
    /// `status.disruptionsAllowed`
    pub allowed: i32,
    /// Names of pods whose disruption is already counted: `status.disruptedPods`.
    pub disrupted: BTreeSet<String>,
}

/// A label selector. All requirements must hold; without any, it matches every pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `In`, and `matchLabels`
    In(String, BTreeSet<String>),
    /// `NotIn`; a pod without the label meets it.
    NotIn(String, BTreeSet<String>),
    /// `Exists`
    Exists(String),
    /// `DoesNotExist`
    DoesNotExist(String),
    /// Matches no pod: an unknown operator, or a budget without a selector.
    Never,
}

impl Selector {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => !labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::DoesNotExist(key) => !labels.contains_key(key),
            Requirement::Never => false,
        })
    }
}

impl Budget {
    /// Whether a disruption of this pod counts against the budget.
    fn counts(&self, pod: &PodRef, labels: &BTreeMap<String, String>) -> bool {
        *self.namespace == *pod.namespace && self.selector.matches(labels) && !self.disrupted.contains(&*pod.name)
    }
}

/// Which of these pods, disrupted one after the other, break a budget, as kube-scheduler counts.
pub fn violations<'a>(
    budgets: &[impl AsRef<Budget>],
    pods: impl Iterator<Item = (&'a PodRef, &'a BTreeMap<String, String>)>,
) -> Vec<bool> {
    let mut allowed: Vec<i32> = budgets.iter().map(|budget| budget.as_ref().allowed).collect();
    pods.map(|(pod, labels)| {
        let mut broken = false;
        for (budget, allowed) in budgets.iter().zip(&mut allowed) {
            if budget.as_ref().counts(pod, labels) {
                *allowed = allowed.saturating_sub(1);
                broken |= *allowed < 0;
            }
        }
        broken
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn set(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn selectors_are_read_as_kubernetes_reads_them() {
        let pod = labels(&[("app", "web")]);
        let meets = |requirement| Selector(vec![requirement]).matches(&pod);
        assert!(meets(Requirement::In("app".into(), set(&["web", "db"]))));
        assert!(!meets(Requirement::In("tier".into(), set(&["web"]))));
        assert!(meets(Requirement::NotIn("tier".into(), set(&["web"]))));
        assert!(!meets(Requirement::NotIn("app".into(), set(&["web"]))));
        assert!(meets(Requirement::Exists("app".into())) && !meets(Requirement::DoesNotExist("app".into())));
        assert!(!meets(Requirement::Never));
        assert!(Selector::default().matches(&labels(&[])), "an empty selector is for every pod");
    }

    #[test]
    fn a_budget_is_used_up_by_its_own_pods_and_not_by_those_counted_already() {
        let budget = Arc::new(Budget {
            namespace: "ns".into(),
            selector: Selector(vec![Requirement::Exists("app".into())]),
            allowed: 1,
            disrupted: set(&["counted"]),
        });
        let (web, none) = (labels(&[("app", "web")]), labels(&[]));
        let pod = |namespace: &str, name: &str| PodRef::new(namespace, name);
        let pods = [
            (pod("ns", "counted"), &web),
            (pod("other", "b"), &web),
            (pod("ns", "without"), &none),
            (pod("ns", "first"), &web),
            (pod("ns", "second"), &web),
        ];
        let found = violations(&[budget], pods.iter().map(|(pod, labels)| (pod, *labels)));
        assert_eq!(found, [false, false, false, false, true]);
    }
}
