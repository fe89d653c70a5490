//! Planning a pod onto a node and reserving its cards there, in one step.

use super::planner::Planner;
use crate::ledger::NodeLedger;
use crate::plan::Plan;
use crate::policy::Policy;
use crate::request::pod::PodRequest;
use crate::unfit::Unfit;
use crate::units::Timestamp;

impl Planner {
    /// Plans the pod onto the node's cards as they are now and reserves them until `deadline`. A pod that is already
    /// there keeps what it has, so a repeated bind gets the same cards as long as they can take it.
    ///
    /// # Errors
    /// [`Unfit`] where it does not fit, or the cards that it already has are not known; nothing is changed then.
    pub fn assume(
        &mut self,
        node: &mut NodeLedger,
        pod: &PodRequest,
        policy: Policy,
        deadline: Timestamp,
        epoch: u64,
    ) -> Result<Plan, Unfit> {
        let PodRequest { uid, request, .. } = pod;
        if !node.commitments().contains_key(uid) {
            let plan = self.plan(node, request, policy)?;
            node.reserve(pod, plan.clone(), deadline, epoch);
            return Ok(plan);
        }
        let other = if node.keeps(uid)? {
            None
        } else {
            Some(self.plan(&node.without(|other| other == uid), request, policy)?)
        };
        node.reserve_again(uid, other, deadline, epoch).ok_or(Unfit::UnreadableRecord)
    }
}
