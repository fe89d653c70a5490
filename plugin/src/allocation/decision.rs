//! Why an Allocate was taken for one container and not for another.

use std::fmt;

use crate::allocation::pod::Key;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

impl Criterion {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::ListedLater => "listed-later",
            Self::NotTerminating => "not-terminating",
            Self::NotRunning => "not-running",
            Self::NextContainer => "next-container",
            Self::SamePodAsLastCall => "same-pod-as-last-call",
            Self::NoAnswerLost => "no-answer-lost",
            Self::Begun => "begun",
            Self::IdsNameItsGpus => "ids-name-its-gpus",
            Self::HasRoom => "has-room",
            Self::PlacedEarlier => "placed-earlier",
            Self::Name => "name",
        }
    }
}

/// The text in logs and reports.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ListedNow => f.write_str("listed-now"),
            Self::OnlyCandidate => f.write_str("only-candidate"),
            Self::Ahead(criterion) => f.write_str(criterion.as_str()),
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
