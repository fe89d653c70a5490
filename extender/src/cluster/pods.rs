//! Events of the watch of Pods, and the API server's answers about single pods.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kerf::annotation::Record;
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s::{Holding, PodView, Queued};
use kerf::ledger::{Seen, Standing, State};
use kerf::placement::advise::UNBOUND_RECORD_MS;
use kerf::placement::shape::Cards;
use kerf::placement::survey::Sighting;
use kerf::plan::Placement;
use kerf::request::{GpuRequest, PodRequest};
use kerf::units::Timestamp;

use super::{Applied, Cluster};
use crate::clock::Clock;
use crate::freed::News;
use crate::queue::Waiting;

impl Cluster {
    /// A complete list shows the pod: an earlier report of its end does not hold.
    pub fn list_pod(&self, uid: &PodUid) {
        self.departed.remove(uid);
    }

    /// A complete list, begun in the latest epoch, has the pod, but the rest of it cannot be read: what is known of it
    /// stays.
    pub(crate) fn keep_pod(&self, uid: &PodUid) {
        for node in self.homes.get(uid).map(|homes| homes.clone()).unwrap_or_default() {
            if let Some(mut ledger) = self.nodes.get_mut(&node) {
                ledger.keep(uid, self.epoch());
            }
        }
    }

    /// The API server has answered a question about a pod. The watch may be newer by now, so the answer counts only
    /// where the watch has not shown the pod on its node yet.
    pub fn apply_answer(&self, view: PodView, clock: &Clock) {
        let shown = |node: &NodeName| {
            let ledger = self.nodes.get(node)?;
            ledger.commitments().get(&view.uid).map(|known| known.state == State::Observed)
        };
        if view.ended || view.node.as_ref().and_then(shown) != Some(true) {
            self.apply_pod(view, clock);
        }
    }

    /// A Pod was created or changed.
    pub fn apply_pod(&self, view: PodView, clock: &Clock) -> Applied {
        if self.is_gone(&view.uid) {
            return Applied::Nothing;
        }
        if view.ended {
            self.delete_pod(&view.uid);
            return Applied::Nothing;
        }
        if view.node.is_none() && view.request.is_err() {
            self.broken.insert(view.uid.clone());
        } else {
            self.broken.remove(&view.uid);
        }
        let applied = match (view.holding, view.node) {
            (Some(holding), _) => {
                let pod = PodRequest { uid: view.uid, name: view.pod, request: holding.request.clone() };
                self.observe(&pod, &holding, view.confirmed)
            }
            (None, Some(_)) => {
                self.mark_all(self.queue.remove(&view.uid), News::Told);
                return Applied::Nothing;
            }
            (None, None) => {
                let Ok(Some(request)) = view.request else {
                    // the pod's annotations may have changed so that its request is invalid now
                    self.mark_all(self.queue.remove(&view.uid), News::Told);
                    self.notify();
                    return Applied::Nothing;
                };
                let pod = PodRequest { uid: view.uid, name: view.pod, request };
                let first = !self.queue.contains(&pod.uid);
                self.queue.seen(Waiting { pod: pod.clone(), tolerations: view.tolerations.into() });
                if let Record::Placed(placement) = view.record {
                    // a record from the future was written before the time of day was set back
                    let age = clock.since(placement.time).or(first.then_some(0));
                    if let Some(age) = age.filter(|age| *age < UNBOUND_RECORD_MS) {
                        let deadline = clock.now().plus(UNBOUND_RECORD_MS - age);
                        self.reserve(&pod, placement, deadline);
                    }
                }
                Applied::Nothing
            }
        };
        self.notify();
        applied
    }

    /// The scheduling state of an unbound pod, after [`Cluster::apply_pod`].
    pub(crate) fn apply_queued(&self, uid: &PodUid, queued: Queued) {
        self.mark_all(self.queue.stands(uid, queued), News::Told);
    }

    /// A bound pod that has not ended holds cards under another resource domain. True for the first such pod of its
    /// node.
    pub(crate) fn apply_foreign(&self, uid: &PodUid, node: &NodeName) -> bool {
        self.foreign.insert(uid.clone(), node.clone());
        let first = self.nodes.entry(node.clone()).or_default().foreign_begins(uid);
        if first {
            self.mark(node);
            self.notify();
        }
        first
    }

    fn foreign_ends(&self, uid: &PodUid, node: &NodeName) {
        self.leaves(node, |ledger| ledger.foreign_ends(uid));
        self.notify();
    }

    /// A pod was seen bound, but the rest of it cannot be read: what is known of it stays; where it is unknown, it may
    /// have every card of its node.
    pub(crate) fn apply_unreadable(&self, uid: &PodUid, name: &PodRef, node: &NodeName) {
        if self.is_gone(uid) || self.homes.contains_key(uid) {
            return;
        }
        let request = Arc::new(GpuRequest::unreadable());
        let pod = PodRequest { uid: uid.clone(), name: name.clone(), request: request.clone() };
        self.observe(&pod, &Holding { node: node.clone(), request, record: Record::Absent }, false);
        self.notify();
    }

    /// A pod that has not ended was seen, with cards or without.
    pub fn apply_sighting(&self, uid: &PodUid, sighting: &Sighting<'_>) {
        self.survey.lock().seen(uid, sighting);
        // pods with cards announce the change by what follows
        if sighting.shape.cards == Cards::None {
            self.notify();
        }
    }

    /// What decides whether a bound pod is evicted when room is made. Of pods without cards, only their priority is
    /// kept.
    pub(crate) fn apply_standing(
        &self,
        uid: &PodUid,
        node: &NodeName,
        priority: i32,
        standing: impl FnOnce() -> Standing,
    ) {
        match self.nodes.get_mut(node) {
            Some(mut ledger) if ledger.commitments().contains_key(uid) => ledger.describe(uid, standing()),
            _ if priority != 0 => {
                self.priorities.insert(uid.clone(), priority);
            }
            _ => {}
        }
    }

    /// A pod was seen bound to this node.
    fn observe(&self, pod: &PodRequest, holding: &Holding, confirmed: bool) -> Applied {
        let (uid, node) = (&pod.uid, &holding.node);
        self.mark_all(self.queue.remove(uid), News::Told);
        self.recorded.remove(uid);
        self.add_home(uid, node);
        let mut ledger = self.nodes.entry(node.clone()).or_default();
        let seen = ledger.observe(pod, holding.held(), confirmed, self.epoch());
        drop(ledger);
        self.mark(node);
        if seen == Seen::Drift {
            self.freed.mark(node, News::Told);
        }
        self.leave_others(uid, node);
        match holding.record {
            Record::Placed(_) => Applied::Seen(seen),
            Record::Absent if pod.request.only_counted() => Applied::Unrecorded(seen),
            Record::Absent | Record::Unreadable(_) => Applied::Unreadable(seen),
        }
    }

    /// Keeps, until `deadline`, the cards that a `/scheduler/predicates` (perhaps of a previous run of this process)
    /// wrote on a pod that is not bound yet. The node may be listed only later.
    fn reserve(&self, pod: &PodRequest, placement: Placement, deadline: Timestamp) {
        let (uid, node) = (&pod.uid, placement.node);
        self.add_home(uid, &node);
        let mut ledger = self.nodes.entry(node.clone()).or_default();
        let reserved = ledger.reserve(pod, placement.plan, deadline, self.epoch());
        drop(ledger);
        if reserved {
            self.recorded.insert(uid.clone(), node.clone());
            self.mark(&node);
        } else {
            self.drop_home(uid, &node);
        }
    }

    /// A Pod was deleted or has ended: all that it held is free. Returns whether it held anything.
    pub(crate) fn delete_pod(&self, uid: &PodUid) -> bool {
        self.departed.add(uid);
        self.mark_all(self.queue.remove(uid), News::Told);
        self.broken.remove(uid);
        self.recorded.remove(uid);
        self.survey.lock().unload(uid);
        self.priorities.remove(uid);
        if let Some((_, node)) = self.foreign.remove(uid) {
            self.foreign_ends(uid, &node);
        }
        let Some((_, homes)) = self.homes.remove(uid) else { return false };
        for node in homes {
            self.release(uid, &node);
        }
        self.notify();
        true
    }

    /// A complete list of Pods begins. Returns its epoch, for [`Cluster::finish_pods`].
    pub(crate) fn begin_pods(&self) -> u64 {
        self.epoch.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// A complete list of Pods, begun in `epoch`, has ended: pods bound before it that are not in `seen`, all pods of
    /// the list, are gone, and so are pending ones.
    pub(crate) fn finish_pods(&self, epoch: u64, seen: &BTreeSet<PodUid>) {
        let nodes: Vec<NodeName> = self.nodes.iter().map(|entry| entry.key().clone()).collect();
        for node in nodes {
            let missing =
                self.nodes.get_mut(&node).map(|mut ledger| ledger.release_missing(epoch)).unwrap_or_default();
            if !missing.is_empty() {
                self.mark(&node);
                self.freed.mark(&node, News::Told);
                self.drop_empty(&node);
            }
            for uid in missing {
                // it may have been seen on another node
                if !seen.contains(&uid) {
                    self.departed.add(&uid);
                }
                self.drop_home(&uid, &node);
            }
        }
        self.queue.others(seen).iter().for_each(|uid| self.departed.add(uid));
        self.mark_all(self.queue.retain(seen), News::Told);
        let foreign = self.foreign.iter().map(|entry| (entry.key().clone(), entry.value().clone()));
        let gone: Vec<(PodUid, NodeName)> = foreign.filter(|(uid, _)| !seen.contains(uid)).collect();
        for (uid, node) in gone {
            self.foreign.remove(&uid);
            self.foreign_ends(&uid, &node);
        }
        self.survey.lock().retain(seen);
        self.priorities.retain(|uid, _| seen.contains(uid));
        self.broken.retain(|uid| seen.contains(uid));
        self.notify();
    }
}
