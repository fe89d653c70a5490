//! A pod's hold on cards of one node, and where it is in its life.

use std::sync::Arc;

use super::{Card, Standing};
use crate::ids::{DeviceId, PodRef};
use crate::plan::{Form, Grant, Hold, Plan, Slice};
use crate::request::{Ask, ContainerRequest, GpuRequest};
use crate::units::{Share, Timestamp};

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
    /// What it asks for.
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
    pub(super) holds: Vec<Hold>,
    /// The last moment up to which it may be assumed.
    pub(super) latest: Timestamp,
    /// Whether it holds the cards of an earlier plan as well, which may have been carried out in place of this one.
    pub(super) doubtful: bool,
    /// Whether a write has ended without an answer, so that it may be carried out yet.
    pub(super) unanswered: bool,
}

impl Commitment {
    /// What it takes of each card over the pod's whole life; of unknown cards one entry, for each of them.
    pub fn holds(&self) -> &[Hold] {
        &self.holds
    }

    /// The cards that it takes of, by their positions, with what.
    pub(super) fn on<'a>(&'a self, cards: &[Card]) -> impl Iterator<Item = (usize, &'a Hold)> + use<'a> {
        let (one, several) = match (self.holds.as_slice(), &self.held) {
            // most pods: nothing is allocated for them
            ([hold], Held::Plan(_)) => {
                (cards.iter().position(|card| card.is_of(hold)).map(|at| (at, hold)), vec![])
            }
            _ => (None, self.on_several(cards)),
        };
        one.into_iter().chain(several)
    }

    fn on_several(&self, cards: &[Card]) -> Vec<(usize, &Hold)> {
        let mut on: Vec<(usize, &Hold)> = Vec::with_capacity(self.holds.len());
        for hold in &self.holds {
            let named = match &self.held {
                Held::Plan(_) => match cards.iter().position(|card| card.is_of(hold)) {
                    // a card that the node does not list
                    None => continue,
                    // under another name it may stand for any card
                    named => named.filter(|named| {
                        !on.iter().any(|(at, other)| at == named && other.resource() == hold.resource())
                    }),
                },
                Held::Unreadable => None,
            };
            match named {
                Some(named) => on.push((named, hold)),
                None => {
                    let any = cards.iter().enumerate().filter(|(_, card)| card.may_have(hold));
                    on.extend(any.map(|(at, _)| (at, hold)));
                }
            }
        }
        on
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
    /// Every basis.
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

/// What such a pod takes of each card.
pub(super) fn holds(held: &Held, request: &GpuRequest) -> Vec<Hold> {
    match held {
        Held::Plan(plan) => plan.holds(),
        Held::Unreadable => anywhere(request).holds(),
    }
}

/// The request on a card that has no name.
fn anywhere(request: &GpuRequest) -> Plan {
    let grant = |container: &ContainerRequest| {
        let (share, count) = match &container.ask {
            Ask::Share(share) => (*share, 1),
            Ask::Whole { .. } => (Share::ZERO, 1),
            // how much that is, each card says
            Ask::Counted(counted) => (Share::ZERO, counted.count),
        };
        Grant {
            container: container.name.clone(),
            kind: container.kind,
            position: container.position,
            form: Form::of(&container.ask),
            slices: vec![Slice { device: DeviceId::from(""), index: 0, share, count }],
        }
    };
    Plan { grants: request.containers.iter().map(grant).collect() }
}
