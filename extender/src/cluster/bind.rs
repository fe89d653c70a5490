//! Commitments: what bind reserves, and its outcome.

use kerf::ids::{NodeName, PodUid};
use kerf::plan::Plan;
use kerf::policy::Policy;
use kerf::request::PodRequest;
use kerf::unfit::Unfit;
use kerf::units::Timestamp;

use super::Cluster;
use crate::freed::News;

/// How long after the first record of an exchange the second may follow, in milliseconds: the node's plugin writes both
/// within moments, unless the API server fails in between.
const EXCHANGE_MS: u64 = 30_000;

impl Cluster {
    /// Plans the pod on the node as it is now and reserves its cards until `deadline`.
    ///
    /// # Errors
    /// [`Unfit`] where it does not fit; nothing is reserved then.
    pub fn assume(
        &self,
        node: &NodeName,
        pod: &PodRequest,
        policy: Policy,
        deadline: Timestamp,
    ) -> Result<Plan, Unfit> {
        let uid = &pod.uid;
        let asking = self.asking(pod, policy);
        self.add_home(uid, node);
        // from now on the cards may be kept for a binding
        self.recorded.remove_if(uid, |_, at| at == node);
        let mut planner = asking.planner(node.as_str());
        let planned = loop {
            let Some(mut ledger) = self.nodes.get_mut(node) else { break Err(Unfit::UnknownNode) };
            if ledger.commitments().contains_key(uid) || asking.is_quick(node.as_str()) {
                break planner.assume(&mut ledger, pod, policy, deadline, self.epoch());
            }
            // otherwise it may take long: it is planned on a copy, and again where the node has changed in between
            let copy = ledger.clone();
            drop(ledger);
            let plan = match asking.plan_on(&mut planner, node.as_str(), &copy) {
                Ok(plan) => plan,
                unfit => break unfit,
            };
            let Some(mut ledger) = self.nodes.get_mut(node) else { break Err(Unfit::UnknownNode) };
            if ledger.same_cards(&copy) && ledger.reserve(pod, plan.clone(), deadline, self.epoch()) {
                break Ok(plan);
            }
        };
        match planned {
            Ok(_) => self.mark(node),
            Err(_) => self.drop_home(uid, node),
        }
        self.notify();
        planned
    }

    /// As [`Cluster::assume`], for a placement that is about to be written on the pod. Cards that an earlier one kept
    /// on another node are freed: the pod is being placed again.
    ///
    /// # Errors
    /// [`Unfit`] where it does not fit; nothing is reserved then.
    pub(crate) fn assume_recorded(
        &self,
        node: &NodeName,
        pod: &PodRequest,
        policy: Policy,
        deadline: Timestamp,
    ) -> Result<Plan, Unfit> {
        let earlier = self.recorded.get(&pod.uid).map(|node| node.clone());
        if let Some(earlier) = earlier.filter(|earlier| earlier != node) {
            self.forget(&earlier, &pod.uid);
        }
        let plan = self.assume(node, pod, policy, deadline)?;
        self.recorded.insert(pod.uid.clone(), node.clone());
        Ok(plan)
    }

    /// The API server has accepted the binding: the pod is on this node only.
    pub fn bound(&self, node: &NodeName, uid: &PodUid) {
        if let Some(mut ledger) = self.nodes.get_mut(node) {
            ledger.bound(uid, self.epoch());
        }
        self.survey.lock().bound(uid, node);
        self.leave_others(uid, node);
        self.notify();
    }

    /// The API server has not answered the request to bind.
    pub(crate) fn unanswered(&self, node: &NodeName, uid: &PodUid) {
        if let Some(mut ledger) = self.nodes.get_mut(node) {
            ledger.unanswered(uid);
        }
    }

    /// The API server has refused the binding: what was reserved on this node is free, unless an earlier binding was
    /// not answered. True where nothing is kept for the pod here any more.
    pub fn forget(&self, node: &NodeName, uid: &PodUid) -> bool {
        let (left, kept) = self
            .nodes
            .get_mut(node)
            .map_or((false, false), |mut ledger| (ledger.forget(uid), ledger.commitments().contains_key(uid)));
        if left {
            self.mark(node);
            self.drop_home(uid, node);
            self.drop_empty(node);
            // the scheduler sees that the binding failed, and then tries other pods again
            self.freed.mark(node, News::Told);
        }
        self.notify();
        !kept
    }

    /// The API server says that an overdue pod is not bound to this node. False where it was no longer overdue.
    pub fn expire(&self, node: &NodeName, uid: &PodUid, now: Timestamp) -> bool {
        let left = self.nodes.get_mut(node).is_some_and(|mut ledger| ledger.expire(uid, now));
        if left {
            self.mark(node);
            self.drop_home(uid, node);
            self.drop_empty(node);
            self.freed.mark(node, News::Silent);
            self.notify();
        }
        left
    }

    /// Filter or prioritize sent a pod to this node: if it is one that waits between filter and bind, other pods see
    /// the node as if it were there.
    pub(crate) fn expect(&self, uid: &PodUid, node: &NodeName, now: Timestamp) {
        self.mark_all(self.queue.sent(uid, node, now), News::Silent);
    }

    /// A pod's bind has ended, or it fits nowhere: it is no longer expected where it was sent.
    pub(crate) fn expect_no_more(&self, uid: &PodUid) {
        self.mark_all(self.queue.released(uid), News::Silent);
    }

    /// Ends expectations whose time has passed.
    pub(crate) fn expire_expected(&self, now: Timestamp) {
        self.mark_all(self.queue.expire(now), News::Silent);
    }

    /// Frees what moved records left on their former cards, where no other pod's record took it in time.
    pub(crate) fn settle(&self, now: Timestamp) {
        let mut any = false;
        for mut ledger in &mut self.nodes.iter_mut() {
            if ledger.settle(now, EXCHANGE_MS) {
                self.mark(ledger.key());
                self.freed.mark(ledger.key(), News::Silent);
                any = true;
            }
        }
        if any {
            self.notify();
        }
    }
}
