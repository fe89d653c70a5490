//! A pod's hold on cards of one node, and its state.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::card::Card;
use crate::ids::PodRef;
use crate::plan::{Hold, Plan, Taken};
use crate::request::{GpuRequest, PodRequest};
use crate::units::Timestamp;

/// By how much repeated assumes may move a pod's first deadline, in milliseconds: a pod whose binding fails again and
/// again leaves the cards to other pods between two tries.
pub const LONGEST_RETRY_MS: u64 = 45_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Reserved; the write to the API server has not been answered.
    Assumed {
        /// When to ask the API server whether it was carried out.
        deadline: Timestamp,
    },
    /// The API server has accepted the binding; the watch has not shown it yet.
    Bound {
        /// When to ask the API server whether the pod still exists: it may have been deleted before the binding was
        /// answered.
        deadline: Timestamp,
    },
    /// Seen bound in a watch or a list.
    Observed,
}

impl State {
    /// The words of all states.
    pub const WORDS: [&'static str; 3] = ["assumed", "bound", "observed"];

    /// Whether it is time to ask the API server about the pod.
    pub fn overdue(self, now: Timestamp) -> bool {
        matches!(self, Self::Assumed { deadline } | Self::Bound { deadline } if deadline <= now)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assumed { .. } => Self::WORDS[0],
            Self::Bound { .. } => Self::WORDS[1],
            Self::Observed => Self::WORDS[2],
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    Plan(Plan),
    /// Unknown cards: its amount of every card; of counted shares, of every card that is offered as such.
    Unreadable,
}

/// What decides, beside its priority, whether a pod is evicted for another: as the API server last showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// `status.startTime`, in milliseconds since 1970.
    pub started: Option<Timestamp>,
    /// It is being deleted.
    pub leaving: bool,
    /// `metadata.labels`, which disruption budgets select by.
    pub labels: BTreeMap<String, String>,
}

/// Of all pods that were not seen yet.
static UNKNOWN: LazyLock<Arc<Standing>> = LazyLock::new(Arc::default);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commitment {
    pub pod: PodRef,
    pub request: Arc<GpuRequest>,
    pub held: Held,
    pub state: State,
    /// Whether the node has given the cards to the containers: no further Allocate can come for this pod.
    pub confirmed: bool,
    pub standing: Arc<Standing>,
    /// The epoch ([`NodeLedger::release_missing`]) in which it was last seen.
    pub(super) epoch: u64,
    pub(super) taking: Taking,
    /// Repeated assumes move the deadline no later than this.
    pub(super) latest: Timestamp,
    /// Whether it also holds the cards of an earlier plan, which may have been carried out instead of this one.
    pub(super) doubtful: bool,
    /// Whether a write ended without an answer, so that it may still be carried out.
    pub(super) unanswered: bool,
}

impl Commitment {
    pub(super) fn new(pod: &PodRequest, held: Held, state: State, epoch: u64) -> Self {
        Self {
            pod: pod.name.clone(),
            request: pod.request.clone(),
            taking: match &held {
                Held::Plan(plan) => Taking::On(plan.holds()),
                Held::Unreadable => Taking::Anywhere(pod.request.taken_anywhere()),
            },
            held,
            state,
            confirmed: false,
            standing: UNKNOWN.clone(),
            epoch,
            latest: Timestamp::default(),
            doubtful: false,
            unanswered: false,
        }
    }

    /// What it takes over the pod's whole life, for each card of its plan or each card that it may be on.
    pub fn taken(&self) -> impl Iterator<Item = &Taken> {
        let anywhere = match &self.taking {
            Taking::On(_) => &[][..],
            Taking::Anywhere(taken) => taken,
        };
        self.taking.holds().iter().map(|hold| &hold.taken).chain(anywhere)
    }

    /// The cards that it takes part of, by position, with what it takes.
    pub(super) fn on(&self, cards: &[Card]) -> Vec<(usize, &Taken)> {
        match &self.taking {
            Taking::On(holds) => on(cards, holds),
            Taking::Anywhere(taken) => taken.iter().flat_map(|taken| anywhere(cards, taken)).collect(),
        }
    }

    /// Whether it is bound with a record, and the node has not given the cards to the containers yet.
    pub fn unconfirmed(&self) -> bool {
        !self.confirmed && matches!(self.held, Held::Plan(_)) && !matches!(self.state, State::Assumed { .. })
    }

    pub fn basis(&self) -> Basis {
        match &self.held {
            Held::Plan(_) => Basis::Record,
            Held::Unreadable if self.request.is_unreadable() => Basis::Everything,
            Held::Unreadable => Basis::Amounts,
        }
    }
}

crate::words! {
    /// What a pod's count is based on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Basis {
        Record = "record",
        /// Its amounts, on every card that it may be on: it has no record that is accepted.
        Amounts = "amounts",
        /// All cards of the node: its amounts cannot be read either.
        Everything = "everything",
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Same,
    New,
    /// The first sight of an assumed or bound pod, with the planned cards.
    AsPlanned,
    /// The record differs from the known one; the new one was adopted.
    Drift,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taking {
    On(Vec<Hold>),
    /// This of every card that it may be on.
    Anywhere(Vec<Taken>),
}

impl Taking {
    /// Empty where its cards are not known.
    pub(super) fn holds(&self) -> &[Hold] {
        match self {
            Self::On(holds) => holds,
            Self::Anywhere(_) => &[],
        }
    }
}

fn on<'a>(cards: &[Card], holds: &'a [Hold]) -> Vec<(usize, &'a Taken)> {
    let mut on: Vec<(usize, &Taken)> = Vec::with_capacity(holds.len());
    for Hold { device, taken } in holds {
        // a card that the node does not list
        let Some(named) = cards.iter().position(|card| card.is(device)) else { continue };
        // a second name of the same card may stand for any card
        if on.iter().any(|(at, other)| *at == named && other.resource() == taken.resource()) {
            on.extend(anywhere(cards, taken));
        } else {
            on.push((named, taken));
        }
    }
    on
}

/// The cards that a pod may be on which takes this of an unknown card.
fn anywhere<'a>(cards: &[Card], taken: &'a Taken) -> impl Iterator<Item = (usize, &'a Taken)> {
    cards.iter().enumerate().filter(|(_, card)| card.may_have(taken)).map(move |(at, _)| (at, taken))
}
