//! The search for any arrangement of a pod's containers on a node's cards, for pods whose containers do not fit when
//! each in turn takes the card that suits it best.
//!
//! It goes from card to card and tries every set of long-running containers that the card has room for. What is left
//! to place after a card is all that the later cards need to know, so nothing is tried twice. This is what makes it exact
//! and fast; a number of steps bounds it where a pod has very many containers or a node very many cards.
//!
//! * Where nothing speaks for leaving room, only sets are tried to which no container can be added: what a later card
//!   would take may as well be here. It does where a sidecar would stand in the way of an init container.
//! * Init containers run one after the other, so they are in the way of nobody: each is served by the first card that has
//!   room for it beside the sidecars that start before it.
//! * Shares by count of one resource can be split between cards, so they fit where as many are free as the pod holds at
//!   its peak, on cards that it uses for nothing else.

use std::cmp::Reverse;

use rustc_hash::FxHashSet;

use super::super::cards::best_set;
use super::super::{Policy, Unfit};
use super::counted::most;
use super::{Choice, amount};
use crate::ledger::{NodeLedger, Room};
use crate::request::{Ask, ContainerKind, ContainerRequest, GpuRequest};
use crate::shares::Arrangement;
use crate::units::{Mib, Share};

/// After so many steps a pod of up to eight containers on a node of up to sixteen cards counts as one that does not fit. It
/// is many times what such pods were seen to need, also where no two cards are alike: it only bounds the time.
const STEPS: u32 = 100_000;

/// The same for larger pods and nodes, where not everything can be tried.
const STEPS_BEYOND: u32 = 1_000;

/// Which container is on which card.
#[derive(Debug)]
pub(super) struct Found {
    /// By position of the card: a container of the form that the pod's containers have the card in, where it is decided.
    forms: Vec<Option<usize>>,
    /// Of long-running containers with shares and whole cards: container and card.
    picks: Vec<(usize, usize)>,
}

/// A card, as the search sees it.
#[derive(Debug)]
struct Site {
    /// Its position on the node.
    at: usize,
    /// What shares may have of it: nothing where it isolates less than they demand.
    free: Share,
    /// All of it, where it can be had whole.
    whole: Option<Share>,
    /// By demand for shares by count, how much of it the card meets.
    counted: Vec<u32>,
}

/// A long-running container with a share.
#[derive(Clone, Copy, Debug)]
struct Part {
    number: usize,
    share: Share,
    /// The init containers beside which it runs, as bits.
    beside: u64,
}

/// Containers with whole cards that are the same to the search.
#[derive(Clone, Debug)]
struct Wholes {
    containers: Vec<(usize, usize)>,
    beside: u64,
    memory: Option<Mib>,
    count: u32,
}

/// An init container; its bit is its place among them.
#[derive(Debug)]
struct Init {
    number: usize,
    /// Of what a card must have left for it; `None`: all.
    share: Option<Share>,
}

/// What is still to be placed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Left {
    /// Long-running shares.
    parts: u64,
    /// Init containers with shares.
    inits: u64,
    /// Of long-running containers with whole cards, then of such init containers: how many, and how much memory.
    wholes: Vec<(u32, u64)>,
    counted: Vec<u32>,
}

impl Left {
    fn nothing(&self) -> bool {
        self.parts == 0
            && self.inits == 0
            && self.wholes.iter().all(|left| *left == (0, 0))
            && self.counted.iter().all(|left| *left == 0)
    }
}

/// What the later cards can take at most.
#[derive(Clone, Debug, Default)]
struct Reserve {
    free: (u64, u64),
    compute: u64,
    whole: u32,
    parts: u64,
    inits: u64,
    counted: Vec<u32>,
}

/// For what a card is used.
#[derive(Clone, Copy, Debug)]
enum Use {
    /// Long-running shares, as bits.
    Parts(u64),
    /// One of the containers with whole cards.
    Whole(usize),
    /// A demand for shares by count.
    Counted(usize),
}

#[derive(Debug)]
pub(super) struct Search<'a> {
    request: &'a GpuRequest,
    sites: Vec<Site>,
    reserves: Vec<Reserve>,
    parts: Vec<Part>,
    wholes: Vec<Wholes>,
    inits: Vec<Init>,
    /// Those of `inits` that want whole cards, in the order of [`Left::wholes`].
    init_wholes: Vec<usize>,
    /// Containers that stand for a resource of shares by count.
    counted: Vec<usize>,
    /// Whether no room need be left on a card.
    dense: bool,
    /// Where the cards begin that can be had whole, and the memory of the first so many of them.
    first_whole: usize,
    sizes: Vec<u64>,
    seen: FxHashSet<(usize, Left)>,
    uses: Vec<Use>,
    /// How many more sets are tried.
    steps: u32,
}

impl<'a> Search<'a> {
    pub(super) fn new(node: &NodeLedger, request: &'a GpuRequest, policy: Policy) -> Self {
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
        let largest = node.rooms().iter().map(|room| room.capacity.memory.0).max().unwrap_or_default();
        let part = |of: &Part| {
            let (compute, memory) = (u128::from(of.share.compute.0), u128::from(of.share.memory.0));
            (compute * u128::from(largest)).max(memory * 1000)
        };
        parts.sort_by_key(|of| (Reverse((part(of), of.share.compute, of.share.memory)), of.beside, of.number));
        let dense = parts.iter().all(|part| part.beside == 0) && wholes.iter().all(|whole| whole.beside == 0);
        let mut search = Self {
            request,
            sites: Vec::new(),
            reserves: Vec::new(),
            parts,
            wholes,
            inits,
            init_wholes,
            counted,
            dense,
            first_whole: 0,
            sizes: vec![0],
            seen: FxHashSet::default(),
            uses: Vec::new(),
            steps: if request.containers.len() <= 8 && node.cards().len() <= 16 { STEPS } else { STEPS_BEYOND },
        };
        search.look_at(node, policy);
        search
    }

    /// The cards, in the order in which they are filled.
    fn look_at(&mut self, node: &NodeLedger, policy: Policy) {
        let isolation = self.request.isolation.unwrap_or_default();
        let request = self.request;
        let sites = node.rooms().iter().zip(node.cards()).enumerate().map(|(at, (room, card))| {
            let counted = self.counted.iter().map(|number| match request.containers.get(*number).map(|c| &c.ask) {
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
        // a container that wants much memory is served best by the largest cards, if it comes to them first
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
        let mut reserve = Reserve { counted: vec![0; self.counted.len()], ..Reserve::default() };
        let mut reserves = vec![reserve.clone()];
        for site in sites.iter().rev() {
            let (Share { compute, memory }, whole) = (site.free, site.whole.is_some());
            reserve.free.0 += u64::from(compute.0);
            reserve.free.1 = reserve.free.1.saturating_add(memory.0);
            reserve.compute += u64::from(site.whole.unwrap_or(site.free).compute.0);
            reserve.whole += u32::from(whole);
            let fits = |share: Share| share.fits_in(site.free);
            for (place, part) in self.parts.iter().enumerate() {
                reserve.parts |= u64::from(fits(part.share)) << place;
            }
            for (place, init) in self.inits.iter().enumerate() {
                reserve.inits |= u64::from(init.share.is_some_and(fits)) << place;
            }
            for (all, own) in reserve.counted.iter_mut().zip(&site.counted) {
                *all = all.saturating_add(*own);
            }
            reserves.push(reserve.clone());
        }
        reserves.reverse();
        self.first_whole = sites.iter().position(|site| site.whole.is_some()).unwrap_or_default();
        for whole in sites.iter().filter_map(|site| site.whole) {
            self.sizes.push(self.sizes.last().copied().unwrap_or_default().saturating_add(whole.memory.0));
        }
        (self.sites, self.reserves) = (sites, reserves);
    }

    /// An arrangement, if there is any.
    pub(super) fn run(mut self, node: &NodeLedger) -> Option<Found> {
        let ask = |number: usize| self.request.containers.get(number).map(|c| &c.ask);
        let init_whole = |place: &usize| match ask(self.inits.get(*place)?.number)? {
            Ask::Whole { count, memory } => Some((*count, memory.map_or(0, |memory| memory.0))),
            _ => None,
        };
        let lasting = self.wholes.iter().map(|whole| (whole.count, whole.memory.map_or(0, |memory| memory.0)));
        let counted = self.counted.iter().map(|number| match (ask(*number), self.request.arrangement) {
            (Some(Ask::Counted(_)), Arrangement::SameCard) => 1,
            (Some(Ask::Counted(asked)), _) => most(self.request, asked.resource.as_str()),
            _ => 0,
        });
        let with_share = |(place, init): (usize, &Init)| u64::from(init.share.is_some()) << place;
        let left = Left {
            parts: (0..self.parts.len()).fold(0, |bits, place| bits | 1 << place),
            inits: self.inits.iter().enumerate().map(with_share).fold(0, |bits, bit| bits | bit),
            wholes: lasting.chain(self.init_wholes.iter().filter_map(init_whole)).collect(),
            counted: counted.collect(),
        };
        self.place(0, &left).then(|| self.found(node)).flatten()
    }

    /// Whether what is left fits on the cards from this one on. If so, `uses` ends with theirs.
    fn place(&mut self, at: usize, left: &Left) -> bool {
        if left.nothing() {
            return true;
        }
        if self.tired()
            || self.hopeless(at, left)
            || at == self.sites.len()
            || !self.seen.insert((at, left.clone()))
        {
            return false;
        }
        let Some(site) = self.sites.get(at) else { return false };
        let whole = site.whole.is_some();
        let of_count: Vec<usize> = (0..self.counted.len())
            .filter(|demand| {
                let own = |all: &[u32]| all.get(*demand).is_some_and(|count| *count > 0);
                own(&site.counted) && own(&left.counted)
            })
            .collect();
        if whole {
            for number in 0..self.wholes.len() {
                let wanted = left.wholes.get(number).is_some_and(|(count, _)| *count > 0);
                if wanted && self.with(at, left, Use::Whole(number)) {
                    return true;
                }
            }
        }
        let before = of_count.into_iter().any(|demand| self.with(at, left, Use::Counted(demand)));
        before || self.fill(at, left, 0, 0, Share::ZERO)
    }

    /// Whether so much has been tried that the search is given up.
    fn tired(&mut self) -> bool {
        self.steps = self.steps.saturating_sub(1);
        self.steps == 0
    }

    /// Adds shares to those `chosen` for a card, from the `from`th on.
    fn fill(&mut self, at: usize, left: &Left, from: usize, chosen: u64, used: Share) -> bool {
        let Some(free) = self.sites.get(at).map(|site| site.free) else { return false };
        if self.tired() {
            return false;
        }
        let mut full = true;
        for place in 0..self.parts.len() {
            let Some(part) = self.parts.get(place).copied() else { break };
            let open = left.parts & !chosen;
            let sum = used.saturating_add(part.share);
            if open >> place & 1 == 0 || !sum.fits_in(free) {
                continue;
            }
            full = false;
            // of equal containers the first goes first
            let twin = |before: &Part| before.share == part.share && before.beside == part.beside;
            let before = place.checked_sub(1).filter(|before| open >> before & 1 == 1);
            if place < from || before.and_then(|before| self.parts.get(before)).is_some_and(twin) {
                continue;
            }
            if self.fill(at, left, place + 1, chosen | 1 << place, sum) {
                return true;
            }
        }
        (full || !self.dense) && self.with(at, left, Use::Parts(chosen))
    }

    /// Uses a card so, and goes on to the next.
    fn with(&mut self, at: usize, left: &Left, choice: Use) -> bool {
        let Some(site) = self.sites.get(at) else { return false };
        let mut next = left.clone();
        // shares of those that run beside an init container, on this card
        let mut beside: &dyn Fn(usize) -> Share = &|_| Share::ZERO;
        let (sidecars, holder);
        match choice {
            Use::Counted(demand) => {
                let own = site.counted.get(demand).copied().unwrap_or_default();
                if let Some(left) = next.counted.get_mut(demand) {
                    *left = left.saturating_sub(own);
                }
            }
            Use::Whole(number) => {
                take_whole(&mut next, number, site.whole);
                let own = self.wholes.get(number).map_or(0, |whole| whole.beside);
                let all = site.whole.unwrap_or_default();
                holder = move |init: usize| if own >> init & 1 == 1 { all } else { Share::ZERO };
                beside = &holder;
            }
            Use::Parts(chosen) => {
                next.parts &= !chosen;
                if !self.dense {
                    let parts = &self.parts;
                    sidecars = move |init: usize| {
                        let own = parts.iter().enumerate().filter(|(place, _)| chosen >> place & 1 == 1);
                        let with = own.filter(|(_, part)| part.beside >> init & 1 == 1);
                        with.fold(Share::ZERO, |sum, (_, part)| sum.saturating_add(part.share))
                    };
                    beside = &sidecars;
                }
            }
        }
        if !matches!(choice, Use::Counted(_)) {
            for (place, init) in self.inits.iter().enumerate() {
                let served = init.share.is_some_and(|share| share.saturating_add(beside(place)).fits_in(site.free));
                next.inits &= !(u64::from(served) << place);
            }
            for (number, place) in self.init_wholes.iter().enumerate() {
                if site.whole.is_some() && beside(*place) == Share::ZERO {
                    take_whole(&mut next, self.wholes.len() + number, site.whole);
                }
            }
        }
        self.uses.truncate(at);
        self.uses.push(choice);
        self.place(at + 1, &next)
    }

    /// Whether the cards from this one on are too few, whatever the arrangement.
    fn hopeless(&self, at: usize, left: &Left) -> bool {
        let Some(reserve) = self.reserves.get(at) else { return true };
        let own = self.parts.iter().enumerate().filter(|(place, _)| left.parts >> place & 1 == 1);
        let (compute, memory) = own.fold((0, 0u64), |(compute, memory), (_, part)| {
            (compute + u64::from(part.share.compute.0), memory.saturating_add(part.share.memory.0))
        });
        let lasting: u32 =
            left.wholes.iter().take(self.wholes.len()).fold(0, |sum, (count, _)| sum.saturating_add(*count));
        let init = left.wholes.iter().skip(self.wholes.len()).map(|(count, _)| *count).max().unwrap_or_default();
        left.parts & !reserve.parts != 0
            || left.inits & !reserve.inits != 0
            || compute > reserve.free.0
            || memory > reserve.free.1
            || lasting.max(init) > reserve.whole
            || compute + 1000 * u64::from(lasting) > reserve.compute
            || left.counted.iter().zip(&reserve.counted).any(|(left, all)| left > all)
            || left.wholes.iter().any(|(count, memory)| *memory > self.memory_of(at, *count))
            || self.named(left) > self.memory_of(at, lasting)
    }

    /// All memory that long-running containers with whole cards still want.
    fn named(&self, left: &Left) -> u64 {
        left.wholes.iter().take(self.wholes.len()).fold(0, |sum, (_, memory)| sum.saturating_add(*memory))
    }

    /// The memory of the largest `count` cards that can be had whole, from this one on.
    fn memory_of(&self, at: usize, count: u32) -> u64 {
        let last = self.sizes.len() - 1;
        let from = at.saturating_sub(self.first_whole).min(last);
        let to = from.saturating_add(count as usize).min(last);
        let until = |cards: usize| self.sizes.get(cards).copied().unwrap_or_default();
        until(to) - until(from)
    }

    /// The arrangement that `uses` says.
    fn found(&self, node: &NodeLedger) -> Option<Found> {
        let divided = |c: &ContainerRequest| matches!(c.ask, Ask::Share(_) | Ask::Whole { .. });
        let other = self.request.containers.iter().position(divided);
        let mut found = Found { forms: vec![None; self.sites.len()], picks: Vec::new() };
        let mut pools = vec![Vec::new(); self.wholes.len()];
        for (site, choice) in self.sites.iter().zip(&self.uses) {
            let form = match choice {
                Use::Counted(demand) => self.counted.get(*demand).copied(),
                Use::Whole(number) => {
                    pools.get_mut(*number)?.push(site.at);
                    other
                }
                Use::Parts(chosen) => {
                    let own = self.parts.iter().enumerate().filter(|(place, _)| chosen >> place & 1 == 1);
                    found.picks.extend(own.map(|(_, part)| (part.number, site.at)));
                    other
                }
            };
            *found.forms.get_mut(site.at)? = form;
        }
        for (whole, mut pool) in self.wholes.iter().zip(pools) {
            pool.sort_unstable();
            for (number, count) in &whole.containers {
                let own = best_set(node.cards(), &pool, 0, *count, None)?;
                pool.retain(|at| !own.contains(at));
                found.picks.extend(own.into_iter().map(|at| (*number, at)));
            }
        }
        Some(found)
    }
}

/// One card of what is left of this demand for whole ones.
fn take_whole(left: &mut Left, number: usize, card: Option<Share>) {
    if let Some((count, memory)) = left.wholes.get_mut(number).filter(|(count, _)| *count > 0) {
        *count -= 1;
        *memory = memory.saturating_sub(card.map_or(0, |card| card.memory.0));
    }
}

impl Choice {
    /// Has long-running containers where they were found, and init containers where the pod grows least.
    pub(super) fn carry_out(
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
        for (number, container) in request.containers.iter().enumerate() {
            match &container.ask {
                _ if container.kind == ContainerKind::Init => {}
                Ask::Counted(_) => self.serve(node, request, (number, container), policy)?,
                ask => {
                    for (_, at) in found.picks.iter().filter(|(owner, _)| *owner == number) {
                        self.take(*at, number, container.kind, share(*at, ask, 1), 1);
                    }
                }
            }
        }
        // an init container runs beside the sidecars that start before it, and no others
        self.takes.iter_mut().for_each(|take| take.sidecars = Share::ZERO);
        for (number, container) in request.containers.iter().enumerate() {
            match container.kind {
                ContainerKind::App => {}
                ContainerKind::Init => self.serve(node, request, (number, container), policy)?,
                ContainerKind::Sidecar => {
                    for (_, at, count) in self.picks.iter().filter(|(owner, ..)| *owner == number) {
                        if let Some(take) = self.takes.get_mut(*at) {
                            take.sidecars = take.sidecars.saturating_add(share(*at, &container.ask, *count));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
