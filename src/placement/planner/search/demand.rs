//! What a pod asks for, as the search sees it, and what is still to be placed.

use std::cmp::Reverse;

use super::super::counted::most;
use crate::request::{Ask, ContainerKind, ContainerRequest, GpuRequest};
use crate::shares::Arrangement;
use crate::units::{Mib, Share};

#[derive(Debug)]
pub(super) struct Demand<'a> {
    pub request: &'a GpuRequest,
    /// The largest share first.
    pub parts: Vec<Part>,
    pub wholes: Vec<Wholes>,
    pub inits: Vec<Init>,
    /// Those of `inits` that ask for whole cards, in the order of [`Left::wholes`].
    pub init_wholes: Vec<usize>,
    /// For each resource of counted shares, one container that asks for it.
    pub counted: Vec<usize>,
    /// Whether every card may be filled (no room has to stay for init containers).
    pub dense: bool,
}

/// A long-running container with a share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub number: usize,
    pub share: Share,
    /// The init containers beside which it runs, as a bit set.
    pub beside: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Wholes {
    pub containers: Vec<(usize, usize)>,
    pub beside: u64,
    pub memory: Option<Mib>,
    pub count: u32,
}

/// An init container; its bit is its position among them.
#[derive(Debug)]
pub(super) struct Init {
    pub number: usize,
    /// What a card must have left for it; `None`: the whole card.
    pub share: Option<Share>,
}

/// What is still to be placed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Left {
    /// Long-running shares.
    pub parts: u64,
    /// Init containers with shares.
    pub inits: u64,
    /// Number of whole cards and their memory, of long-running containers and then of init containers.
    pub wholes: Vec<(u32, u64)>,
    pub counted: Vec<u32>,
}

impl Left {
    pub fn nothing(&self) -> bool {
        self.parts == 0
            && self.inits == 0
            && self.wholes.iter().all(|left| *left == (0, 0))
            && self.counted.iter().all(|left| *left == 0)
    }
}

impl<'a> Demand<'a> {
    /// `largest`: memory in MiB of the node's largest card.
    pub fn of(request: &'a GpuRequest, largest: u64) -> Self {
        let all = || request.containers.iter().enumerate();
        let is_init = |c: &ContainerRequest| c.kind == ContainerKind::Init;
        let mut inits = Vec::new();
        let mut init_wholes = Vec::new();
        for (number, container) in all().filter(|(_, c)| is_init(c)) {
            let share = match container.ask {
                Ask::Share(share) => Some(share),
                Ask::Whole { .. } => None,
                Ask::Counted(_) => continue,
            };
            if share.is_none() {
                init_wholes.push(inits.len());
            }
            inits.push(Init { number, share });
        }
        let beside = |number: usize, container: &ContainerRequest| match container.kind {
            ContainerKind::Sidecar => {
                let bits = inits.iter().enumerate().filter(|(_, init)| init.number > number);
                bits.fold(0, |bits, (place, _)| bits | 1 << place)
            }
            ContainerKind::Init | ContainerKind::App => 0u64,
        };
        let (mut parts, mut wholes, mut counted) = (Vec::new(), Vec::<Wholes>::new(), Vec::new());
        for (number, container) in all() {
            let beside = beside(number, container);
            match &container.ask {
                Ask::Counted(asked) => {
                    let same = |other: &usize| match request.containers.get(*other).map(|c| &c.ask) {
                        Some(Ask::Counted(other)) => other.resource == asked.resource,
                        _ => false,
                    };
                    if !counted.iter().any(same) {
                        counted.push(number);
                    }
                }
                _ if is_init(container) => {}
                Ask::Share(share) => parts.push(Part { number, share: *share, beside }),
                Ask::Whole { count, memory } => {
                    let own = (number, *count as usize);
                    let same =
                        |other: &&mut Wholes| memory.is_none() && other.memory.is_none() && other.beside == beside;
                    match wholes.iter_mut().find(same) {
                        Some(other) => {
                            other.containers.push(own);
                            other.count = other.count.saturating_add(*count);
                        }
                        None => {
                            wholes.push(Wholes { containers: vec![own], beside, memory: *memory, count: *count })
                        }
                    }
                }
            }
        }
        let part = |of: &Part| {
            let (compute, memory) = (u128::from(of.share.compute.0), u128::from(of.share.memory.0));
            (compute * u128::from(largest)).max(memory * 1000)
        };
        parts.sort_by_key(|of| (Reverse((part(of), of.share.compute, of.share.memory)), of.beside, of.number));
        let dense = parts.iter().all(|part| part.beside == 0) && wholes.iter().all(|whole| whole.beside == 0);
        Self { request, parts, wholes, inits, init_wholes, counted, dense }
    }

    pub fn all(&self) -> Left {
        let request = self.request;
        let ask = |number: usize| request.containers.get(number).map(|c| &c.ask);
        let init_whole = |place: &usize| match ask(self.inits.get(*place)?.number)? {
            Ask::Whole { count, memory } => Some((*count, memory.map_or(0, |memory| memory.0))),
            _ => None,
        };
        let lasting = self.wholes.iter().map(|whole| (whole.count, whole.memory.map_or(0, |memory| memory.0)));
        let counted = self.counted.iter().map(|number| match (ask(*number), request.arrangement) {
            (Some(Ask::Counted(_)), Arrangement::SameCard) => 1,
            (Some(Ask::Counted(asked)), _) => most(request, asked.resource.as_str()),
            _ => 0,
        });
        let with_share = |(place, init): (usize, &Init)| u64::from(init.share.is_some()) << place;
        Left {
            parts: (0..self.parts.len()).fold(0, |bits, place| bits | 1 << place),
            inits: self.inits.iter().enumerate().map(with_share).fold(0, |bits, bit| bits | bit),
            wholes: lasting.chain(self.init_wholes.iter().filter_map(init_whole)).collect(),
            counted: counted.collect(),
        }
    }

    /// All memory that long-running containers with whole cards still ask for.
    pub fn named(&self, left: &Left) -> u64 {
        left.wholes.iter().take(self.wholes.len()).fold(0, |sum, (_, memory)| sum.saturating_add(*memory))
    }
}

/// Takes one card off this demand for whole cards.
pub(super) fn take_whole(left: &mut Left, number: usize, card: Option<Share>) {
    if let Some((count, memory)) = left.wholes.get_mut(number).filter(|(count, _)| *count > 0) {
        *count -= 1;
        *memory = memory.saturating_sub(card.map_or(0, |card| card.memory.0));
    }
}
