//! The transitions of a pod's commitment.

use std::sync::Arc;

use super::commitment::{Commitment, Held, LONGEST_RETRY_MS, Seen, Standing, State, Taking};
use super::node::NodeLedger;
use crate::ids::{PodRef, PodUid};
use crate::plan::Plan;
use crate::request::PodRequest;
use crate::units::Timestamp;

impl NodeLedger {
    /// Reserves the cards of a plan until `deadline`. False for a pod that is already here: it keeps what it has
    /// ([`NodeLedger::keeps`]).
    pub fn reserve(&mut self, pod: &PodRequest, plan: Plan, deadline: Timestamp, epoch: u64) -> bool {
        if self.commitments.contains_key(&pod.uid) {
            return false;
        }
        let known = Commitment::new(pod, Held::Plan(plan), State::Assumed { deadline }, epoch);
        self.commitments.insert(pod.uid.clone(), Commitment { latest: deadline.plus(LONGEST_RETRY_MS), ..known });
        self.recount();
        true
    }

    /// The API server accepted the binding.
    pub fn bound(&mut self, uid: &PodUid, epoch: u64) {
        if let Some(commitment) = self.commitments.get_mut(uid)
            && let State::Assumed { deadline } = commitment.state
        {
            commitment.state = State::Bound { deadline };
            commitment.epoch = epoch;
            if commitment.doubtful {
                commitment.certain();
                self.recount();
            }
        }
    }

    /// A list of `epoch` has the pod, but the rest of it cannot be read.
    pub fn keep(&mut self, uid: &PodUid, epoch: u64) {
        if let Some(known) = self.commitments.get_mut(uid) {
            known.epoch = epoch;
        }
    }

    /// The pod was seen bound to this node with this record.
    pub fn observe(&mut self, pod: &PodRequest, held: Held, confirmed: bool, epoch: u64) -> Seen {
        let PodRequest { uid, request, .. } = pod;
        let seen = match self.commitments.get_mut(uid) {
            Some(known) if known.held == held && known.request.counts_as(request) => {
                let seen = if known.state == State::Observed { Seen::Same } else { Seen::AsPlanned };
                known.state = State::Observed;
                // never back to unconfirmed: an older view of the pod may arrive late
                known.confirmed |= confirmed;
                known.epoch = epoch;
                if known.doubtful {
                    known.certain();
                    self.recount();
                }
                return seen;
            }
            Some(_) => Seen::Drift,
            None => Seen::New,
        };
        let before = self.commitments.get(uid);
        let mut commitment = Commitment::new(pod, held, State::Observed, epoch);
        commitment.confirmed = confirmed || before.is_some_and(|known| known.confirmed);
        if let Some(known) = before {
            commitment.standing = known.standing.clone();
        }
        let known = self.commitments.insert(uid.clone(), commitment);
        // an unreadable record holds every card and so leaves none; nor does a plan whose alternative was carried out,
        // as the API server now shows
        if let Some(Commitment { taking: Taking::On(before), doubtful: false, .. }) = known
            && let Some(Commitment { taking: Taking::On(after), .. }) = self.commitments.get(uid)
        {
            self.transit.moved(&before, after, &self.cards);
        }
        self.recount();
        seen
    }

    /// The latest write was refused: an assumed pod leaves, unless an earlier write may still be carried out
    /// ([`NodeLedger::unanswered`]). True where it left.
    pub fn forget(&mut self, uid: &PodUid) -> bool {
        let left = |known: &Commitment| matches!(known.state, State::Assumed { .. }) && !known.unanswered;
        self.commitments.get(uid).is_some_and(left) && self.release(uid)
    }

    /// Assumed and bound pods whose deadline has passed. The caller asks the API server about each.
    pub fn overdue(&self, now: Timestamp) -> Vec<(PodUid, PodRef)> {
        self.commitments
            .iter()
            .filter(|(_, commitment)| commitment.state.overdue(now))
            .map(|(uid, commitment)| (uid.clone(), commitment.pod.clone()))
            .collect()
    }

    /// The API server says that an overdue pod is not bound here: it leaves. False where it stays because it was
    /// assumed again in the meantime, or is not here.
    pub fn expire(&mut self, uid: &PodUid, now: Timestamp) -> bool {
        self.commitments.get(uid).is_some_and(|known| known.state.overdue(now)) && self.release(uid)
    }

    /// Frees what moved records left and no other record took up within `patience` milliseconds, counted from the first
    /// call after the latest move. True where something became free.
    pub fn settle(&mut self, now: Timestamp, patience: u64) -> bool {
        let settled = self.transit.expire(now, patience);
        if settled {
            self.recount();
        }
        settled
    }

    /// The pod was deleted or has ended: what it took is free. False where it was not here.
    pub fn release(&mut self, uid: &PodUid) -> bool {
        let known = self.commitments.remove(uid).is_some();
        if known {
            self.recount();
        }
        known
    }

    /// A complete list of pods that began in `epoch` has ended: pods that were bound before it began and are not in it
    /// are gone. Returns them.
    pub fn release_missing(&mut self, epoch: u64) -> Vec<PodUid> {
        let gone = |known: &Commitment| known.epoch < epoch && !matches!(known.state, State::Assumed { .. });
        let missing: Vec<PodUid> =
            self.commitments.iter().filter(|(_, known)| gone(known)).map(|(uid, _)| uid.clone()).collect();
        for uid in &missing {
            self.commitments.remove(uid);
        }
        if !missing.is_empty() {
            self.recount();
        }
        missing
    }

    /// Updates what is known of a pod that is here.
    pub fn describe(&mut self, uid: &PodUid, standing: Standing) {
        if let Some(known) = self.commitments.get_mut(uid).filter(|known| *known.standing != standing) {
            known.standing = Arc::new(standing);
        }
    }
}
