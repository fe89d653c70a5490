//! How well a waiting container fits a call.

use std::cmp::Reverse;

use crate::allocation::decision::Criterion;
use crate::allocation::entry::{Noted, Reach};

/// Less is better, and the fields stand in the order of their weight, each with its [`Criterion`]:
///
/// * what kubelet says of the pod ([`Turn`]) outweighs all else;
/// * then what follows from kubelet's order of things: container by container, pod by pod;
/// * then what kubelet was steered to by the ids that it was offered, which it need not follow;
/// * last the order of placement, which kubelet mostly follows when nothing holds a pod up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fit {
    pub(super) turn: Turn,
    pub(super) reach: Reach,
    /// Not the pod of the last call.
    pub(super) other_pod: bool,
    pub(super) noted: Noted,
    /// Nothing of its pod was asked for yet.
    pub(super) untouched: bool,
    /// The ids name other GPUs than the placed ones.
    pub(super) other_gpus: bool,
    /// When its pod was placed.
    pub(super) placed: u64,
}

/// Whether kubelet can be at a pod. Of two that are equal in it nothing tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    /// Not on kubelet's list, so not being admitted.
    pub(super) absent: bool,
    /// kubelet is at the pod that came onto its list last.
    pub(super) since: Reverse<u64>,
    pub(super) terminating: bool,
    /// It runs, or says of itself that it has its GPUs.
    pub(super) running: bool,
}

impl Fit {
    /// What decides between two: the first in which they differ.
    pub(super) fn decided_by(&self, other: &Self) -> Criterion {
        let (turn, others) = (&self.turn, &other.turn);
        let differences = [
            (turn.absent != others.absent, Criterion::Listed),
            (turn.since != others.since, Criterion::ListedLater),
            (turn.terminating != others.terminating, Criterion::NotTerminating),
            (turn.running != others.running, Criterion::NotRunning),
            (self.reach != other.reach, Criterion::NextContainer),
            (self.other_pod != other.other_pod, Criterion::SamePodAsLastCall),
            (self.noted != other.noted, Criterion::NoAnswerLost),
            (self.untouched != other.untouched, Criterion::Begun),
            (self.other_gpus != other.other_gpus, Criterion::IdsNameItsGpus),
            (self.placed != other.placed, Criterion::PlacedEarlier),
        ];
        differences.iter().find(|(differ, _)| *differ).map_or(Criterion::Name, |(_, criterion)| *criterion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORST: Fit = Fit {
        turn: Turn { absent: true, since: Reverse(0), terminating: true, running: true },
        reach: Reach::Again,
        other_pod: true,
        noted: Noted::NotAll,
        untouched: true,
        other_gpus: true,
        placed: 1,
    };

    /// Each is better than the worst in one thing alone.
    fn better_in() -> [(Fit, Criterion); 10] {
        let turn = WORST.turn;
        [
            (Fit { turn: Turn { absent: false, ..turn }, ..WORST }, Criterion::Listed),
            (Fit { turn: Turn { since: Reverse(1), ..turn }, ..WORST }, Criterion::ListedLater),
            (Fit { turn: Turn { terminating: false, ..turn }, ..WORST }, Criterion::NotTerminating),
            (Fit { turn: Turn { running: false, ..turn }, ..WORST }, Criterion::NotRunning),
            (Fit { reach: Reach::Skipping, ..WORST }, Criterion::NextContainer),
            (Fit { other_pod: false, ..WORST }, Criterion::SamePodAsLastCall),
            (Fit { noted: Noted::All, ..WORST }, Criterion::NoAnswerLost),
            (Fit { untouched: false, ..WORST }, Criterion::Begun),
            (Fit { other_gpus: false, ..WORST }, Criterion::IdsNameItsGpus),
            (Fit { placed: 0, ..WORST }, Criterion::PlacedEarlier),
        ]
    }

    #[test]
    fn what_decides_is_the_weightiest_difference() {
        let all = better_in();
        for (at, (fit, criterion)) in all.iter().enumerate() {
            assert!(*fit < WORST, "{criterion:?}");
            assert_eq!(fit.decided_by(&WORST), *criterion);
            for (other, _) in &all[at + 1..] {
                assert!(fit < other, "{criterion:?} outweighs what comes after it");
                assert_eq!(fit.decided_by(other), *criterion);
            }
        }
        assert_eq!(WORST.decided_by(&WORST), Criterion::Name);
        assert!(all.is_sorted_by_key(|(_, criterion)| *criterion), "weights and fields stand in one order");
    }
}
