//! A pod that is assumed again while the outcome of its previous write is unknown.
//!
//! It gets the same cards again, so that both writes say the same. Where those cannot take it any more, because one
//! became unhealthy, was cordoned, vanished or is overcommitted, it gets others. Until the API server has shown which
//! of the two writes was carried out, the pod may be on the cards of either, so it holds both.

use super::commitment::{Commitment, Held, State, Taking};
use super::node::NodeLedger;
use crate::ids::PodUid;
use crate::plan::{Hold, Plan, Taken};
use crate::unfit::Unfit;
use crate::units::Timestamp;

impl NodeLedger {
    /// Whether a pod that is already here and is assumed again keeps its cards. Otherwise it needs others, planned
    /// [`NodeLedger::without`] it: they replace its own.
    ///
    /// # Errors
    /// [`Unfit`] where it is not here, or its cards are not known.
    pub fn keeps(&self, uid: &PodUid) -> Result<bool, Unfit> {
        let known = self.commitments.get(uid).ok_or(Unfit::UnknownNode)?;
        let Held::Plan(plan) = &known.held else { return Err(Unfit::UnreadableRecord) };
        Ok(!matches!(known.state, State::Assumed { .. }) || self.takes(plan))
    }

    /// Reserves the cards of a pod again: those that it [keeps](NodeLedger::keeps), or those of another plan. Returns
    /// its plan; `None` where it is not here, or its cards are not known.
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

    /// The write was not answered: it may be carried out as long as the pod is assumed.
    pub fn unanswered(&mut self, uid: &PodUid) {
        if let Some(known) = self.commitments.get_mut(uid) {
            known.unanswered = true;
        }
    }

    /// Whether all cards of the plan exist, take new pods and are not overcommitted.
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

    /// The plan is known to be carried out, and no earlier one.
    pub(super) fn certain(&mut self) {
        if std::mem::take(&mut self.doubtful)
            && let Held::Plan(plan) = &self.held
        {
            self.taking = Taking::On(plan.holds());
        }
    }
}

/// Grows the holds so that they cover this one too, as an alternative to them and not in addition.
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
