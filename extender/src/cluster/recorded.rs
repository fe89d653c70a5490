//! Cards kept for pods whose placement stands on them before they are bound: what `/scheduler/predicates` does.

use std::sync::Arc;

use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::plan::{Placement, Plan};
use kerf::policy::Policy;
use kerf::request::GpuRequest;
use kerf::unfit::Unfit;
use kerf::units::Timestamp;

use super::Cluster;

/// How long the cards that `/scheduler/predicates` wrote on a pod are kept for it before it is bound, in
/// milliseconds. The scheduler binds within seconds.
pub const PREDICATE_TTL_MS: u64 = 60_000;

impl Cluster {
    /// Whether a binding by kerf itself may still be written for the pod: cards that are kept for one must not be given
    /// up for a record.
    pub fn binding_in_doubt(&self, uid: &PodUid) -> bool {
        let recorded = self.recorded.get(uid).map(|node| node.clone());
        self.homes.get(uid).is_some_and(|homes| homes.iter().any(|home| Some(home) != recorded.as_ref()))
    }

    /// As [`Cluster::assume`], for a placement that is about to be written on the pod. What an earlier one kept elsewhere
    /// is given up: the pod is being placed anew.
    ///
    /// # Errors
    /// [`Unfit`] where it does not fit; nothing is reserved then.
    pub fn assume_recorded(
        &self,
        node: &NodeName,
        uid: &PodUid,
        pod: &PodRef,
        request: &Arc<GpuRequest>,
        policy: Policy,
        deadline: Timestamp,
    ) -> Result<Plan, Unfit> {
        let earlier = self.recorded.get(uid).map(|node| node.clone());
        if let Some(earlier) = earlier.filter(|earlier| earlier != node) {
            self.forget(&earlier, uid);
        }
        let plan = self.assume(node, uid, pod, request, policy, deadline)?;
        self.recorded.insert(uid.clone(), node.clone());
        Ok(plan)
    }

    /// Keeps the cards that a `/scheduler/predicates` (perhaps of an earlier life of this process) wrote on a pod
    /// that is not bound yet, until then.
    pub(super) fn reserve(
        &self,
        uid: &PodUid,
        pod: &PodRef,
        request: &Arc<GpuRequest>,
        placement: Placement,
        deadline: Timestamp,
    ) {
        let node = placement.node;
        self.add_home(uid, &node);
        let reserved = self
            .nodes
            .get_mut(&node)
            .is_some_and(|mut ledger| ledger.reserve(uid, pod, request, placement.plan, deadline, self.epoch()));
        if reserved {
            self.recorded.insert(uid.clone(), node.clone());
            self.surveyor.mark(&node);
        } else {
            self.drop_home(uid, &node);
        }
    }
}
