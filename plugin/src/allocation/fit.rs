//! How well a waiting container fits a call.

use std::cmp::Reverse;

use crate::allocation::decision::Criterion;
use crate::allocation::entry::{Noted, Reach};

/// Less is better. The fields are in the order of their weight, each with its [`Criterion`]:
///
/// * kubelet's word on the pod ([`Turn`]) outweighs all else;
/// * then what follows from kubelet's order: container by container, pod by pod;
/// * then the ids that kubelet was advised to take, which it need not follow;
/// * last the order of placement, which kubelet mostly follows when nothing delays a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fit {
    pub(super) turn: Turn,
    pub(super) reach: Reach,
    pub(super) other_pod: bool,
    pub(super) noted: Noted,
    /// kubelet has asked for nothing of its pod yet.
    pub(super) untouched: bool,
    /// The ids name other GPUs than those on the record.
    pub(super) other_gpus: bool,
    pub(super) placed: u64,
}

/// Whether kubelet can be admitting a pod. Two pods that are equal in it cannot be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    /// Not on kubelet's list, so not being admitted.
    pub(super) absent: bool,
    /// kubelet is admitting the pod that came onto its list last.
    pub(super) since: Reverse<u64>,
    pub(super) terminating: bool,
    /// It runs, or its record says that it has its GPUs.
    pub(super) running: bool,
}

impl Fit {
    /// The first criterion in which the two differ.
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

    /// Each is better than the worst by one criterion alone.
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
