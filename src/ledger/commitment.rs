//! A pod's hold on cards of one node, and where it is in its life.

use std::sync::Arc;

use super::card::Card;
use super::standing::Standing;
use crate::ids::PodRef;
use crate::plan::{Hold, Plan, Taken};
use crate::request::GpuRequest;
use crate::units::Timestamp;

/// How much longer than at first asked for a pod may be assumed, however often it is assumed again, in milliseconds: a pod
/// whose binding fails again and again lets others have the cards between two tries.
pub const LONGEST_RETRY_MS: u64 = 45_000;

/// Where a commitment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Reserved; the write to the API server has not been answered.
    Assumed {
        /// When the API server must be asked what became of it.
        deadline: Timestamp,
    },
    /// The API server has accepted the binding; the watch has not shown it yet.
    Bound {
        /// When the API server must be asked whether the pod is still there: its deletion may have come before
        /// the answer to its binding.
        deadline: Timestamp,
    },
    /// Seen bound in a watch or a list.
    Observed,
}

impl State {
    /// Whether the API server must be asked what became of the pod.
    pub fn overdue(self, now: Timestamp) -> bool {
        matches!(self, Self::Assumed { deadline } | Self::Bound { deadline } if deadline <= now)
    }

    /// The word used in `/debug/state`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assumed { .. } => "assumed",
            Self::Bound { .. } => "bound",
            Self::Observed => "observed",
        }
    }
}

/// What a commitment takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// The cards of a plan.
    Plan(Plan),
    /// Unknown cards: its amount of every card, and of shares by count of every card that is offered as such.
    Unreadable,
}

/// A pod's hold on cards of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commitment {
    /// The pod, for people and for API calls.
    pub pod: PodRef,
    pub request: Arc<GpuRequest>,
    /// What it takes.
    pub held: Held,
    /// Where it is in its life.
    pub state: State,
    /// Whether the node has given the cards to the containers, so that no Allocate of this pod can come any more.
    pub confirmed: bool,
    /// What else decides whether it leaves when room is made.
    pub standing: Arc<Standing>,
    /// The epoch ([`NodeLedger::release_missing`]) in which it was last heard of.
    pub(super) epoch: u64,
    pub(super) taking: Taking,
    /// The last moment up to which it may be assumed.
    pub(super) latest: Timestamp,
    /// Whether it holds the cards of an earlier plan as well, which may have been carried out in place of this one.
    pub(super) doubtful: bool,
    /// Whether a write has ended without an answer, so that it may be carried out yet.
    pub(super) unanswered: bool,
}

impl Commitment {
    /// What it takes over the pod's whole life: of each card of its plan, or of each that it may be on.
    pub fn taken(&self) -> impl Iterator<Item = &Taken> {
        let (on, anywhere) = match &self.taking {
            Taking::On(holds) => (&holds[..], &[][..]),
            Taking::Anywhere(taken) => (&[][..], &taken[..]),
        };
        on.iter().map(|hold| &hold.taken).chain(anywhere)
    }

    /// The cards that it takes of, by their positions, with what.
    pub(super) fn on<'a>(&'a self, cards: &[Card]) -> impl Iterator<Item = (usize, &'a Taken)> + use<'a> {
        let (one, several) = match &self.taking {
            Taking::On(holds) => match holds.as_slice() {
                // most pods: nothing is allocated for them
                [hold] => (cards.iter().position(|card| card.is(&hold.device)).map(|at| (at, &hold.taken)), vec![]),
                holds => (None, on(cards, holds)),
            },
            Taking::Anywhere(taken) => (None, taken.iter().flat_map(|taken| anywhere(cards, taken)).collect()),
        };
        one.into_iter().chain(several)
    }

    /// By what it is counted.
    pub fn basis(&self) -> Basis {
        match &self.held {
            Held::Plan(_) => Basis::Record,
            Held::Unreadable if self.request.is_unreadable() => Basis::Everything,
            Held::Unreadable => Basis::Amounts,
        }
    }
}

/// By what a pod is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// The cards of its plan or record.
    Record,
    /// Its amounts, on every card that it may be on: there is no record of it that can be believed.
    Amounts,
    /// All that there is: its amounts cannot be read either.
    Everything,
}

impl Basis {
    pub const ALL: [Self; 3] = [Self::Record, Self::Amounts, Self::Everything];

    /// The word used in `/debug/state`, in metrics and by `kerf inspect`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Amounts => "amounts",
            Self::Everything => "everything",
        }
    }
}

/// What `observe` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// As it was known.
    Same,
    /// A pod that was not known here.
    New,
    /// An assumed or bound pod, as planned.
    AsPlanned,
    /// Another record than the known one; the new one was adopted.
    Drift,
}

/// What a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taking {
    /// Of these cards.
    On(Vec<Hold>),
    /// Of every card that it may be on.
    Anywhere(Vec<Taken>),
}

impl Taking {
    pub(super) fn of(held: &Held, request: &GpuRequest) -> Self {
        match held {
            Held::Plan(plan) => Self::On(plan.holds()),
            Held::Unreadable => Self::Anywhere(request.taken_anywhere()),
        }
    }

    /// What it takes of cards that are known.
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
        // under another name it may stand for any card
        if on.iter().any(|(at, other)| *at == named && other.resource() == taken.resource()) {
            on.extend(anywhere(cards, taken));
        } else {
            on.push((named, taken));
        }
    }
    on
}

/// Every card that a pod may be on which takes this of an unknown one.
fn anywhere<'a>(cards: &[Card], taken: &'a Taken) -> impl Iterator<Item = (usize, &'a Taken)> {
    cards.iter().enumerate().filter(|(_, card)| card.may_have(taken)).map(move |(at, _)| (at, taken))
}
