//! What a node's cards have free, in the order in which the search fills them.

use super::super::counted::most;
use super::demand::{Demand, Left};
use crate::ledger::{NodeLedger, Room};
use crate::policy::Policy;
use crate::request::Ask;
use crate::shares::Arrangement;
use crate::units::{Mib, Share};

#[derive(Debug)]
pub(super) struct Supply {
    pub sites: Vec<Site>,
    /// By card: the most that it and the later ones can take.
    reserves: Vec<Reserve>,
    /// Position of the first card that is free as a whole; `sizes[n]` is the memory of the first n of these.
    first_whole: usize,
    sizes: Vec<u64>,
}

#[derive(Debug)]
pub(super) struct Site {
    /// Position on the node.
    pub at: usize,
    /// What shares may take: nothing where its isolation is weaker than they need.
    pub free: Share,
    /// Its capacity, where it is free as a whole.
    pub whole: Option<Share>,
    /// By demand for counted shares, how many of them the card can take.
    pub counted: Vec<u32>,
}

#[derive(Clone, Debug, Default)]
struct Reserve {
    free: (u64, u64),
    compute: u64,
    whole: u32,
    parts: u64,
    inits: u64,
    counted: Vec<u32>,
}

impl Supply {
    pub fn of(node: &NodeLedger, demand: &Demand<'_>, policy: Policy) -> Self {
        let request = demand.request;
        let isolation = request.isolation.unwrap_or_default();
        let sites = node.rooms().iter().zip(node.cards()).enumerate().map(|(at, (room, card))| {
            let counted =
                demand.counted.iter().map(|number| match request.containers.get(*number).map(|c| &c.ask) {
                    Some(Ask::Counted(asked)) if room.untouched || room.undivided => {
                        let shares = card.device().offers.get(&asked.resource);
                        let free = shares.map_or(0, |shares| shares.within(room.free.compute));
                        let whole = most(request, asked.resource.as_str());
                        match request.arrangement {
                            Arrangement::Any => free,
                            Arrangement::SameCard => u32::from(free >= whole),
                            Arrangement::DifferentCards => free.min(1),
                        }
                    }
                    _ => 0,
                });
            Site {
                at,
                free: if room.isolation >= isolation { room.free } else { Share::ZERO },
                whole: room.untouched.then_some(room.capacity),
                counted: counted.collect(),
            }
        });
        let mut sites: Vec<Site> = sites.collect();
        // a container with a large demand for memory is served best by the largest cards, if they come first
        let named = |ask: &Ask| matches!(ask, Ask::Whole { memory: Some(_), .. });
        let largest_first = request.containers.iter().any(|container| named(&container.ask));
        let order = |site: &Site| {
            let room = node.rooms().get(site.at);
            let (free, index) = room.map_or((Share::ZERO, 0), |room: &Room| (room.free, room.index));
            let (untouched, Mib(memory)) = (site.whole.is_some(), free.memory);
            let memory = if untouched && largest_first { !memory } else { memory };
            match policy {
                Policy::Spread => (
                    !untouched,
                    u64::from(!free.compute.0),
                    if untouched && largest_first { memory } else { !memory },
                    index,
                ),
                _ => (untouched, u64::from(free.compute.0), memory, index),
            }
        };
        sites.sort_by_key(order);
        let mut reserve = Reserve { counted: vec![0; demand.counted.len()], ..Reserve::default() };
        let mut reserves = vec![reserve.clone()];
        for site in sites.iter().rev() {
            let (Share { compute, memory }, whole) = (site.free, site.whole.is_some());
            reserve.free.0 += u64::from(compute.0);
            reserve.free.1 = reserve.free.1.saturating_add(memory.0);
            reserve.compute += u64::from(site.whole.unwrap_or(site.free).compute.0);
            reserve.whole += u32::from(whole);
            let fits = |share: Share| share.fits_in(site.free);
            for (place, part) in demand.parts.iter().enumerate() {
                reserve.parts |= u64::from(fits(part.share)) << place;
            }
            for (place, init) in demand.inits.iter().enumerate() {
                reserve.inits |= u64::from(init.share.is_some_and(fits)) << place;
            }
            for (all, own) in reserve.counted.iter_mut().zip(&site.counted) {
                *all = all.saturating_add(*own);
            }
            reserves.push(reserve.clone());
        }
        reserves.reverse();
        let first_whole = sites.iter().position(|site| site.whole.is_some()).unwrap_or_default();
        let mut sizes = vec![0u64];
        for whole in sites.iter().filter_map(|site| site.whole) {
            sizes.push(sizes.last().copied().unwrap_or_default().saturating_add(whole.memory.0));
        }
        Self { sites, reserves, first_whole, sizes }
    }

    /// Whether the cards from this one on are too few for any arrangement.
    pub fn falls_short(&self, at: usize, demand: &Demand<'_>, left: &Left) -> bool {
        let Some(reserve) = self.reserves.get(at) else { return true };
        let own = demand.parts.iter().enumerate().filter(|(place, _)| left.parts >> place & 1 == 1);
        let (compute, memory) = own.fold((0, 0u64), |(compute, memory), (_, part)| {
            (compute + u64::from(part.share.compute.0), memory.saturating_add(part.share.memory.0))
        });
        let lasting: u32 =
            left.wholes.iter().take(demand.wholes.len()).fold(0, |sum, (count, _)| sum.saturating_add(*count));
        let init = left.wholes.iter().skip(demand.wholes.len()).map(|(count, _)| *count).max().unwrap_or_default();
        left.parts & !reserve.parts != 0
            || left.inits & !reserve.inits != 0
            || compute > reserve.free.0
            || memory > reserve.free.1
            || lasting.max(init) > reserve.whole
            || compute + 1000 * u64::from(lasting) > reserve.compute
            || left.counted.iter().zip(&reserve.counted).any(|(left, all)| left > all)
            || left.wholes.iter().any(|(count, memory)| *memory > self.memory_of(at, *count))
            || demand.named(left) > self.memory_of(at, lasting)
    }

    /// The memory of the largest `count` cards that are free as a whole, from this one on.
    fn memory_of(&self, at: usize, count: u32) -> u64 {
        let last = self.sizes.len() - 1;
        let from = at.saturating_sub(self.first_whole).min(last);
        let to = from.saturating_add(count as usize).min(last);
        let until = |cards: usize| self.sizes.get(cards).copied().unwrap_or_default();
        until(to) - until(from)
    }
}
