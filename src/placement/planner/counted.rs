//! Counted shares: those of a container go to one card where one has room for them all, in the policy's order;
//! otherwise to as few cards as possible, and where each share is a whole card, to the best-connected ones.

use super::super::cards::best_set;
use super::super::rank::card_order;
use super::choice::{Choice, Order};
use crate::ledger::Room;
use crate::request::GpuRequest;
use crate::shares::{Arrangement, Counted, PerCard};
use crate::tally::Tally;
use crate::unfit::Unfit;
use crate::units::{Mib, Milli, Share};

/// A card on which the container can have shares.
#[derive(Clone, Copy)]
struct Site {
    /// Position on the node.
    at: usize,
    shares: PerCard,
    /// How many shares the container can have here.
    room: u32,
}

/// The most shares of `resource` that the pod holds at any time.
pub(super) fn most(request: &GpuRequest, resource: &str) -> u32 {
    let own = request.counted().filter(|(_, counted)| counted.resource.as_str() == resource);
    own.fold(Tally::default(), |tally, (c, counted)| tally.with(c.kind, counted.count)).peak()
}

impl Choice {
    pub(super) fn counted(&mut self, order: &Order<'_>, counted: &Counted) -> Result<(), Unfit> {
        let found = match order.request.arrangement {
            Arrangement::Any => self.anywhere(order, counted),
            Arrangement::SameCard => self.at_home(order, counted),
            Arrangement::DifferentCards => self.apart(order, counted),
        };
        found.ok_or_else(|| why_not(order, counted))
    }

    /// Cards with room for at least one share of the container that have none of it yet, in order of index.
    fn sites<'a>(&'a self, order: &'a Order<'_>, counted: &'a Counted) -> impl Iterator<Item = Site> + 'a {
        let node = order.node.rooms().iter().zip(order.node.cards());
        let open = node.zip(&self.takes).enumerate().filter(|(_, ((room, _), take))| {
            (room.untouched || room.undivided) && take.alike(&order.container.ask, &order.request.containers)
        });
        let given = |at: usize| self.picks.iter().any(|pick| (pick.container, pick.card) == (order.number, at));
        open.filter(move |(at, _)| !given(*at)).filter_map(|(at, ((room, card), take))| {
            let shares = *card.device().offers.get(&counted.resource)?;
            let held = take.tally.beside(order.container.kind).compute;
            let left = Milli(room.free.compute.0.saturating_sub(held.0));
            let site = Site { at, shares, room: shares.within(left) };
            (site.room > 0).then_some(site)
        })
    }

    /// The position of a card in the policy's order, for `count` shares of it.
    fn place(&self, order: &Order<'_>, site: Site, count: u32) -> impl Ord + use<> {
        let take = self.takes.get(site.at).copied().unwrap_or_default();
        let (free, index) =
            order.node.rooms().get(site.at).map_or((Share::ZERO, 0), |room| (room.free, room.index));
        let before = take.tally.peak();
        let growth = take.tally.with(order.container.kind, share(site.shares, count)).peak().saturating_sub(before);
        card_order(order.policy, growth, false, free.saturating_sub(before), index)
    }

    /// The first card in the policy's order with room for `count` shares.
    fn best(&self, order: &Order<'_>, counted: &Counted, count: u32) -> Option<Site> {
        self.sites(order, counted)
            .filter(|site| site.room >= count)
            .min_by_key(|site| self.place(order, *site, count))
    }

    fn anywhere(&mut self, order: &Order<'_>, counted: &Counted) -> Option<()> {
        if self.sites(order, counted).all(|site| site.shares == PerCard::ONE) {
            let sites = self.sites(order, counted).collect();
            return self.connected(order, counted, sites);
        }
        let mut missing = counted.count;
        while missing > 0 {
            let fullest = |site: &Site| (std::cmp::Reverse(site.room), self.place(order, *site, site.room));
            let site =
                self.best(order, counted, missing).or_else(|| self.sites(order, counted).min_by_key(fullest))?;
            let count = site.room.min(missing);
            self.give(order, site, count);
            missing -= count;
        }
        Some(())
    }

    /// `same-card`: one card for all shares of the pod, chosen for its first container and kept for the others.
    fn at_home(&mut self, order: &Order<'_>, counted: &Counted) -> Option<()> {
        let count = counted.count;
        let site = match self.home {
            Some(home) => self.sites(order, counted).find(|site| site.at == home && site.room >= count)?,
            None => self.best(order, counted, most(order.request, counted.resource.as_str()))?,
        };
        self.home = Some(site.at);
        self.give(order, site, count);
        Some(())
    }

    /// `different-cards`: one share of each card, never a card of which the pod has a share at the same time.
    fn apart(&mut self, order: &Order<'_>, counted: &Counted) -> Option<()> {
        let kind = order.container.kind;
        let fresh =
            |site: &Site| self.takes.get(site.at).is_some_and(|take| take.tally.beside(kind).compute == Milli(0));
        let mut sites: Vec<Site> = self.sites(order, counted).filter(fresh).collect();
        if sites.iter().all(|site| site.shares == PerCard::ONE) {
            return self.connected(order, counted, sites);
        }
        let count = usize::try_from(counted.count).ok().filter(|count| *count <= sites.len())?;
        sites.sort_by_cached_key(|site| self.place(order, *site, 1));
        sites.truncate(count);
        sites.into_iter().for_each(|site| self.give(order, site, 1));
        Some(())
    }

    /// Whole cards: those that another phase of the pod holds, then the best-connected ones.
    fn connected(&mut self, order: &Order<'_>, counted: &Counted, sites: Vec<Site>) -> Option<()> {
        let count = usize::try_from(counted.count).ok()?;
        let held = |site: &Site| self.takes.get(site.at).is_some_and(|take| take.tally.peak().compute > Milli(0));
        let (own, others): (Vec<Site>, Vec<Site>) = sites.into_iter().partition(held);
        let free: Vec<usize> = own.iter().chain(&others).map(|site| site.at).collect();
        let chosen = best_set(order.node.cards(), &free, own.len(), count, None)?;
        let sites: Vec<Site> = own.into_iter().chain(others).filter(|site| chosen.contains(&site.at)).collect();
        sites.into_iter().for_each(|site| self.give(order, site, 1));
        Some(())
    }

    fn give(&mut self, order: &Order<'_>, site: Site, count: u32) {
        self.take(site.at, order.number, order.container.kind, share(site.shares, count), count);
    }
}

fn share(shares: PerCard, count: u32) -> Share {
    Share { compute: shares.compute_of(count), memory: Mib(0) }
}

fn why_not(order: &Order<'_>, counted: &Counted) -> Unfit {
    let resource = counted.resource.as_str();
    let asked = most(order.request, resource);
    let offered = || {
        let node = order.node.rooms().iter().zip(order.node.cards());
        node.filter_map(|(room, card)| Some((room, card, card.device().offers.get(resource)?.get())))
    };
    let sum = |shares: &mut dyn Iterator<Item = u32>| shares.fold(0, u32::saturating_add);
    let most = match order.request.arrangement {
        Arrangement::Any => sum(&mut offered().map(|(_, _, shares)| shares)),
        Arrangement::SameCard => offered().map(|(_, _, shares)| shares).max().unwrap_or_default(),
        Arrangement::DifferentCards => sum(&mut offered().map(|_| 1)),
    };
    let usable = |(room, ..): (&Room, _, _)| room.usable;
    if offered().next().is_none() {
        Unfit::NotOffered
    } else if most < asked {
        Unfit::TooFewShares
    } else if !offered().any(usable) {
        Unfit::NoHealthyCard
    } else if order.request.arrangement != Arrangement::Any
        && sum(&mut offered().map(|(_, card, _)| card.free_shares(resource))) >= asked
    {
        Unfit::Arrangement
    } else {
        Unfit::Shares
    }
}
