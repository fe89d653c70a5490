//! The scheduler's own picture of nodes and of what pods hold on them, assumed pods included.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use super::request::{self, Amounts};
use crate::api::object;

/// The resources that one pod holds.
#[derive(Debug)]
struct Hold {
    pod: Arc<Value>,
    node: String,
    /// With the namespace before the name.
    group: String,
    amounts: Amounts,
    /// Decided here, not yet seen in the API.
    assumed: bool,
}

#[derive(Debug, Default)]
struct NodeState {
    object: Option<Arc<Value>>,
    unschedulable: bool,
    allocatable: Amounts,
    requested: Amounts,
}

/// Nodes, holds, and the in-tree checks on them.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    nodes: BTreeMap<String, NodeState>,
    /// Names of the nodes that exist; `None` after one was added or removed.
    names: Option<Arc<Vec<String>>>,
    holds: HashMap<String, Hold>,
    /// Pods that are nominated to a node, by uid.
    nominated: BTreeMap<String, Nominated>,
    /// Resources that are left to the extender alone.
    ignored: Vec<String>,
}

/// A pod for which other pods make room on a node.
#[derive(Debug)]
struct Nominated {
    node: String,
    priority: i64,
    amounts: Amounts,
    /// Decided here, not yet seen in the API.
    assumed: bool,
}

impl Cluster {
    pub(crate) fn new(ignored: Vec<String>) -> Self {
        Self { ignored, ..Self::default() }
    }

    /// Takes in a node; returns whether anything that matters to scheduling has changed.
    pub(crate) fn apply_node(&mut self, node: Arc<Value>) -> bool {
        let state = self.nodes.entry(object::name(&node).to_owned()).or_default();
        let changed = state.object.as_deref().is_none_or(|old| relevant(old) != relevant(&node));
        if state.object.is_none() {
            self.names = None;
        }
        state.allocatable = object::at(&node, &["status", "allocatable"])
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), request::amount_of(name, value)))
            .collect();
        state.unschedulable = object::at(&node, &["spec", "unschedulable"]) == Some(&Value::Bool(true));
        state.object = Some(node);
        changed
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        self.names = None;
        if let Some(state) = self.nodes.get_mut(name) {
            state.object = None;
            state.allocatable.clear();
        }
    }

    /// Names of the nodes that exist, in order.
    pub(crate) fn node_names(&mut self) -> Arc<Vec<String>> {
        let nodes = &self.nodes;
        self.names
            .get_or_insert_with(|| {
                let there = nodes.iter().filter(|(_, state)| state.object.is_some());
                Arc::new(there.map(|(name, _)| name.clone()).collect())
            })
            .clone()
    }

    /// Notes the node to which a waiting pod is nominated. Returns whether other pods may have room now.
    pub(crate) fn nominate(&mut self, pod: &Value) -> bool {
        let (uid, node) = (object::uid(pod), object::text(pod, &["status", "nominatedNodeName"]));
        if node.is_empty() {
            let assumed = self.nominated.get(uid).is_some_and(|nominated| nominated.assumed);
            return !assumed && self.nominated.remove(uid).is_some();
        }
        self.nominate_to(pod, node, false)
    }

    /// Counts a pod as nominated; `assumed` before the API shows it. Returns whether other pods may have room now.
    pub(crate) fn nominate_to(&mut self, pod: &Value, node: &str, assumed: bool) -> bool {
        let nominated = Nominated {
            node: node.to_owned(),
            priority: request::priority(pod),
            amounts: request::of_pod(pod),
            assumed,
        };
        let before = self.nominated.insert(object::uid(pod).to_owned(), nominated);
        before.is_some_and(|before| before.node != node)
    }

    /// A pod is not nominated any more.
    pub(crate) fn nominate_no_more(&mut self, uid: &str) {
        self.nominated.remove(uid);
    }

    /// Uids of pods of lower priority that are nominated to a node.
    pub(crate) fn nominated_below(&self, node: &str, priority: i64) -> Vec<String> {
        let here = self.nominated.iter().filter(|(_, other)| other.node == node && other.priority < priority);
        here.map(|(uid, _)| uid.clone()).collect()
    }

    /// Whether a pod of lower priority is leaving the node to which this one is nominated.
    pub(crate) fn awaits_eviction(&self, pod: &Value) -> bool {
        let (node, priority) = (self.nomination(pod), request::priority(pod));
        node.is_some_and(|node| {
            self.holds.values().any(|hold| {
                hold.node == node && request::priority(&hold.pod) < priority && object::is_deleting(&hold.pod)
            })
        })
    }

    /// All pods that hold something, by node, in order of uid.
    pub(crate) fn pods(&self) -> BTreeMap<&str, Vec<&Arc<Value>>> {
        let mut pods = BTreeMap::<&str, Vec<&Arc<Value>>>::new();
        for hold in self.holds.values() {
            pods.entry(&hold.node).or_default().push(&hold.pod);
        }
        pods.values_mut().for_each(|pods| pods.sort_by_key(|pod| object::uid(pod)));
        pods
    }

    /// The node that a pod is nominated to.
    pub(crate) fn nomination(&self, pod: &Value) -> Option<&str> {
        self.nominated.get(object::uid(pod)).map(|nominated| nominated.node.as_str())
    }

    /// How many pods of a group have a node, assumed ones among them.
    pub(crate) fn placed_in(&self, group: &str) -> usize {
        self.holds.values().filter(|hold| hold.group == group).count()
    }

    /// Takes in a pod that the API shows on a node.
    pub(crate) fn apply_pod(&mut self, pod: &Arc<Value>) {
        self.nominated.remove(object::uid(pod));
        self.hold(pod, object::node_name(pod), false);
    }

    /// Counts a pod on a node before the API shows it there.
    pub(crate) fn assume(&mut self, pod: &Arc<Value>, node: &str) {
        self.hold(pod, node, true);
    }

    /// Takes an assumption back; what the API shows stays.
    pub(crate) fn forget(&mut self, uid: &str) {
        if self.holds.get(uid).is_some_and(|hold| hold.assumed) {
            self.let_go(uid);
        }
    }

    pub(crate) fn remove_pod(&mut self, uid: &str) -> bool {
        let nominated = self.nominated.remove(uid).is_some();
        self.let_go(uid) || nominated
    }

    fn let_go(&mut self, uid: &str) -> bool {
        let Some(hold) = self.holds.remove(uid) else {
            return false;
        };
        if let Some(state) = self.nodes.get_mut(&hold.node) {
            for (name, amount) in &hold.amounts {
                if let Some(sum) = state.requested.get_mut(name) {
                    *sum -= amount;
                }
            }
        }
        true
    }

    /// Uids of all pods that hold something without being assumed.
    pub(crate) fn observed(&self) -> Vec<String> {
        self.holds.iter().filter(|(_, hold)| !hold.assumed).map(|(uid, _)| uid.clone()).collect()
    }

    fn hold(&mut self, pod: &Arc<Value>, node: &str, assumed: bool) {
        let uid = object::uid(pod);
        if let Some(hold) = self.holds.get_mut(uid).filter(|hold| hold.node == node) {
            hold.assumed = hold.assumed && assumed;
            hold.pod = pod.clone();
            return;
        }
        self.let_go(uid);
        let amounts = request::of_pod(pod);
        let state = self.nodes.entry(node.to_owned()).or_default();
        for (name, amount) in &amounts {
            *state.requested.entry(name.clone()).or_default() += amount;
        }
        let label = object::text(pod, &["metadata", "labels", "scheduling.x-k8s.io/pod-group"]);
        let group = format!("{}/{label}", object::namespace(pod));
        self.holds
            .insert(uid.to_owned(), Hold { pod: pod.clone(), node: node.to_owned(), group, amounts, assumed });
    }

    pub(crate) fn node(&self, name: &str) -> Option<Arc<Value>> {
        self.nodes.get(name)?.object.clone()
    }

    /// All nodes once, beginning with the one with this name.
    pub(crate) fn nodes_from(&self, name: &str) -> impl Iterator<Item = (&str, &Arc<Value>, NodeRef<'_>)> {
        let from = self.nodes.range::<str, _>((Bound::Included(name), Bound::Unbounded));
        let before = self.nodes.range::<str, _>((Bound::Unbounded, Bound::Excluded(name)));
        from.chain(before).filter_map(|(name, state)| Some((name.as_str(), state.object.as_ref()?, NodeRef(state))))
    }

    /// Whether a pod can run on the node with this name.
    pub(crate) fn fits(&self, ask: &Ask<'_>, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|state| self.unfit(ask, NodeRef(state)).is_empty())
    }

    /// The same, once `freed` is free.
    pub(crate) fn fits_without(&self, ask: &Ask<'_>, name: &str, freed: &Amounts) -> bool {
        self.nodes.get(name).is_some_and(|state| self.unfit_without(ask, NodeRef(state), freed).is_empty())
    }

    /// Why a pod cannot run on a node, in kube-scheduler's words; empty if it can.
    pub(crate) fn unfit<'a>(&self, ask: &'a Ask<'_>, node: NodeRef<'_>) -> Vec<Cow<'a, str>> {
        self.unfit_without(ask, node, &Amounts::new())
    }

    fn unfit_without<'a>(
        &self,
        ask: &'a Ask<'_>,
        NodeRef(state): NodeRef<'_>,
        freed: &Amounts,
    ) -> Vec<Cow<'a, str>> {
        let Some(node) = &state.object else {
            return vec!["node(s) not found".into()];
        };
        // The first plugin that refuses ends the check, as in the framework.
        if state.unschedulable && !ask.tolerates_unschedulable() {
            return vec!["node(s) were unschedulable".into()];
        }
        if let Some(taint) = ask.untolerated(node) {
            return vec![format!("node(s) had untolerated taint(s) {{{taint}}}").into()];
        }
        if !ask.selects(node) {
            return vec!["node(s) didn't match Pod's node affinity/selector".into()];
        }
        let name = object::name(node);
        // pods of at least this priority count, except assumed ones
        let nominated: Vec<&Amounts> = self
            .nominated
            .iter()
            .filter(|(uid, other)| {
                other.node == name
                    && other.priority >= ask.priority
                    && *uid != ask.uid
                    && !self.holds.contains_key(*uid)
            })
            .map(|(_, other)| &other.amounts)
            .collect();
        ask.needs
            .iter()
            .filter(|need| {
                let get = |amounts: &Amounts| amounts.get(&need.resource).copied().unwrap_or(0);
                // nodes of tests that do not deal with cores or memory have no such amounts
                let known = !request::is_native(&need.resource) || state.allocatable.contains_key(&need.resource);
                known
                    && !self.ignored.contains(&need.resource)
                    && get(&state.requested) - get(freed)
                        + nominated.iter().map(|amounts| get(amounts)).sum::<i64>()
                        + need.amount
                        > get(&state.allocatable)
            })
            .map(|need| Cow::Borrowed(need.unmet.as_str()))
            .collect()
    }
}

/// A node as the checks see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeRef<'a>(&'a NodeState);

/// The parts of a node by which kube-scheduler decides whether to try waiting pods again.
fn relevant(node: &Value) -> [Option<&Value>; 5] {
    [
        node.get("spec"),
        object::at(node, &["metadata", "labels"]),
        object::at(node, &["metadata", "annotations"]),
        object::at(node, &["status", "allocatable"]),
        object::at(node, &["status", "conditions"]),
    ]
}

/// What a pod requests from a node, read once per attempt.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pod: &'a Value,
    uid: &'a str,
    priority: i64,
    needs: Vec<Need>,
}

#[derive(Debug)]
struct Need {
    resource: String,
    amount: i64,
    /// The message where there is too little.
    unmet: String,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(pod: &'a Value) -> Self {
        let need = |(resource, amount)| Need { unmet: format!("Insufficient {resource}"), resource, amount };
        let (uid, priority) = (object::uid(pod), request::priority(pod));
        Self { pod, uid, priority, needs: request::of_pod(pod).into_iter().map(need).collect() }
    }

    fn selects(&self, node: &Value) -> bool {
        object::at(self.pod, &["spec", "nodeSelector"])
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .all(|(key, value)| object::at(node, &["metadata", "labels", key]) == Some(value))
    }

    fn tolerates_unschedulable(&self) -> bool {
        self.tolerates("node.kubernetes.io/unschedulable", "", "NoSchedule")
    }

    /// The first taint that keeps the pod away.
    fn untolerated(&self, node: &Value) -> Option<String> {
        object::at(node, &["spec", "taints"])
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|taint| {
                (object::text(taint, &["key"]), object::text(taint, &["value"]), object::text(taint, &["effect"]))
            })
            .find(|(key, value, effect)| {
                matches!(*effect, "NoSchedule" | "NoExecute") && !self.tolerates(key, value, effect)
            })
            .map(|(key, value, _)| format!("{key}: {value}"))
    }

    fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        object::at(self.pod, &["spec", "tolerations"]).and_then(Value::as_array).into_iter().flatten().any(
            |toleration| {
                let text = |field| object::text(toleration, &[field]);
                let same_key = text("key") == key || text("key").is_empty();
                let same_effect = text("effect").is_empty() || text("effect") == effect;
                let same_value = text("operator") == "Exists" || text("value") == value;
                same_key && same_effect && same_value
            },
        )
    }
}
