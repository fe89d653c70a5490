//! A pod that is assumed again while it is not known what became of the write before.
//!
//! It gets the same cards again, so that both writes say the same. Where those do not take it any more, because one fell
//! ill, was cordoned, vanished or is overcommitted, it gets others. Until the API server has said which of the two writes
//! was carried out the pod may be on the cards of either, so it holds both.

use std::collections::BTreeSet;

use super::{Commitment, Held, NodeLedger, State};
use crate::ids::PodUid;
use crate::placement::{Planner, Policy, Unfit};
use crate::plan::{Hold, Plan, Taken};
use crate::request::GpuRequest;
use crate::units::Timestamp;

/// How much longer than at first asked for a pod may be assumed, however often it is assumed again, in milliseconds: a pod
/// whose binding fails again and again lets others have the cards between two tries.
pub const LONGEST_RETRY_MS: u64 = 45_000;

impl NodeLedger {
    /// The cards of a pod that is here already and is assumed once more.
    ///
    /// # Errors
    /// [`Unfit`] where it is not known which cards it has, or its cards do not take it any more and no others do.
    pub(super) fn assume_again(
        &mut self,
        planner: &mut Planner,
        uid: &PodUid,
        request: &GpuRequest,
        policy: Policy,
        deadline: Timestamp,
        epoch: u64,
    ) -> Result<Plan, Unfit> {
        let Some(known) = self.commitments.get(uid) else { return Err(Unfit::UnknownNode) };
        let Held::Plan(plan) = &known.held else { return Err(Unfit::UnreadableRecord) };
        let other = match known.state {
            State::Assumed { .. } if !self.takes(plan) => {
                // without what the pod itself holds: it needs no second set of cards beside its own
                Some(planner.plan(&self.without(&BTreeSet::from([uid.clone()])), request, policy)?)
            }
            _ => None,
        };
        let plan = other.as_ref().unwrap_or(plan).clone();
        if let Some(known) = self.commitments.get_mut(uid)
            && let State::Assumed { deadline: old } = &mut known.state
        {
            *old = deadline.min(known.latest);
            known.epoch = epoch;
            if let Some(other) = other {
                known.replan(other);
            }
        }
        self.recount();
        Ok(plan)
    }

    /// No answer has come to the write: it may be carried out for as long as the pod is assumed.
    pub fn unanswered(&mut self, uid: &PodUid) {
        if let Some(known) = self.commitments.get_mut(uid) {
            known.unanswered = true;
        }
    }

    /// Whether the cards of a plan are all there and in order, with what is taken of them.
    fn takes(&self, plan: &Plan) -> bool {
        self.without_cards().is_none()
            && plan.holds().iter().all(|hold| {
                let card = self.cards.iter().find(|card| card.is_of(hold));
                card.is_some_and(|card| card.usable() && !card.overcommitted())
            })
    }
}

impl Commitment {
    fn replan(&mut self, other: Plan) {
        let earlier = std::mem::replace(&mut self.holds, other.holds());
        earlier.iter().for_each(|hold| either(&mut self.holds, hold));
        self.held = Held::Plan(other);
        self.doubtful = true;
    }

    /// It is known that the plan was carried out, and no earlier one.
    pub(super) fn certain(&mut self) {
        if std::mem::take(&mut self.doubtful)
            && let Held::Plan(plan) = &self.held
        {
            self.holds = plan.holds();
        }
    }
}

/// Makes the holds suffice for this one as well, which is in their place and not beside them.
fn either(holds: &mut Vec<Hold>, other: &Hold) {
    match holds.iter_mut().find(|hold| hold.device == other.device && hold.resource() == other.resource()) {
        Some(hold) => {
            hold.share = hold.share.max(other.share);
            match (&mut hold.taken, &other.taken) {
                (Taken::Counted(own), Taken::Counted(other)) => own.count = own.count.max(other.count),
                (taken, Taken::Whole) => *taken = Taken::Whole,
                _ => {}
            }
        }
        None => holds.push(other.clone()),
    }
}
