//! A pod that is assumed again while it is not known what became of the write before.
//!
//! It gets the same cards again, so that both writes say the same. Where those do not take it any more, because one fell
//! ill, was cordoned, vanished or is overcommitted, it gets others. Until the API server has said which of the two writes
//! was carried out the pod may be on the cards of either, so it holds both.

use super::commitment::{Commitment, Held, State, Taking};
use super::node::NodeLedger;
use crate::ids::PodUid;
use crate::plan::{Hold, Plan, Taken};
use crate::unfit::Unfit;
use crate::units::Timestamp;

impl NodeLedger {
    /// Whether a pod that is here already and is assumed once more keeps its cards. Else it needs others, found
    /// [`NodeLedger::without`] it: it needs no second set of cards beside its own.
    ///
    /// # Errors
    /// [`Unfit`] where it is not here, or it is not known which cards it has.
    pub fn keeps(&self, uid: &PodUid) -> Result<bool, Unfit> {
        let known = self.commitments.get(uid).ok_or(Unfit::UnknownNode)?;
        let Held::Plan(plan) = &known.held else { return Err(Unfit::UnreadableRecord) };
        Ok(!matches!(known.state, State::Assumed { .. }) || self.takes(plan))
    }

    /// Reserves the cards of a pod once more: those that it [keeps](NodeLedger::keeps), or those of another plan. Returns
    /// its plan; `None` where it is not here, or it is not known which cards it has.
    pub fn reserve_again(
        &mut self,
        uid: &PodUid,
        other: Option<Plan>,
        deadline: Timestamp,
        epoch: u64,
    ) -> Option<Plan> {
        let known = self.commitments.get_mut(uid)?;
        if let State::Assumed { deadline: old } = &mut known.state {
            *old = deadline.min(known.latest);
            known.epoch = epoch;
            if let Some(other) = other {
                known.replan(other);
            }
        }
        let plan = match &known.held {
            Held::Plan(plan) => Some(plan.clone()),
            Held::Unreadable => None,
        };
        self.recount();
        plan
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
                let card = self.cards.iter().find(|card| card.is(&hold.device));
                card.is_some_and(|card| card.usable() && !card.overcommitted())
            })
    }
}

impl Commitment {
    fn replan(&mut self, other: Plan) {
        let mut holds = other.holds();
        self.taking.holds().iter().for_each(|earlier| either(&mut holds, earlier));
        self.taking = Taking::On(holds);
        self.held = Held::Plan(other);
        self.doubtful = true;
    }

    /// It is known that the plan was carried out, and no earlier one.
    pub(super) fn certain(&mut self) {
        if std::mem::take(&mut self.doubtful)
            && let Held::Plan(plan) = &self.held
        {
            self.taking = Taking::On(plan.holds());
        }
    }
}

/// Makes the holds suffice for this one as well, which is in their place and not beside them.
fn either(holds: &mut Vec<Hold>, other: &Hold) {
    let same =
        |hold: &&mut Hold| hold.device.id == other.device.id && hold.taken.resource() == other.taken.resource();
    match holds.iter_mut().find(same) {
        Some(hold) => match (&mut hold.taken, &other.taken) {
            (Taken::Counted(own, compute), Taken::Counted(other, other_compute)) => {
                own.count = own.count.max(other.count);
                *compute = (*compute).max(*other_compute);
            }
            (own, Taken::Whole(share)) => *own = Taken::Whole(own.share().max(*share)),
            (Taken::Part(own) | Taken::Whole(own), other) => *own = (*own).max(other.share()),
            (Taken::Counted(..), Taken::Part(_)) => {}
        },
        None => holds.push(other.clone()),
    }
}
