//! How well a container fits an Allocate, and why the call was taken for one container and not for another.

use std::fmt;

use serde::Serialize;

use crate::allocation::Key;

/// At most this many runners-up are named.
const NAMED: usize = 8;

/// Why a container was chosen, and which others could have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub evidence: Evidence,
    /// How many containers the call could have been for, the chosen one included.
    pub candidates: usize,
    /// The best of the others.
    pub runners_up: Vec<RunnerUp>,
}

/// Another container that the call could have been for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerUp {
    pub key: Key,
    /// The criterion by which the chosen one is ahead of it.
    pub behind_in: Criterion,
}

/// The evidence that a call is for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// kubelet's list, asked for during this call, names its pod.
    ListedNow,
    /// No other container waits for this amount.
    OnlyCandidate,
    /// It is ahead of all others that wait for this amount; this criterion separates it from the next one.
    Ahead(Criterion),
    /// So many containers wait for this amount and nothing else tells them apart: it was placed first.
    OldestOf(usize),
    /// The same ids were answered for it before, and no container waits for this amount.
    SameIds,
}

/// By what containers that wait for the same amount are compared, in order of weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    Listed,
    /// Its pod came onto kubelet's list later: kubelet admits one pod at a time.
    ListedLater,
    NotTerminating,
    /// Its pod does not run, and its record does not say that it has its GPUs.
    NotRunning,
    /// It is the next container of its pod, and no init container before it must have ended for that.
    NextContainer,
    SamePodAsLastCall,
    NoAnswerLost,
    /// An Allocate was already answered for its pod.
    Begun,
    IdsNameItsGpus,
    HasRoom,
    PlacedEarlier,
    /// Only their uids and names tell them apart.
    Name,
}

/// The text in logs and reports.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ListedNow => f.write_str("listed-now"),
            Self::OnlyCandidate => f.write_str("only-candidate"),
            Self::Ahead(criterion) => criterion.serialize(f),
            Self::OldestOf(count) => write!(f, "oldest-of-{count}"),
            Self::SameIds => f.write_str("same-ids"),
        }
    }
}

impl Decision {
    /// For a container that was chosen before `others`. These come best first, each with the criterion by which the
    /// chosen one is ahead of it: first those that were passed over for lack of room, then the rest in the order of
    /// their fit.
    /// `listed_now`: kubelet's list was asked for during this call.
    pub(super) fn new<'a>(others: impl Iterator<Item = (&'a Key, Criterion)> + Clone, listed_now: bool) -> Self {
        let alike = || {
            others.clone().filter(|(_, criterion)| matches!(criterion, Criterion::PlacedEarlier | Criterion::Name))
        };
        let evidence = match others.clone().next().map(|(_, criterion)| criterion) {
            None | Some(Criterion::Listed | Criterion::ListedLater) if listed_now => Evidence::ListedNow,
            None => Evidence::OnlyCandidate,
            Some(Criterion::PlacedEarlier | Criterion::Name) => Evidence::OldestOf(alike().count() + 1),
            Some(criterion) => Evidence::Ahead(criterion),
        };
        let named = others.clone().take(NAMED);
        let runners_up = named.map(|(key, behind_in)| RunnerUp { key: key.clone(), behind_in }).collect();
        Self { evidence, candidates: others.count() + 1, runners_up }
    }

    /// The same ids were answered for this container before; `holders`: for how many containers in all.
    pub(super) fn repeated(holders: usize) -> Self {
        Self { evidence: Evidence::SameIds, candidates: holders, runners_up: Vec::new() }
    }
}

/// How well a waiting container fits a call, by each criterion in order of weight: less is better.
///
/// * kubelet's word on the pod ([`Fit::turn`]) outweighs all else;
/// * then what follows from kubelet's order: container by container, pod by pod;
/// * then the ids that kubelet was advised to take, which it need not follow;
/// * last the order of placement, which kubelet mostly follows when nothing delays a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fit(pub(super) [(Criterion, u64); 10]);

impl Fit {
    /// Whether kubelet can be admitting the pod. Two pods that are equal in it cannot be told apart.
    pub(super) fn turn(&self) -> &[(Criterion, u64)] {
        &self.0[..4]
    }

    /// The first criterion in which the two differ.
    pub(super) fn decided_by(&self, other: &Self) -> Criterion {
        let difference = self.0.iter().zip(&other.0).find(|(own, others)| own != others);
        difference.map_or(Criterion::Name, |((criterion, _), _)| *criterion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_is_the_weightiest_difference() {
        use Criterion::*;
        let worst = Fit([
            Listed,
            ListedLater,
            NotTerminating,
            NotRunning,
            NextContainer,
            SamePodAsLastCall,
            NoAnswerLost,
            Begun,
            IdsNameItsGpus,
            PlacedEarlier,
        ]
        .map(|criterion| (criterion, 1)));
        let better_in = |at: usize| {
            let mut fit = worst;
            fit.0[at].1 = 0;
            fit
        };
        for (at, (criterion, _)) in worst.0.iter().enumerate() {
            let fit = better_in(at);
            assert!(fit < worst, "{criterion:?}");
            assert_eq!(fit.decided_by(&worst), *criterion);
            for other in (at + 1..10).map(better_in) {
                assert!(fit < other, "{criterion:?} outweighs what comes after it");
                assert_eq!(fit.decided_by(&other), *criterion);
            }
        }
        assert_eq!(worst.decided_by(&worst), Name);
        assert_eq!(worst.turn().last(), Some(&(NotRunning, 1)));
    }
}
