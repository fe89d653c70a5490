//! What is expected of the pods to come, from the pods seen so far.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::shape::{Cards, Kind, Kinds, Shape};
use super::cutting::{Cuts, Item};
use super::host::{Need, Slot};
use super::tail;
use crate::units::{Mib, Share};

/// A place for pods of one class that asks for several whole cards.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub need: Need,
    /// Cards of one such pod.
    pub cards: u32,
    /// The part of all pods that ask for at least as much of everything.
    pub rate: f64,
    /// The class of pods that it is for: they do not pay for it.
    pub shape: usize,
}

/// Pods that only some kinds of card can serve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confined {
    pub kinds: Kinds,
    /// Their demand per pod of any class, in thousandths of a card.
    pub mean: f64,
    pub variance: f64,
}

/// A class of pods that [`super::fgd`] measures fragmentation by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Typical {
    pub need: Need,
    pub part: f64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Outlook {
    /// Mean demand of a pod in thousandths of a card, pods without cards included.
    pub per_pod: f64,
    /// Thousandths of a core per thousandth of a card, less a tenth.
    mu: f64,
    /// Root mean square deviation of a pod's cores from that.
    sigma: f64,
    /// Mean demand of a pod with cards in thousandths of a card.
    per_gpu_pod: f64,
    /// Whole cards per pod of any class.
    pub whole_mean: f64,
    pub whole_variance: f64,
    pub rooms: Vec<Room>,
    pub confined: Vec<Confined>,
    pub typical: Vec<Typical>,
    /// The part of the pods seen that have left, from 0 to 1.
    pub turnover: f64,
    /// By kind of card.
    values: Vec<Arc<Values>>,
}

/// The worth of remainders of cards with one size of memory.
#[derive(Debug)]
struct Values {
    /// By thousandths of free compute, where memory is not counted; otherwise empty.
    flat: Vec<f64>,
    cuts: Cuts,
    compute_step: u32,
    /// MiB; zero where memory is not counted.
    memory_step: u64,
}

/// The most different shares that are priced, those with the largest demand first: a bound on the work.
const MOST_ITEMS: usize = 48;
/// The most steps of memory per card, for the same reason. Demand is rounded up to steps, remainders down.
const MOST_MEMORY_STEPS: u64 = 64;
/// The same for compute. kerf's unit of compute is a hundredth of a card, so this is exact for its own pods.
const MOST_COMPUTE_STEPS: u32 = 200;

/// The most rooms that are kept, those with the largest demand, so that no user can slow decisions down by asking for
/// several cards in ever new ways.
const MOST_ROOMS: usize = 64;

impl Outlook {
    /// `counts`: how often each class was seen; `kinds`: model and memory of each kind of card.
    pub fn learn(shapes: &[Shape], needs: &[Need], counts: &[u64], kinds: &[(Arc<str>, Mib)]) -> Self {
        let seen: Vec<(usize, &Need, u64)> = (0..)
            .zip(needs)
            .zip(counts)
            .map(|((shape, need), count)| (shape, need, *count))
            .filter(|(.., count)| *count > 0)
            .collect();
        let total = seen.iter().map(|(.., count)| *count).sum::<u64>() as f64;
        if total == 0.0 {
            return Self::default();
        }
        let compute = |need: &Need| need.cards.compute() as f64;
        let sum =
            |of: &dyn Fn(&Need) -> f64| seen.iter().map(|(_, need, count)| of(need) * *count as f64).sum::<f64>();
        let gpu_pods = sum(&|need| f64::from(u8::from(need.cards != Cards::None)));
        let gpu = sum(&compute);
        let with_gpu =
            |of: &dyn Fn(&Need) -> f64| sum(&|need| if need.cards == Cards::None { 0.0 } else { of(need) });
        let mean_cpu = if gpu > 0.0 { with_gpu(&|need| need.cpu as f64) / gpu } else { 0.0 };
        let off = with_gpu(&|need| (need.cpu as f64 - mean_cpu * compute(need)).powi(2));
        let whole = |need: &Need| match need.cards {
            Cards::Whole(count) => f64::from(count),
            Cards::None | Cards::Share(_) => 0.0,
        };
        let whole_mean = sum(&whole) / total;
        Self {
            per_pod: gpu / total,
            mu: 0.9 * mean_cpu,
            sigma: if gpu_pods > 0.0 { (off / gpu_pods).sqrt() } else { 0.0 },
            per_gpu_pod: if gpu_pods > 0.0 { gpu / gpu_pods } else { 0.0 },
            whole_mean,
            whole_variance: (sum(&|need| whole(need).powi(2)) / total - whole_mean.powi(2)).max(0.0),
            rooms: rooms(&seen, total),
            confined: confined(&seen, total, kinds.len()),
            typical: typical(&seen, shapes),
            turnover: 0.0,
            values: values(&seen, kinds),
        }
    }

    /// The worth of a card's free rest in thousandths of a card; its free compute where nothing is known yet.
    pub fn worth(&self, slot: &Slot) -> f64 {
        if slot.whole { 1000.0 } else { self.worth_of(slot.kind, slot.free) }
    }

    /// The same for what a placement would leave of a card.
    pub fn worth_of(&self, kind: Kind, free: Share) -> f64 {
        match self.values.get(usize::from(kind)) {
            None => free.compute.0.into(),
            Some(values) => {
                if let Some(worth) = values.flat.get(free.compute.0 as usize) {
                    return *worth;
                }
                let memory = free.memory.0.checked_div(values.memory_step).unwrap_or_default();
                let compute = free.compute.0 / values.compute_step;
                1000.0 * values.cuts.at(compute as usize, usize::try_from(memory).unwrap_or(usize::MAX))
            }
        }
    }

    /// The part of a machine's worth (`cards`, in thousandths of a card) that will be stranded for want of cores
    /// (`cpu`, free thousandths of a core).
    pub fn stranded(&self, cards: f64, cpu: f64) -> f64 {
        if self.mu <= 0.0 || cards <= 0.0 {
            return 0.0;
        }
        let spread = self.sigma * (cards / self.per_gpu_pod).max(0.25).sqrt();
        let short = cpu - self.mu * cards;
        if short > 5.0 * spread {
            return 0.0;
        }
        let missing = if spread > 0.0 { spread * tail::normal_loss(short / spread) } else { (-short).max(0.0) };
        cards.min(missing / self.mu)
    }
}

fn rooms(seen: &[(usize, &Need, u64)], total: f64) -> Vec<Room> {
    let cards = |need: &Need| match need.cards {
        Cards::Whole(count) if count > 1 => Some(count),
        _ => None,
    };
    let room = |(shape, need, _): &(usize, &Need, u64)| {
        let count = cards(need)?;
        let as_large = |other: &Need| {
            cards(other) >= Some(count)
                && other.cpu >= need.cpu
                && other.memory >= need.memory
                && other.kinds.within(need.kinds)
        };
        let rate = seen.iter().filter(|(_, other, _)| as_large(other)).map(|(.., count)| *count).sum::<u64>();
        Some(Room { need: **need, cards: count, rate: rate as f64 / total, shape: *shape })
    };
    let mut several: Vec<_> = seen.iter().filter(|(_, need, _)| cards(need).is_some()).collect();
    if several.len() > MOST_ROOMS {
        several.sort_by_key(|(shape, need, count)| (std::cmp::Reverse(need.cards.compute() * count), *shape));
        several.truncate(MOST_ROOMS);
        several.sort_by_key(|(shape, ..)| *shape);
    }
    several.into_iter().filter_map(room).collect()
}

fn confined(seen: &[(usize, &Need, u64)], total: f64, kinds: usize) -> Vec<Confined> {
    let all = Kinds::ALL.first(kinds);
    let gpu = || seen.iter().filter(|(_, need, _)| need.cards != Cards::None && need.kinds != all);
    let sets: std::collections::BTreeSet<Kinds> = gpu().map(|(_, need, _)| need.kinds).collect();
    let set = |kinds: Kinds| {
        let within = || gpu().filter(move |(_, need, _)| need.kinds.within(kinds));
        let sum = |power: i32| {
            within().map(|(_, need, count)| (need.cards.compute() as f64).powi(power) * *count as f64).sum::<f64>()
                / total
        };
        let mean = sum(1);
        Confined { kinds, mean, variance: (sum(2) - mean.powi(2)).max(0.0) }
    };
    sets.into_iter().map(set).collect()
}

/// The most frequent classes (cores, cards, kinds) that together make 95 % of all pods; of equally frequent ones the
/// larger first.
fn typical(seen: &[(usize, &Need, u64)], shapes: &[Shape]) -> Vec<Typical> {
    let mut classes: BTreeMap<_, (u64, Need)> = BTreeMap::new();
    let mut total = 0;
    for (shape, need, count) in seen {
        let (milli, cards, memory) = match need.cards {
            Cards::None => (0, 0, 0),
            Cards::Share(share) => (share.compute.0, 1, share.memory.0),
            Cards::Whole(cards) => (1000, cards, 0),
        };
        let models = shapes.get(*shape).map(|shape| shape.models.as_slice());
        classes.entry((need.cpu, milli, cards, memory, models)).or_insert((0, **need)).0 += count;
        total += count;
    }
    let mut sorted: Vec<_> = classes.into_iter().map(|(key, (count, need))| (count, key, need)).collect();
    sorted.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)));
    let mut covered = 0;
    sorted.retain(|(count, ..)| {
        let wanted = (covered as f64) < 0.95 * total as f64;
        covered += if wanted { *count } else { 0 };
        wanted
    });
    // in the simulator's order of operations
    let part = |count: u64| count as f64 / total as f64 / (covered as f64 / total as f64);
    sorted.into_iter().map(|(count, _, need)| Typical { need, part: part(count) }).collect()
}

fn values(seen: &[(usize, &Need, u64)], kinds: &[(Arc<str>, Mib)]) -> Vec<Arc<Values>> {
    let mut shares: BTreeMap<Share, u64> = BTreeMap::new();
    for (_, need, count) in seen {
        if let Cards::Share(share) = need.cards {
            *shares.entry(share).or_default() += count;
        }
    }
    let mut by_memory: BTreeMap<Mib, Arc<Values>> = BTreeMap::new();
    let values =
        |memory: &Mib| by_memory.entry(*memory).or_insert_with(|| Arc::new(Values::new(&shares, *memory))).clone();
    kinds.iter().map(|(_, memory)| memory).map(values).collect()
}

impl Values {
    /// Prices the shares that fit on a card with this memory.
    fn new(shares: &BTreeMap<Share, u64>, memory: Mib) -> Self {
        let mut fitting: Vec<(Share, u64)> = shares
            .iter()
            .filter(|(share, _)| share.memory <= memory && share.compute.0 > 0)
            .map(|(share, count)| (*share, *count))
            .collect();
        fitting.sort_by_key(|(share, count)| (std::cmp::Reverse(u64::from(share.compute.0) * count), *share));
        fitting.truncate(MOST_ITEMS);
        // where every share has the same part of memory as of compute, memory is no further constraint
        let proportional =
            |share: &Share| u128::from(share.memory.0) * 1000 == u128::from(share.compute.0) * u128::from(memory.0);
        let flat = fitting.iter().all(|(share, _)| proportional(share));
        let divisor = |amounts: &mut dyn Iterator<Item = u64>, whole: u64| amounts.fold(whole, gcd).max(1);
        let compute_step = divisor(&mut fitting.iter().map(|(share, _)| share.compute.0.into()), 1000);
        let compute_step = u32::try_from(compute_step).unwrap_or(1000).max(1000 / MOST_COMPUTE_STEPS);
        let memory_step = divisor(&mut fitting.iter().map(|(share, _)| share.memory.0), memory.0);
        let memory_step = if flat { 0 } else { memory_step.max(memory.0.div_ceil(MOST_MEMORY_STEPS)) };
        let steps = |amount: u64| usize::try_from(amount).unwrap_or(usize::MAX);
        let item = |(share, count): &(Share, u64)| Item {
            compute: steps(share.compute.0.div_ceil(compute_step).into()),
            memory: steps(if flat { 0 } else { share.memory.0.div_ceil(memory_step) }),
            count: *count,
        };
        let rows = steps((1000 / compute_step).into());
        let columns = steps(memory.0.checked_div(memory_step).unwrap_or_default());
        let items: Vec<Item> =
            fitting.iter().map(item).filter(|item| item.memory <= columns && item.compute <= rows).collect();
        let cuts = Cuts::solve(&items, rows, columns);
        let worth = |free: u32| 1000.0 * cuts.at(steps((free / compute_step).into()), 0);
        Self {
            flat: if flat { (0..=1000).map(worth).collect() } else { Vec::new() },
            cuts,
            compute_step,
            memory_step,
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
