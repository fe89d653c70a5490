//! Pods that are not bound yet, as the watch shows them, and which of them are expected on which node.
//!
//! A pod is *expected* on the node that kube-scheduler has nominated it to - others are evicted for it there, or it
//! waits there in Permit or PreBind - and, if it is one that will wait between filter and bind, on the node where
//! filter or prioritize sent it, for [`HOLD_MS`]. Pods that come after it find its node as if it were there.
//!
//! The order of pods is total, so that no two pods or groups wait for each other: by priority; then pods that are
//! expected somewhere, or whose group is; then by age, for a group that of its oldest pod; then by name. Pods of one
//! group never get each other's cards.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Toleration;
use kerf::ids::{NodeName, PodUid};
use kerf::k8s::Queued;
use kerf::request::PodRequest;
use kerf::units::Timestamp;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// How long a pod that will wait is expected where filter or prioritize sent it, in milliseconds, unless the scheduler
/// nominates it elsewhere: as long as coscheduling lets a group wait for its members. For the same time after that it
/// is not expected, so that a group that never becomes complete leaves its cards to others in between.
pub const HOLD_MS: u64 = 60_000;

/// A pod that is not bound yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// The pod and its request.
    pub pod: PodRequest,
    /// `spec.tolerations`
    pub tolerations: Arc<[Toleration]>,
}

/// All pods with a request that are not bound.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Whether any pod is expected anywhere: read at every binding, which must not wait for others here.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    pods: FxHashMap<PodUid, Pending>,
    groups: FxHashMap<Arc<str>, Group>,
    /// The pods that are expected on each node.
    expected: BTreeMap<NodeName, BTreeSet<PodUid>>,
}

#[derive(Debug)]
struct Pending {
    waiting: Waiting,
    queued: Queued,
    hold: Option<Hold>,
    /// Until when it is expected nowhere, after its time has passed.
    rests: Option<Timestamp>,
}

/// Where filter or prioritize sent a pod that will wait.
#[derive(Clone, Debug)]
struct Hold {
    node: NodeName,
    expires: Timestamp,
}

#[derive(Debug)]
struct Group {
    /// The creation time of the oldest pod that the group has had here.
    since: i64,
    pods: usize,
}

/// Pods that come before another one, by the node that they are expected on, in order.
pub(crate) type Claims = BTreeMap<NodeName, Vec<PodRequest>>;

/// A pod's position in the order; less comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Standing<'a> {
    priority: Reverse<i32>,
    idle: bool,
    since: i64,
    name: &'a str,
    uid: &'a PodUid,
}

impl Pending {
    fn places(&self) -> impl Iterator<Item = &NodeName> {
        self.queued.nominated.iter().chain(self.hold.as_ref().map(|hold| &hold.node))
    }
}

impl State {
    fn standing<'a>(&'a self, uid: &'a PodUid, pending: &'a Pending, idle: bool) -> Standing<'a> {
        let group = pending.queued.group.as_ref();
        let since =
            group.and_then(|group| self.groups.get(group)).map_or(pending.queued.created, |group| group.since);
        let name = group.map_or(uid.as_str(), |group| group);
        Standing { priority: Reverse(pending.waiting.pod.request.priority), idle, since, name, uid }
    }

    /// Where a pod is expected.
    fn places(&self, uid: &PodUid) -> BTreeSet<NodeName> {
        self.pods.get(uid).into_iter().flat_map(Pending::places).cloned().collect()
    }

    /// Removes a pod from the index; returns where it was expected.
    fn withdraw(&mut self, uid: &PodUid) -> BTreeSet<NodeName> {
        let places = self.places(uid);
        for node in &places {
            if let Some(pods) = self.expected.get_mut(node) {
                pods.remove(uid);
                if pods.is_empty() {
                    self.expected.remove(node);
                }
            }
        }
        places
    }

    /// Puts the pod into the index; returns the nodes of `before` where it is no longer expected.
    fn enter(&mut self, uid: &PodUid, before: BTreeSet<NodeName>) -> Vec<NodeName> {
        let places = self.places(uid);
        for node in &places {
            self.expected.entry(node.clone()).or_default().insert(uid.clone());
        }
        before.into_iter().filter(|node| !places.contains(node)).collect()
    }

    fn leave_group(&mut self, group: Option<&Arc<str>>) {
        let Some(name) = group else { return };
        if let Some(group) = self.groups.get_mut(name) {
            group.pods -= 1;
            if group.pods == 0 {
                self.groups.remove(name);
            }
        }
    }

    fn join_group(&mut self, queued: &Queued) {
        let Some(name) = &queued.group else { return };
        let group = self.groups.entry(name.clone()).or_insert(Group { since: queued.created, pods: 0 });
        group.since = group.since.min(queued.created);
        group.pods += 1;
    }

    fn stands(&mut self, uid: &PodUid, queued: Queued) -> Vec<NodeName> {
        let before = self.withdraw(uid);
        let Some(pending) = self.pods.get_mut(uid) else { return Vec::new() };
        // a new nomination is where the pod really waits
        if queued.nominated.is_some() && queued.nominated != pending.queued.nominated {
            pending.hold = None;
        }
        let known = std::mem::replace(&mut pending.queued, queued.clone());
        // join before leaving: a group keeps its age as long as it has pods
        self.join_group(&queued);
        self.leave_group(known.group.as_ref());
        self.enter(uid, before)
    }

    fn retain(&mut self, seen: &BTreeSet<PodUid>) -> Vec<NodeName> {
        let gone: Vec<PodUid> = self.pods.keys().filter(|uid| !seen.contains(*uid)).cloned().collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    fn forget_node(&mut self, node: &str) {
        let Some(pods) = self.expected.remove(node) else { return };
        for uid in pods {
            if let Some(pending) = self.pods.get_mut(&uid) {
                pending.hold.take_if(|hold| hold.node.as_str() == node);
                pending.queued.nominated.take_if(|nominated| nominated.as_str() == node);
            }
        }
    }

    fn sent(&mut self, uid: &PodUid, node: &NodeName, now: Timestamp) -> Vec<NodeName> {
        let will_wait = |pending: &Pending| pending.queued.waits && pending.rests.is_none_or(|end| end <= now);
        if !self.pods.get(uid).is_some_and(will_wait) {
            return Vec::new();
        }
        let before = self.withdraw(uid);
        if let Some(pending) = self.pods.get_mut(uid) {
            let expires = pending.hold.as_ref().map_or(now.plus(HOLD_MS), |hold| hold.expires);
            pending.hold = Some(Hold { node: node.clone(), expires });
        }
        self.enter(uid, before)
    }

    fn released(&mut self, uid: &PodUid) -> Vec<NodeName> {
        if self.pods.get(uid).is_none_or(|pending| pending.hold.is_none()) {
            return Vec::new();
        }
        let before = self.withdraw(uid);
        if let Some(pending) = self.pods.get_mut(uid) {
            pending.hold = None;
        }
        self.enter(uid, before)
    }

    fn expire(&mut self, now: Timestamp) -> Vec<NodeName> {
        if self.expected.is_empty() {
            return Vec::new();
        }
        let late = |pending: &Pending| pending.hold.as_ref().is_some_and(|hold| hold.expires <= now);
        let overdue: Vec<PodUid> =
            self.pods.iter().filter(|(_, pending)| late(pending)).map(|(uid, _)| uid.clone()).collect();
        let mut freed = Vec::new();
        for uid in overdue {
            let before = self.withdraw(&uid);
            if let Some(pending) = self.pods.get_mut(&uid) {
                pending.hold = None;
                pending.rests = Some(now.plus(HOLD_MS));
            }
            freed.extend(self.enter(&uid, before));
        }
        freed
    }

    fn remove(&mut self, uid: &PodUid) -> Vec<NodeName> {
        let places = self.withdraw(uid);
        if let Some(gone) = self.pods.remove(uid) {
            self.leave_group(gone.queued.group.as_ref());
        }
        places.into_iter().collect()
    }
}

impl Queue {
    /// Whether the watch has shown the pod unbound.
    pub fn contains(&self, uid: &PodUid) -> bool {
        self.state.lock().pods.contains_key(uid)
    }

    /// How many pods there are.
    pub fn len(&self) -> usize {
        self.state.lock().pods.len()
    }

    /// `None` where the watch has not shown the pod unbound.
    pub fn waiting(&self, uid: &PodUid) -> Option<Waiting> {
        self.state.lock().pods.get(uid).map(|pending| pending.waiting.clone())
    }

    /// A pod was seen unbound.
    pub fn seen(&self, waiting: Waiting) {
        let mut state = self.state.lock();
        match state.pods.get_mut(&waiting.pod.uid) {
            Some(known) => known.waiting = waiting,
            None => {
                let pending = Pending { waiting, queued: Queued::default(), hold: None, rests: None };
                state.pods.insert(pending.waiting.pod.uid.clone(), pending);
            }
        }
    }

    /// Updates the scheduling state of an unbound pod. Returns the nodes where it is no longer expected.
    pub fn stands(&self, uid: &PodUid, queued: Queued) -> Vec<NodeName> {
        self.change(|state| state.stands(uid, queued))
    }

    /// A pod is bound or gone. Returns the nodes where it was expected.
    pub fn remove(&self, uid: &PodUid) -> Vec<NodeName> {
        self.change(|state| state.remove(uid))
    }

    /// The pods that are not in `seen`.
    pub fn others(&self, seen: &BTreeSet<PodUid>) -> Vec<PodUid> {
        self.state.lock().pods.keys().filter(|uid| !seen.contains(*uid)).cloned().collect()
    }

    /// A complete list has ended: other pods are gone. Returns the nodes where they were expected.
    pub fn retain(&self, seen: &BTreeSet<PodUid>) -> Vec<NodeName> {
        self.change(|state| state.retain(seen))
    }

    /// A node was deleted: no pod is expected there any more.
    pub fn forget_node(&self, node: &str) {
        self.change(|state| state.forget_node(node));
    }

    /// Filter or prioritize sent a pod to this node. If it is one that will wait, it is expected there, and no longer
    /// where it was sent before; its time is not extended. Returns the nodes where it is no longer expected.
    pub fn sent(&self, uid: &PodUid, node: &NodeName, now: Timestamp) -> Vec<NodeName> {
        self.change(|state| state.sent(uid, node, now))
    }

    /// Its bind has ended, or it was refused everywhere: it is no longer expected where it was sent. Returns those
    /// nodes.
    pub fn released(&self, uid: &PodUid) -> Vec<NodeName> {
        self.change(|state| state.released(uid))
    }

    /// Ends expectations whose time has passed. Returns their nodes.
    pub fn expire(&self, now: Timestamp) -> Vec<NodeName> {
        self.change(|state| state.expire(now))
    }

    /// The pods that come before this one, where they are expected. `priority` counts for a pod that the watch has not
    /// shown.
    pub fn before(&self, uid: &PodUid, priority: i32) -> Claims {
        if !self.any.load(Ordering::Acquire) {
            return Claims::new();
        }
        let state = self.state.lock();
        let own = state.pods.get(uid);
        let group = own.and_then(|own| own.queued.group.as_ref());
        let expected = |pending: &Pending| pending.places().next().is_some();
        let together = |other: &Pending| group.is_some() && other.queued.group.as_ref() == group;
        let busy = own.is_some_and(expected)
            || group.is_some()
                && state.expected.values().flatten().any(|uid| state.pods.get(uid).is_some_and(together));
        let unknown = Standing { priority: Reverse(priority), idle: true, since: i64::MAX, name: "", uid };
        let standing = own.map_or(unknown, |own| state.standing(uid, own, !busy));
        let mut claims = Claims::new();
        for (node, uids) in &state.expected {
            let others = uids.iter().filter(|other| *other != uid);
            let mut before: Vec<(Standing<'_>, &Pending)> = others
                .filter_map(|other| {
                    let pending = state.pods.get(other)?;
                    let other_standing = state.standing(other, pending, false);
                    (together(pending) || other_standing < standing).then_some((other_standing, pending))
                })
                .collect();
            if before.is_empty() {
                continue;
            }
            before.sort_by(|(a, _), (b, _)| a.cmp(b));
            let pods = before.into_iter().map(|(_, pending)| pending.waiting.pod.clone());
            claims.insert(node.clone(), pods.collect());
        }
        claims
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state);
        self.any.store(!state.expected.is_empty(), Ordering::Release);
        result
    }
}

#[cfg(test)]
mod tests;
