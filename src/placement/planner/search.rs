//! The search for any arrangement of a pod's containers on a node's cards, for pods whose containers do not fit when
//! each in turn takes the card that suits it best.
//!
//! It goes from card to card and tries every set of long-running containers that the card has room for. The later cards
//! depend only on what is left to place, so no such state is tried twice. That makes it exact and fast; a number of
//! steps bounds it where a pod has very many containers or a node very many cards.
//!
//! * Only sets to which no container can be added are tried: what a later card would take may as well be here. Where a
//!   sidecar could take the room of an init container, smaller sets are tried too.
//! * Init containers run one after the other and do not compete: each is served by the first card that has room for it
//!   beside the sidecars that start before it.
//! * Counted shares of one resource can be split between cards, so they fit where as many are free as the pod holds at
//!   its peak, on cards that it uses for nothing else.

mod demand;
mod supply;

use rustc_hash::FxHashSet;

use super::super::cards::best_set;
use super::choice::Found;
use crate::ledger::NodeLedger;
use crate::policy::Policy;
use crate::request::{Ask, ContainerRequest, GpuRequest};
use crate::units::Share;
use demand::{Demand, Left, Part, take_whole};
use supply::Supply;

/// After this many steps a pod of up to eight containers on a node of up to sixteen cards counts as one that does not
/// fit. That is many times what such pods were seen to need, even where no two cards are alike: it only bounds the
/// time.
const STEPS: u64 = 100_000;

/// The same for larger pods and nodes, where not everything can be tried.
const STEPS_BEYOND: u64 = 1_000;

#[derive(Clone, Copy, Debug)]
enum Use {
    /// Long-running shares, as a bit set.
    Parts(u64),
    /// A container with whole cards.
    Whole(usize),
    /// A demand for counted shares.
    Counted(usize),
}

#[derive(Debug)]
pub(super) struct Search<'a> {
    demand: Demand<'a>,
    supply: Supply,
    seen: FxHashSet<(usize, Left)>,
    uses: Vec<Use>,
    /// How many more sets may be tried.
    steps: u64,
}

/// The most steps that one node is worth.
pub(super) fn steps(node: &NodeLedger, request: &GpuRequest) -> u64 {
    if request.containers.len() <= 8 && node.cards().len() <= 16 { STEPS } else { STEPS_BEYOND }
}

impl<'a> Search<'a> {
    pub(super) fn new(node: &NodeLedger, request: &'a GpuRequest, policy: Policy, steps: u64) -> Self {
        let largest = node.rooms().iter().map(|room| room.capacity.memory.0).max().unwrap_or_default();
        let demand = Demand::of(request, largest);
        let supply = Supply::of(node, &demand, policy);
        Self { demand, supply, seen: FxHashSet::default(), uses: Vec::new(), steps }
    }

    /// An arrangement, if there is one, and how many steps are left.
    pub(super) fn run(mut self, node: &NodeLedger) -> (Option<Found>, u64) {
        let left = self.demand.all();
        let found = self.place(0, &left).then(|| self.found(node)).flatten();
        (found, self.steps)
    }

    /// Whether `left` fits on the cards from `at` on. If so, the uses of those cards are appended to `uses`.
    fn place(&mut self, at: usize, left: &Left) -> bool {
        if left.nothing() {
            return true;
        }
        if self.tired()
            || self.supply.falls_short(at, &self.demand, left)
            || at == self.supply.sites.len()
            || !self.seen.insert((at, left.clone()))
        {
            return false;
        }
        let Some(site) = self.supply.sites.get(at) else { return false };
        let whole = site.whole.is_some();
        let of_count: Vec<usize> = (0..self.demand.counted.len())
            .filter(|demand| {
                let own = |all: &[u32]| all.get(*demand).is_some_and(|count| *count > 0);
                own(&site.counted) && own(&left.counted)
            })
            .collect();
        if whole {
            for number in 0..self.demand.wholes.len() {
                let wanted = left.wholes.get(number).is_some_and(|(count, _)| *count > 0);
                if wanted && self.with(at, left, Use::Whole(number)) {
                    return true;
                }
            }
        }
        let before = of_count.into_iter().any(|demand| self.with(at, left, Use::Counted(demand)));
        before || self.fill(at, left, 0, 0, Share::ZERO)
    }

    /// Whether the steps are used up. Counts one.
    fn tired(&mut self) -> bool {
        self.steps = self.steps.saturating_sub(1);
        self.steps == 0
    }

    /// Adds shares to those `chosen` for a card, from the `from`th on.
    fn fill(&mut self, at: usize, left: &Left, from: usize, chosen: u64, used: Share) -> bool {
        let Some(free) = self.supply.sites.get(at).map(|site| site.free) else { return false };
        if self.tired() {
            return false;
        }
        let mut full = true;
        for place in 0..self.demand.parts.len() {
            let Some(part) = self.demand.parts.get(place).copied() else { break };
            let open = left.parts & !chosen;
            let sum = used.saturating_add(part.share);
            if open >> place & 1 == 0 || !sum.fits_in(free) {
                continue;
            }
            full = false;
            // of equal containers only the first is tried
            let twin = |before: &Part| before.share == part.share && before.beside == part.beside;
            let before = place.checked_sub(1).filter(|before| open >> before & 1 == 1);
            if place < from || before.and_then(|before| self.demand.parts.get(before)).is_some_and(twin) {
                continue;
            }
            if self.fill(at, left, place + 1, chosen | 1 << place, sum) {
                return true;
            }
        }
        (full || !self.demand.dense) && self.with(at, left, Use::Parts(chosen))
    }

    /// Uses a card for `choice`, and goes on to the next.
    fn with(&mut self, at: usize, left: &Left, choice: Use) -> bool {
        let Some(site) = self.supply.sites.get(at) else { return false };
        let mut next = left.clone();
        // shares on this card of containers that run beside an init container
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
                let own = self.demand.wholes.get(number).map_or(0, |whole| whole.beside);
                let all = site.whole.unwrap_or_default();
                holder = move |init: usize| if own >> init & 1 == 1 { all } else { Share::ZERO };
                beside = &holder;
            }
            Use::Parts(chosen) => {
                next.parts &= !chosen;
                if !self.demand.dense {
                    let parts = &self.demand.parts;
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
            for (place, init) in self.demand.inits.iter().enumerate() {
                let served = init.share.is_some_and(|share| share.saturating_add(beside(place)).fits_in(site.free));
                next.inits &= !(u64::from(served) << place);
            }
            for (number, place) in self.demand.init_wholes.iter().enumerate() {
                if site.whole.is_some() && beside(*place) == Share::ZERO {
                    take_whole(&mut next, self.demand.wholes.len() + number, site.whole);
                }
            }
        }
        self.uses.truncate(at);
        self.uses.push(choice);
        self.place(at + 1, &next)
    }

    /// The arrangement in `uses`.
    fn found(&self, node: &NodeLedger) -> Option<Found> {
        let divided = |c: &ContainerRequest| matches!(c.ask, Ask::Share(_) | Ask::Whole { .. });
        let other = self.demand.request.containers.iter().position(divided);
        let mut found = Found { forms: vec![None; self.supply.sites.len()], picks: Vec::new() };
        let mut pools = vec![Vec::new(); self.demand.wholes.len()];
        for (site, choice) in self.supply.sites.iter().zip(&self.uses) {
            let form = match choice {
                Use::Counted(demand) => self.demand.counted.get(*demand).copied(),
                Use::Whole(number) => {
                    pools.get_mut(*number)?.push(site.at);
                    other
                }
                Use::Parts(chosen) => {
                    let own = self.demand.parts.iter().enumerate().filter(|(place, _)| chosen >> place & 1 == 1);
                    found.picks.extend(own.map(|(_, part)| (part.number, site.at)));
                    other
                }
            };
            *found.forms.get_mut(site.at)? = form;
        }
        for (whole, mut pool) in self.demand.wholes.iter().zip(pools) {
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
