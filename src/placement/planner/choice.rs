//! A choice of cards, built container by container: each takes what suits it best.

use std::cmp::Reverse;

use super::super::cards::best_set;
use super::super::rank::card_order;
use crate::device::Device;
use crate::isolation::Isolation;
use crate::ledger::{NodeLedger, Room};
use crate::policy::Policy;
use crate::request::{Ask, ContainerKind, ContainerRequest, GpuRequest};
use crate::tally::Tally;
use crate::unfit::Unfit;
use crate::units::{Mib, Milli, Share};

/// By card what the pod takes, and by container which cards.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub preferred: Option<usize>,
    /// The weakest isolation that shares accept.
    pub isolation: Isolation,
    pub takes: Vec<Take>,
    pub picks: Vec<Pick>,
    /// The card that all counted shares must be on, once it is chosen.
    pub home: Option<usize>,
}

/// A container to be served on a node.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    pub node: &'a NodeLedger,
    pub request: &'a GpuRequest,
    /// Position in the request.
    pub number: usize,
    pub container: &'a ContainerRequest,
    pub policy: Policy,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    /// Position in the request.
    pub container: usize,
    /// Position on the node.
    pub card: usize,
    /// How many counted shares of the card; 1 for other requests.
    pub count: u32,
}

/// What the pod takes of one card.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Take {
    pub tally: Tally<Share>,
    /// The first container on the card.
    pub by: Option<usize>,
}

impl Take {
    /// Whether the pod's other containers allow this one on the card: a pod uses a card either for counted shares of
    /// one resource or otherwise.
    pub fn alike(&self, ask: &Ask, containers: &[ContainerRequest]) -> bool {
        let Some(first) = self.by.and_then(|number| containers.get(number)) else { return true };
        match (&first.ask, ask) {
            (Ask::Counted(first), Ask::Counted(own)) => first.resource == own.resource,
            (Ask::Counted(_), _) | (_, Ask::Counted(_)) => false,
            (Ask::Share(_) | Ask::Whole { .. }, _) => true,
        }
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

/// An arrangement that the search found.
#[derive(Debug)]
pub(super) struct Found {
    /// By position of the card: a container that shows in which form (counted shares or not) the pod has the card,
    /// where that is decided.
    pub forms: Vec<Option<usize>>,
    /// Container and card, for long-running containers with shares or whole cards.
    pub picks: Vec<(usize, usize)>,
}

impl Choice {
    pub fn choose<'a>(
        &mut self,
        node: &NodeLedger,
        request: &'a GpuRequest,
        containers: impl Iterator<Item = (usize, &'a ContainerRequest)>,
        policy: Policy,
    ) -> Result<(), Unfit> {
        self.clear(node);
        for (number, container) in containers {
            self.serve(&Order { node, request, number, container, policy })?;
        }
        Ok(())
    }

    pub fn clear(&mut self, node: &NodeLedger) {
        self.takes.clear();
        self.takes.resize(node.rooms().len(), Take::default());
        self.picks.clear();
        self.home = None;
    }

    /// Chooses the cards of one container, by the policy.
    pub fn serve(&mut self, order: &Order<'_>) -> Result<(), Unfit> {
        match &order.container.ask {
            Ask::Share(share) => self.one(order, *share),
            Ask::Whole { count, memory } => self.several(order, *count as usize, *memory),
            Ask::Counted(counted) => self.counted(order, counted),
        }
    }

    /// Puts long-running containers where they were found, and init containers where the pod grows least.
    pub fn carry_out(
        &mut self,
        node: &NodeLedger,
        request: &GpuRequest,
        found: &Found,
        policy: Policy,
    ) -> Result<(), Unfit> {
        self.clear(node);
        self.takes.iter_mut().zip(&found.forms).for_each(|(take, form)| take.by = *form);
        let share = |at: usize, ask: &Ask, count: u32| {
            node.cards().get(at).map(|card| amount(ask, card.device(), count)).unwrap_or_default()
        };
        let order = |number, container| Order { node, request, number, container, policy };
        for (number, container) in request.containers.iter().enumerate() {
            match &container.ask {
                _ if container.kind == ContainerKind::Init => {}
                Ask::Counted(_) => self.serve(&order(number, container))?,
                ask => {
                    for (_, at) in found.picks.iter().filter(|(owner, _)| *owner == number) {
                        self.take(*at, number, container.kind, share(*at, ask, 1), 1);
                    }
                }
            }
        }
        // an init container runs beside the sidecars that start before it, and no others
        self.takes.iter_mut().for_each(|take| take.tally = take.tally.with_sidecars(Share::ZERO));
        for (number, container) in request.containers.iter().enumerate() {
            match container.kind {
                ContainerKind::App => {}
                ContainerKind::Init => self.serve(&order(number, container))?,
                ContainerKind::Sidecar => {
                    for pick in self.picks.iter().filter(|pick| pick.container == number) {
                        if let Some(Take { tally, .. }) = self.takes.get_mut(pick.card) {
                            let sidecars = tally.beside(ContainerKind::Init);
                            let own = share(pick.card, &container.ask, pick.count);
                            *tally = tally.with_sidecars(sidecars.saturating_add(own));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    pub fn total(&self) -> (u64, u64) {
        self.takes.iter().map(|take| take.tally.peak()).fold((0, 0), |(compute, memory), peak| {
            (compute + u64::from(peak.compute.0), memory.saturating_add(peak.memory.0))
        })
    }

    fn one(&mut self, order: &Order<'_>, share: Share) -> Result<(), Unfit> {
        let Order { request, number, container, policy, .. } = *order;
        let (rooms, kind) = (order.node.rooms(), container.kind);
        let best = rooms
            .iter()
            .zip(&self.takes)
            .enumerate()
            .filter(|(_, (room, _))| room.isolation >= self.isolation)
            .filter(|(_, (_, take))| take.alike(&container.ask, &request.containers))
            .filter_map(|(at, (room, take))| {
                let free = room.free;
                let (before, after) = (take.tally.peak(), take.tally.with(kind, share).peak());
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

    fn several(&mut self, order: &Order<'_>, count: usize, memory: Option<Mib>) -> Result<(), Unfit> {
        let Order { node, request, number, container, .. } = *order;
        let (cards, rooms, kind) = (node.cards(), node.rooms(), container.kind);
        let fits = |room: &Room, take: &Take| {
            room.untouched
                && take.alike(&container.ask, &request.containers)
                && take.tally.with(kind, room.capacity).peak().fits_in(room.capacity)
        };
        let fitting = rooms.iter().zip(&self.takes).enumerate().filter(|(_, (room, take))| fits(room, take));
        let mut free: Vec<usize> = fitting.map(|(at, _)| at).collect();
        // cards that another phase of the pod holds come first, above all those that it holds whole
        let held = |at: &usize| self.takes.get(*at).map(|take| take.tally.peak().compute).unwrap_or_default();
        free.sort_by_key(|at| Reverse(held(at)));
        let own = free.iter().filter(|at| held(at) > Milli(0)).count();
        let chosen = best_set(cards, &free, own, count, memory)
            // they may be too small for this container's memory
            .or_else(|| best_set(cards, &free, 0, count, memory))
            .ok_or_else(|| why_not_several(rooms, count, memory))?;
        for at in chosen {
            let capacity = rooms.get(at).map(|room| room.capacity).unwrap_or_default();
            self.take(at, number, kind, capacity, 1);
        }
        Ok(())
    }

    pub fn take(&mut self, at: usize, number: usize, kind: ContainerKind, share: Share, count: u32) {
        if let Some(take) = self.takes.get_mut(at) {
            take.tally = take.tally.with(kind, share);
            take.by = take.by.or(Some(number));
        }
        self.picks.push(Pick { container: number, card: at, count });
    }

    fn why_not_one(&self, rooms: &[Room], kind: ContainerKind, share: Share) -> Unfit {
        let isolated = || rooms.iter().zip(&self.takes).filter(|(room, _)| room.isolation >= self.isolation);
        let free = || {
            isolated().map(|(room, take)| {
                let after = take.tally.with(kind, share).peak();
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
