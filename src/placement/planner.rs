//! The planner: which cards of one node serve a request.

mod counted;
mod search;

use std::cmp::Reverse;

use self::search::Search;
use super::card_order;
use super::cards::best_set;
use crate::device::Device;
use crate::isolation::Isolation;
use crate::ledger::{Card, NodeLedger, Room};
use crate::plan::{Form, Grant, Plan, Slice};
use crate::policy::Policy;
use crate::request::{Ask, ContainerKind, ContainerRequest, GpuRequest};
use crate::shares::Arrangement;
use crate::unfit::Unfit;
use crate::units::{Mib, Milli, Share};

/// So many steps of [`search`] one planner takes, over all nodes: a sixth of a second.
const STEPS: u64 = 1_000_000;

/// No node gets more than this part of the steps that are left, so that many hard ones leave some to those after them.
const PART: u64 = 8;

/// Plans requests onto nodes: those of one call. Beside scratch memory, so that filtering thousands of nodes allocates
/// nothing, it holds how much the call may still search for arrangements of several containers. After that each
/// container in turn takes what suits it best, which may find no room where there is some.
#[derive(Debug)]
pub struct Planner {
    best: Choice,
    other: Choice,
    preferred: Option<usize>,
    /// How many more steps of the search it takes.
    steps: u64,
}

impl Default for Planner {
    fn default() -> Self {
        Self { best: Choice::default(), other: Choice::default(), preferred: None, steps: STEPS }
    }
}

/// A choice under construction: per card what the pod takes, and per container which cards.
#[derive(Debug, Default)]
struct Choice {
    preferred: Option<usize>,
    /// The least that shares need.
    isolation: Isolation,
    takes: Vec<Take>,
    /// Container (by position in the request), card (by position on the node), and how many shares by count of it.
    picks: Vec<(usize, usize, u32)>,
    /// The card that all shares by count must be on, once it is chosen.
    home: Option<usize>,
}

/// What the pod takes of one card.
#[derive(Clone, Copy, Debug, Default)]
struct Take {
    /// Sidecars and app containers together.
    lasting: Share,
    /// Sidecars alone.
    sidecars: Share,
    /// The largest init container and the sidecars beside it.
    init: Share,
    /// The first container that took of it.
    by: Option<usize>,
}

impl Take {
    /// Whether a container that asks so may have the card, as far as the pod's others go: a pod has a card in one form.
    fn alike(&self, ask: &Ask, containers: &[ContainerRequest]) -> bool {
        let Some(first) = self.by.and_then(|number| containers.get(number)) else { return true };
        match (&first.ask, ask) {
            (Ask::Counted(first), Ask::Counted(own)) => first.resource == own.resource,
            (Ask::Counted(_), _) | (_, Ask::Counted(_)) => false,
            (Ask::Share(_) | Ask::Whole { .. }, _) => true,
        }
    }

    fn peak(self) -> Share {
        self.lasting.max(self.init)
    }

    fn with(self, kind: ContainerKind, share: Share) -> Self {
        let lasting = self.lasting.saturating_add(share);
        let sidecars = self.sidecars.saturating_add(share);
        match kind {
            ContainerKind::Init => Self { init: self.init.max(sidecars), ..self },
            ContainerKind::Sidecar => Self { lasting, sidecars, ..self },
            ContainerKind::App => Self { lasting, ..self },
        }
    }
}

impl Planner {
    /// For one node: of the cards on which the pod takes equally much, shares go to this one, by its position there.
    pub fn preferring(card: Option<usize>) -> Self {
        Self { preferred: card, ..Self::default() }
    }

    /// For who bounds the time otherwise: it searches as much as every node is worth.
    pub fn patient() -> Self {
        Self { steps: u64::MAX, ..Self::default() }
    }

    /// Whether it has searched as much as it may, so that it may find no room where there is some.
    pub fn exhausted(&self) -> bool {
        self.steps < PART
    }

    /// Whether the request fits on the node.
    ///
    /// # Errors
    /// [`Unfit`] where it does not.
    pub fn fit(&mut self, node: &NodeLedger, request: &GpuRequest, policy: Policy) -> Result<(), Unfit> {
        self.fit_in_turn(node, request, policy)
            .or_else(|unfit| if self.fit_by_search(node, request, policy) { Ok(()) } else { Err(unfit) })
    }

    /// Whether the request fits if each container in turn has what suits it best, which is quickly said. Where it does
    /// not, a search may find more ([`Planner::fit_by_search`]).
    ///
    /// # Errors
    /// [`Unfit`] where it does not.
    #[inline]
    pub fn fit_in_turn(&mut self, node: &NodeLedger, request: &GpuRequest, policy: Policy) -> Result<(), Unfit> {
        // most candidates have room to spare; this spares looking for the best of their cards
        let room_to_spare = match request.containers.as_slice() {
            [ContainerRequest { ask: Ask::Share(share), .. }] => {
                request.isolation.is_none() && share.fits_in(node.roomiest())
            }
            [ContainerRequest { ask: Ask::Whole { count, memory: None }, .. }] => {
                node.rooms().iter().filter(|room| room.untouched).count() >= *count as usize
            }
            [ContainerRequest { ask: Ask::Counted(counted), .. }] => {
                let room = |card: &Card| card.free_shares(counted.resource.as_str()) >= counted.count;
                request.arrangement != Arrangement::DifferentCards && node.cards().iter().any(room)
            }
            _ => false,
        };
        if room_to_spare { Ok(()) } else { self.choose_in_turn(node, request, policy) }
    }

    /// Whether the request fits in any arrangement of its containers.
    pub fn fit_by_search(&mut self, node: &NodeLedger, request: &GpuRequest, policy: Policy) -> bool {
        self.search(node, request, policy).is_some()
    }

    /// Whether a search may find room for the request where its containers do not fit in turn.
    pub fn may_search(&self, request: &GpuRequest) -> bool {
        request.containers.len() > 1 && !self.exhausted()
    }

    /// Lets each container in turn have what suits it best, in `self.best`.
    fn choose_in_turn(&mut self, node: &NodeLedger, request: &GpuRequest, policy: Policy) -> Result<(), Unfit> {
        if let Some(unfit) = node.without_cards() {
            return Err(unfit);
        }
        let policy = request.policy.unwrap_or(policy);
        let is_init = |c: &ContainerRequest| c.kind == ContainerKind::Init;
        for choice in [&mut self.best, &mut self.other] {
            choice.preferred = self.preferred;
            choice.isolation = request.isolation.unwrap_or_default();
        }
        if !request.containers.iter().any(is_init) {
            return self.best.choose(node, request, request.containers.iter().enumerate(), policy);
        }
        // Lasting containers first suits small init containers, kubelet's order suits large ones.
        let (inits, lasting): (Vec<_>, Vec<_>) =
            request.containers.iter().enumerate().partition(|(_, c)| is_init(c));
        let lasting_first = self.best.choose(node, request, lasting.iter().chain(&inits).copied(), policy);
        let in_order = self.other.choose(node, request, request.containers.iter().enumerate(), policy);
        match (lasting_first, in_order) {
            (Err(_), Ok(())) => std::mem::swap(&mut self.best, &mut self.other),
            (Ok(()), Ok(())) if self.other.total() < self.best.total() => {
                std::mem::swap(&mut self.best, &mut self.other);
            }
            (Err(unfit), Err(_)) => return Err(unfit),
            (Ok(()), _) => {}
        }
        Ok(())
    }

    /// Looks for any arrangement in which the containers fit, for `self.best`: what one takes may be all that another
    /// could have had.
    fn search(&mut self, node: &NodeLedger, request: &GpuRequest, policy: Policy) -> Option<()> {
        if !self.may_search(request) || node.without_cards().is_some() {
            return None;
        }
        let policy = request.policy.unwrap_or(policy);
        let steps = search::steps(node, request).min(self.steps / PART);
        let (found, left) = Search::new(node, request, policy, steps).run(node);
        self.steps -= steps - left;
        self.best.carry_out(node, request, &found?, policy).ok()
    }

    /// The cards that the request gets on the node.
    ///
    /// # Errors
    /// [`Unfit`] where it does not fit.
    pub fn plan(&mut self, node: &NodeLedger, request: &GpuRequest, policy: Policy) -> Result<Plan, Unfit> {
        if let Err(unfit) = self.choose_in_turn(node, request, policy) {
            self.search(node, request, policy).ok_or(unfit)?;
        }
        let grants = request
            .containers
            .iter()
            .enumerate()
            .map(|(number, container)| {
                let picks = self.best.picks.iter().filter(|(owner, ..)| *owner == number);
                let mut slices: Vec<Slice> = picks
                    .filter_map(|(_, card, count)| Some((node.cards().get(*card)?.device(), *count)))
                    .map(|(device, count)| Slice {
                        device: device.id.clone(),
                        index: device.index,
                        share: amount(&container.ask, device, count),
                        count,
                    })
                    .collect();
                slices.sort_by_key(|slice| slice.index);
                Grant {
                    container: container.name.clone(),
                    kind: container.kind,
                    position: container.position,
                    form: Form::of(&container.ask),
                    slices,
                }
            })
            .collect();
        Ok(Plan { grants })
    }
}

/// What the container gets of a card.
fn amount(ask: &Ask, device: &Device, count: u32) -> Share {
    match ask {
        Ask::Share(share) => *share,
        Ask::Whole { .. } => device.capacity(),
        Ask::Counted(counted) => {
            let compute = device.offers.get(&counted.resource).map(|shares| shares.compute_of(count));
            Share { compute: compute.unwrap_or_default(), memory: Mib(0) }
        }
    }
}

impl Choice {
    fn choose<'a>(
        &mut self,
        node: &NodeLedger,
        request: &'a GpuRequest,
        containers: impl Iterator<Item = (usize, &'a ContainerRequest)>,
        policy: Policy,
    ) -> Result<(), Unfit> {
        self.clear(node);
        for container in containers {
            self.serve(node, request, container, policy)?;
        }
        Ok(())
    }

    fn clear(&mut self, node: &NodeLedger) {
        self.takes.clear();
        self.takes.resize(node.rooms().len(), Take::default());
        self.picks.clear();
        self.home = None;
    }

    /// Chooses the cards of one container, by the policy.
    fn serve(
        &mut self,
        node: &NodeLedger,
        request: &GpuRequest,
        (number, container): (usize, &ContainerRequest),
        policy: Policy,
    ) -> Result<(), Unfit> {
        match &container.ask {
            Ask::Share(share) => self.one(node.rooms(), request, (number, container), *share, policy),
            Ask::Whole { count, memory } => {
                self.several(node, request, (number, container), *count as usize, *memory)
            }
            Ask::Counted(counted) => self.counted(node, request, (number, container), counted, policy),
        }
    }

    fn total(&self) -> (u64, u64) {
        self.takes.iter().map(|take| take.peak()).fold((0, 0), |(compute, memory), peak| {
            (compute + u64::from(peak.compute.0), memory.saturating_add(peak.memory.0))
        })
    }

    fn one(
        &mut self,
        rooms: &[Room],
        request: &GpuRequest,
        (number, container): (usize, &ContainerRequest),
        share: Share,
        policy: Policy,
    ) -> Result<(), Unfit> {
        let kind = container.kind;
        let best = rooms
            .iter()
            .zip(&self.takes)
            .enumerate()
            .filter(|(_, (room, _))| room.isolation >= self.isolation)
            .filter(|(_, (_, take))| take.alike(&container.ask, &request.containers))
            .filter_map(|(at, (room, take))| {
                let free = room.free;
                let (before, after) = (take.peak(), take.with(kind, share).peak());
                let growth = after.saturating_sub(before);
                let left = free.saturating_sub(before);
                after
                    .fits_in(free)
                    .then(|| (card_order(policy, growth, self.preferred == Some(at), left, room.index), at))
            })
            .min();
        match best {
            Some((_, at)) => {
                self.take(at, number, kind, share, 1);
                Ok(())
            }
            None => Err(self.why_not_one(rooms, kind, share)),
        }
    }

    fn several(
        &mut self,
        node: &NodeLedger,
        request: &GpuRequest,
        (number, container): (usize, &ContainerRequest),
        count: usize,
        memory: Option<Mib>,
    ) -> Result<(), Unfit> {
        let kind = container.kind;
        let (cards, rooms) = (node.cards(), node.rooms());
        let fits = |room: &Room, take: &Take| {
            room.untouched
                && take.alike(&container.ask, &request.containers)
                && take.with(kind, room.capacity).peak().fits_in(room.capacity)
        };
        let fitting = rooms.iter().zip(&self.takes).enumerate().filter(|(_, (room, take))| fits(room, take));
        let mut free: Vec<usize> = fitting.map(|(at, _)| at).collect();
        // cards that another phase of the pod holds anyway come first, most of all those that it holds whole
        let held = |at: &usize| self.takes.get(*at).map(|take| take.peak().compute).unwrap_or_default();
        free.sort_by_key(|at| Reverse(held(at)));
        let own = free.iter().filter(|at| held(at) > Milli(0)).count();
        let chosen = best_set(cards, &free, own, count, memory)
            // they may be too small for what this container names
            .or_else(|| best_set(cards, &free, 0, count, memory))
            .ok_or_else(|| why_not_several(rooms, count, memory))?;
        for at in chosen {
            let capacity = rooms.get(at).map(|room| room.capacity).unwrap_or_default();
            self.take(at, number, kind, capacity, 1);
        }
        Ok(())
    }

    fn take(&mut self, at: usize, number: usize, kind: ContainerKind, share: Share, count: u32) {
        if let Some(take) = self.takes.get_mut(at) {
            *take = take.with(kind, share);
            take.by = take.by.or(Some(number));
        }
        self.picks.push((number, at, count));
    }

    fn why_not_one(&self, rooms: &[Room], kind: ContainerKind, share: Share) -> Unfit {
        let isolated = || rooms.iter().zip(&self.takes).filter(|(room, _)| room.isolation >= self.isolation);
        let free = || {
            isolated().map(|(room, take)| {
                let after = take.with(kind, share).peak();
                (after.compute <= room.free.compute, after.memory <= room.free.memory)
            })
        };
        if isolated().next().is_none() {
            Unfit::Isolation
        } else if !isolated().any(|(room, _)| share.fits_in(room.capacity)) {
            Unfit::CardTooSmall
        } else if !isolated().any(|(room, _)| room.usable) {
            Unfit::NoHealthyCard
        } else if !free().any(|(compute, _)| compute) {
            Unfit::Compute
        } else if !free().any(|(_, memory)| memory) {
            Unfit::Memory
        } else {
            Unfit::Split
        }
    }
}

fn why_not_several(rooms: &[Room], count: usize, memory: Option<Mib>) -> Unfit {
    let mut sizes: Vec<u64> = rooms.iter().map(|room| room.capacity.memory.0).collect();
    sizes.sort_unstable();
    let most: u64 = sizes.iter().rev().take(count).sum();
    if sizes.len() < count || memory.is_some_and(|memory| memory.0 > most) {
        Unfit::TooFewCards
    } else if !rooms.iter().any(|room| room.usable) {
        Unfit::NoHealthyCard
    } else {
        Unfit::Cards
    }
}

#[cfg(test)]
mod tests;
