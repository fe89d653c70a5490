//! Which ids kubelet is advised to take. Pure, and never fails: where a request cannot be met, the available ids
//! are returned.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use kerf::device::Link;

use crate::device::backend::HostDevice;
use crate::offer::units::Pool;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One of each GPU in the order given, then the rest (Intel's `none`).
    EachFirst,
    /// Repeatedly of the GPU with the most free ids (Intel's `balanced`).
    Balanced,
    /// The first ids in the order of their text (Intel's `packed`).
    Sorted,
    /// Repeatedly of the GPU that is used least (NVIDIA's `distributed`).
    Distributed,
    /// Repeatedly of the GPU that is used most (NVIDIA's `packed`).
    Packed,
    /// The best-connected set, of the GPUs whose partitions are most taken (AMD's).
    Connected,
    /// Of the GPU with the fewest free ids that suffice; if none has enough, of the fullest first (`vcuda`).
    Tightest,
}

/// Chooses `size` of `available`; those of `must` first. Fewer where fewer are available.
pub fn choose(order: Order, pool: &Pool, available: &[String], must: &[String], size: usize) -> Vec<String> {
    let mut seen = HashSet::new();
    let free: Vec<&String> = available.iter().filter(|id| pool.get(id).is_some() && seen.insert(*id)).collect();
    let wanted: HashSet<&String> = must.iter().collect();
    let (mut must, rest): (Vec<&String>, Vec<&String>) = free.iter().copied().partition(|id| wanted.contains(id));
    must.truncate(size);
    let choice = Choice { pool, free, must, rest, size };
    let chosen = match order {
        Order::EachFirst => choice.each_first(),
        Order::Sorted => choice.sorted(),
        Order::Balanced => choice.greedy(|card| card.rest.len()),
        Order::Distributed => choice.greedy(|card| Reverse((card.used(), card.picked))),
        Order::Packed => choice.greedy(|card| (card.used(), card.picked)),
        Order::Connected => choice.connected(),
        Order::Tightest => choice.tightest(),
    };
    chosen.into_iter().cloned().collect()
}

struct Choice<'a> {
    pool: &'a Pool,
    free: Vec<&'a String>,
    must: Vec<&'a String>,
    /// The free ids without those of `must`.
    rest: Vec<&'a String>,
    size: usize,
}

/// A GPU while ids are being picked.
#[derive(Default)]
struct Card<'a> {
    /// How many ids it has.
    all: usize,
    /// Its free ids that are not picked, the first one last.
    rest: Vec<&'a String>,
    picked: usize,
}

impl Card<'_> {
    /// How many ids are taken, those just picked included.
    fn used(&self) -> usize {
        self.all.saturating_sub(self.rest.len())
    }
}

impl<'a> Choice<'a> {
    fn host(&self, id: &str) -> Option<&'a HostDevice> {
        self.pool.get(id)?.host()
    }

    /// Orders ids of one GPU, and GPUs.
    fn rank(&self, id: &str) -> (u32, u32) {
        let unit = self.pool.get(id);
        let index = unit.and_then(|unit| unit.host()).map_or(u32::MAX, |host| host.device.index);
        (index, unit.map_or(0, |unit| unit.share))
    }

    fn device(&self, id: &str) -> &'a str {
        self.host(id).map_or("", |host| host.device.id.as_str())
    }

    fn card(&self, id: &str) -> (u32, &'a str) {
        (self.rank(id).0, self.device(id))
    }

    fn each_first(&self) -> Vec<&'a String> {
        let mut cards: BTreeSet<&str> = self.must.iter().map(|id| self.device(id)).collect();
        let (first, later): (Vec<_>, Vec<_>) =
            self.rest.iter().copied().partition(|id| cards.insert(self.device(id)));
        self.must.iter().copied().chain(first).chain(later).take(self.size).collect()
    }

    fn sorted(&self) -> Vec<&'a String> {
        let mut rest = self.rest.clone();
        rest.sort_unstable();
        self.must.iter().copied().chain(rest).take(self.size).collect()
    }

    /// Repeatedly picks the first id of the GPU with the highest score; ties go to the first GPU.
    fn greedy<S: Ord>(&self, score: impl Fn(&Card<'a>) -> S) -> Vec<&'a String> {
        let mut cards: BTreeMap<(u32, &'a str), Card<'a>> = BTreeMap::new();
        for (id, _) in self.pool.units() {
            cards.entry(self.card(&id)).or_default().all += 1;
        }
        for id in &self.must {
            cards.entry(self.card(id)).or_default().picked += 1;
        }
        for id in &self.rest {
            cards.entry(self.card(id)).or_default().rest.push(id);
        }
        for card in cards.values_mut() {
            card.rest.sort_unstable_by_key(|id| Reverse(self.rank(id)));
        }
        let mut chosen = self.must.clone();
        while chosen.len() < self.size {
            let open = cards.values_mut().filter(|card| !card.rest.is_empty()).map(|card| (score(card), card));
            let Some((_, card)) = open.reduce(|best, other| if other.0 > best.0 { other } else { best }) else {
                break;
            };
            card.picked += 1;
            chosen.extend(card.rest.pop());
        }
        chosen
    }

    /// As few GPUs as possible, and of the sets that suffice the one that leaves the fewest ids.
    fn tightest(&self) -> Vec<&'a String> {
        let missing = self.size.saturating_sub(self.must.len());
        let mut cards: BTreeMap<&str, Vec<&'a String>> = BTreeMap::new();
        for id in &self.rest {
            cards.entry(self.device(id)).or_default().push(id);
        }
        let mut cards: Vec<Vec<&'a String>> = cards.into_values().collect();
        for ids in &mut cards {
            ids.sort_by_cached_key(|id| self.rank(id));
        }
        cards.sort_by_key(|ids| {
            let short = ids.len() < missing;
            (short, if short { usize::MAX - ids.len() } else { ids.len() })
        });
        self.must.iter().copied().chain(cards.into_iter().flatten()).take(self.size).collect()
    }

    /// Of all ways to take some GPUs' free partitions entirely and a part of at most one more, the one whose pairs
    /// are connected best; then the one that leaves the fewest partitions of that last GPU; then the first.
    fn connected(&self) -> Vec<&'a String> {
        let size = self.size.min(self.free.len());
        let mut groups: BTreeMap<&str, Vec<&'a String>> = BTreeMap::new();
        for id in &self.free {
            groups.entry(self.host(id).map_or("", |host| &host.origin.card)).or_default().push(id);
        }
        let mut groups: Vec<Vec<&'a String>> = groups.into_values().collect();
        for group in &mut groups {
            group.sort_unstable_by_key(|id| (!self.must.contains(id), self.rank(id)));
        }
        groups.sort_by_key(|group| group.iter().map(|id| self.rank(id)).min());
        let mut best: Option<((u64, usize), Vec<&'a String>)> = None;
        if groups.len() <= MAX_GROUPS {
            for whole in 0u32..1 << groups.len() {
                let (taken, open): (Vec<_>, Vec<_>) =
                    groups.iter().enumerate().partition(|(at, _)| whole >> at & 1 == 1);
                let base: Vec<&'a String> = taken.into_iter().flat_map(|(_, group)| group).copied().collect();
                let Some(missing) = size.checked_sub(base.len()) else { continue };
                let parts: Vec<&[&'a String]> = match missing {
                    0 => vec![&[]],
                    _ => {
                        open.into_iter().map(|(_, group)| &group[..]).filter(|part| part.len() > missing).collect()
                    }
                };
                for part in parts {
                    let left = part.len() - missing;
                    let mut set = base.clone();
                    set.extend(part.iter().take(missing));
                    if !self.must.iter().all(|id| set.contains(id)) {
                        continue;
                    }
                    let cost = (self.weight(&set), left);
                    let first = |set: &[&String]| set.iter().map(|id| self.rank(id)).min();
                    if best.as_ref().is_none_or(|(known, chosen)| (cost, first(&set)) < (*known, first(chosen))) {
                        best = Some((cost, set));
                    }
                }
            }
        }
        best.map_or_else(|| self.nearest(size), |(_, set)| set)
    }

    /// Adds to `must` the ids that are connected best to it, one by one.
    fn nearest(&self, size: usize) -> Vec<&'a String> {
        let mut chosen = self.must.clone();
        let mut rest = self.rest.clone();
        rest.sort_unstable_by_key(|id| self.rank(id));
        while chosen.len() < size {
            let cost = |id: &String| chosen.iter().map(|other| self.pair(id, other)).sum::<u64>();
            let Some(at) = (0..rest.len()).min_by_key(|at| rest.get(*at).map(|id| cost(id))) else { break };
            chosen.push(rest.remove(at));
        }
        chosen
    }

    fn weight(&self, set: &[&String]) -> u64 {
        let pairs = set.iter().enumerate().flat_map(|(at, a)| set.iter().skip(at + 1).map(move |b| (a, b)));
        pairs.map(|(a, b)| self.pair(a, b)).sum()
    }

    fn pair(&self, a: &str, b: &str) -> u64 {
        match (self.host(a), self.host(b)) {
            (Some(a), Some(b)) => pair_weight(a, b),
            _ => 0,
        }
    }
}

/// With more GPUs than this, not every set of them is tried.
const MAX_GROUPS: usize = 12;

/// How far two devices are from each other, in the numbers of AMD's plugin: 10 on one GPU, else 20; plus 10 over
/// xGMI, 40 over PCIe, else 50; plus 10 on one NUMA node, else 20.
pub fn pair_weight(a: &HostDevice, b: &HostDevice) -> u64 {
    let card = if a.origin.card == b.origin.card { 10 } else { 20 };
    let link = if a.device.id == b.device.id { Some(Link::NvLink(1)) } else { link(a, b) };
    let link = match link {
        Some(Link::NvLink(_)) => 10,
        Some(Link::System) | None => 50,
        Some(_) => 40,
    };
    let numa = if a.device.numa == b.device.numa { 10 } else { 20 };
    card + link + numa
}

fn link(a: &HostDevice, b: &HostDevice) -> Option<Link> {
    let there = a.device.links.get(&b.device.index);
    there.or_else(|| b.device.links.get(&a.device.index)).copied()
}
