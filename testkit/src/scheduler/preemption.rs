//! Which pods are evicted so that a pod of higher priority fits, as kube-scheduler's `DefaultPreemption` chooses: on
//! each node by the in-tree checks alone, then with the extender's answer, then one node of those that are left.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::cluster::{Ask, Cluster};
use super::request::{self, Amounts};
use crate::api::object;

/// Budgets as the API shows them, by namespace and name.
pub(crate) type Budgets = BTreeMap<String, Arc<Value>>;

/// A node where room can be made, and the pods to evict for it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) node: String,
    /// The most important first, unless an extender says otherwise.
    pub(crate) victims: Vec<Arc<Value>>,
    /// How many of their evictions violate a disruption budget.
    pub(crate) violations: i64,
}

/// The most important first: by priority, then by earlier start.
fn importance(pod: &Value) -> (Reverse<i64>, bool, &str) {
    let started = object::text(pod, &["status", "startTime"]);
    (Reverse(request::priority(pod)), started.is_empty(), started)
}

/// The nodes where room can be made for the pod, by name; `is_open` tells where that may help.
pub(crate) fn candidates(
    cluster: &Cluster,
    pod: &Value,
    budgets: &Budgets,
    is_open: impl Fn(&str) -> bool,
) -> Vec<Candidate> {
    let ask = Ask::new(pod);
    let mut pods = cluster.pods();
    pods.retain(|node, _| is_open(node));
    let on_node = |(node, pods): (&str, Vec<&Arc<Value>>)| {
        let mut lesser: Vec<_> =
            pods.into_iter().filter(|other| request::priority(other) < request::priority(pod)).collect();
        let mut freed = Amounts::new();
        lesser.iter().for_each(|other| request::add(&mut freed, &request::of_pod(other)));
        if lesser.is_empty() || !cluster.fits_without(&ask, node, &freed) {
            return None;
        }
        lesser.sort_by_key(|other| importance(other));
        let (broken, kept): (Vec<_>, Vec<_>) =
            violating(&lesser, budgets).into_iter().zip(lesser).partition(|(broken, _)| *broken);
        let (mut victims, mut violations) = (Vec::new(), 0);
        for (breaks, other) in broken.into_iter().chain(kept) {
            let without = freed.clone();
            request::subtract(&mut freed, &request::of_pod(other));
            if !cluster.fits_without(&ask, node, &freed) {
                freed = without;
                victims.push(other.clone());
                violations += i64::from(breaks);
            }
        }
        victims.sort_by(|a, b| importance(a).cmp(&importance(b)));
        (!victims.is_empty()).then(|| Candidate { node: node.to_owned(), victims, violations })
    };
    pods.into_iter().filter_map(on_node).collect()
}

/// Which of these pods' evictions, one after the other, violate a budget. Of selectors only `matchLabels` is read.
fn violating(pods: &[&Arc<Value>], budgets: &Budgets) -> Vec<bool> {
    let allowed = |budget: &Value| object::at(budget, &["status", "disruptionsAllowed"]).and_then(Value::as_i64);
    let mut left: Vec<(&Value, i64)> =
        budgets.values().map(|budget| (&**budget, allowed(budget).unwrap_or(0))).collect();
    let selects = |budget: &Value, pod: &Value| {
        let wanted = object::at(budget, &["spec", "selector", "matchLabels"]).and_then(Value::as_object);
        let disrupted = object::at(budget, &["status", "disruptedPods", object::name(pod)]).is_some();
        object::namespace(budget) == object::namespace(pod)
            && !disrupted
            && wanted.is_some_and(|wanted| {
                let has = |(key, value): (&String, &Value)| {
                    object::at(pod, &["metadata", "labels", key.as_str()]) == Some(value)
                };
                !wanted.is_empty() && wanted.iter().all(has)
            })
    };
    let breaks = |pod: &&Arc<Value>| {
        let mut breaks = false;
        for (_, left) in left.iter_mut().filter(|(budget, _)| selects(budget, pod)) {
            *left -= 1;
            breaks |= *left < 0;
        }
        breaks
    };
    pods.iter().map(breaks).collect()
}

/// The node where least is lost: the fewest violated budgets, the least important first victim, the lowest sum of
/// priorities, the fewest victims, those of the highest priority that started last.
pub(crate) fn pick(candidates: Vec<Candidate>) -> Option<Candidate> {
    // so that more victims never make a lower sum
    let weight = |pod: &Arc<Value>| request::priority(pod) + (1 << 31);
    let started = |victims: &[Arc<Value>]| {
        let most = victims.iter().map(|pod| request::priority(pod)).max();
        let highest = victims.iter().filter(|pod| Some(request::priority(pod)) == most);
        highest.map(|pod| object::text(pod, &["status", "startTime"]).to_owned()).min()
    };
    candidates.into_iter().min_by_key(|Candidate { victims, violations, .. }| {
        let first = victims.first().map(|pod| request::priority(pod));
        let sum: i64 = victims.iter().map(weight).sum();
        (*violations, first, sum, victims.len(), Reverse(started(victims)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, node: &str, amount: i64, priority: i64, started: u32) -> Arc<Value> {
        Arc::new(json!({
            "metadata": { "name": uid, "namespace": "ns", "uid": uid, "labels": { "app": uid } },
            "spec": { "nodeName": node, "priority": priority,
                "containers": [{ "resources": { "limits": { "x/y": amount } } }] },
            "status": { "startTime": format!("2026-01-01T00:00:{started:02}Z") },
        }))
    }

    fn cluster(pods: &[Arc<Value>]) -> Cluster {
        let mut cluster = Cluster::new(Vec::new());
        for name in ["a", "b"] {
            cluster.apply_node(Arc::new(
                json!({ "metadata": { "name": name }, "status": { "allocatable": { "x/y": 4 } } }),
            ));
        }
        pods.iter().for_each(|pod| cluster.apply_pod(pod));
        cluster
    }

    fn chosen(pods: &[Arc<Value>], asked: &Value, budgets: &Budgets) -> Option<(String, Vec<String>, i64)> {
        let Candidate { node, victims, violations } = pick(candidates(&cluster(pods), asked, budgets, |_| true))?;
        Some((node, victims.iter().map(|pod| object::uid(pod).to_owned()).collect(), violations))
    }

    fn expected(node: &str, victims: &[&str], violations: i64) -> Option<(String, Vec<String>, i64)> {
        Some((node.to_owned(), victims.iter().map(|uid| (*uid).to_owned()).collect(), violations))
    }

    #[test]
    fn the_least_important_leave_and_no_more_than_have_to() {
        let asked = pod("p", "", 2, 9, 0);
        let none = Budgets::new();
        let on_a = [pod("1", "a", 2, 5, 0), pod("2", "a", 2, 1, 0), pod("3", "b", 4, 9, 0)];
        assert_eq!(chosen(&on_a, &asked, &none), expected("a", &["2"], 0), "equals stay");
        let equal = [pod("1", "a", 2, 1, 7), pod("2", "a", 2, 1, 8), pod("3", "b", 4, 9, 0)];
        assert_eq!(chosen(&equal, &asked, &none), expected("a", &["2"], 0), "who came last leaves");
        assert_eq!(chosen(&[pod("1", "a", 4, 9, 0), pod("2", "b", 4, 9, 0)], &asked, &none), None);
        assert_eq!(chosen(&on_a, &pod("q", "", 5, 9, 0), &none), None, "it would not fit on an empty node");
    }

    #[test]
    fn nodes_are_compared_as_kube_scheduler_does() {
        let asked = pod("p", "", 4, 1000, 0);
        let none = Budgets::new();
        let by = |pods: &[Arc<Value>], node, victims: &[&str]| {
            assert_eq!(chosen(pods, &asked, &none), expected(node, victims, 0));
        };
        by(&[pod("1", "a", 2, 0, 0), pod("2", "a", 2, 900, 0), pod("3", "b", 4, 100, 0)], "b", &["3"]);
        by(
            &[pod("1", "a", 2, 5, 0), pod("2", "a", 2, 4, 0), pod("3", "b", 2, 5, 0), pod("4", "b", 2, 3, 0)],
            "b",
            &["3", "4"],
        );
        by(&[pod("1", "a", 2, 5, 0), pod("2", "a", 2, 5, 0), pod("3", "b", 4, 5, 0)], "b", &["3"]);
        by(&[pod("1", "a", 4, 5, 1), pod("2", "b", 4, 5, 2)], "b", &["2"]);
    }

    #[test]
    fn broken_budgets_weigh_most() {
        let budget = json!({ "metadata": { "name": "b", "namespace": "ns" },
            "spec": { "selector": { "matchLabels": { "app": "1" } } }, "status": { "disruptionsAllowed": 0 } });
        let budgets = Budgets::from([("ns/b".to_owned(), Arc::new(budget))]);
        let pods = [pod("1", "a", 4, 1, 0), pod("2", "b", 4, 5, 0)];
        let asked = pod("p", "", 4, 9, 0);
        assert_eq!(chosen(&pods, &asked, &budgets), expected("b", &["2"], 0));
        assert_eq!(chosen(&pods[..1], &asked, &budgets), expected("a", &["1"], 1));
        // a pod whose eviction violates a budget comes back first
        let pods = [pod("1", "a", 2, 1, 0), pod("2", "a", 2, 5, 0), pod("3", "b", 4, 9, 0)];
        assert_eq!(chosen(&pods, &pod("p", "", 2, 9, 0), &budgets), expected("a", &["2"], 0));
    }
}
