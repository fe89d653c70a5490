//! Machines, pods, and the order in which pods come and go.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::placement::market::{Host, Market, Slot};
use crate::placement::shape::{Cards, Shape};
use crate::units::{Mib, Milli, Share};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardKind {
    pub model: Arc<str>,
    /// Zero where it is not known; then no share asks for memory.
    pub memory: Mib,
}

/// A machine without pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub name: Arc<str>,
    /// Thousandths of a core.
    pub cpu: u64,
    pub memory: Mib,
    /// In order of index.
    pub cards: Vec<CardKind>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: Arc<str>,
    pub shape: Shape,
    /// `None` where the trace has no times.
    pub stay: Option<Stay>,
}

/// When a pod exists, in seconds of the trace's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    pub from: u64,
    /// `None`: it never leaves.
    pub until: Option<u64>,
}

/// Pods are positions in [`Arrivals::pods`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Comes(usize),
    /// The pod leaves, if it had a place.
    Leaves(usize),
}

/// Pods, and the order in which they come and leave.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// A pod that was drawn twice appears twice.
    pub pods: Vec<Pod>,
    pub steps: Vec<Step>,
    /// Time of each step in seconds after the beginning; empty where time does not count.
    pub times: Vec<f64>,
}

#[derive(Clone, Debug)]
pub struct Workload {
    /// In the order that breaks ties.
    pub machines: Vec<Machine>,
    pub arrivals: Arrivals,
}

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014): small, and the
/// same on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Spreads the seed, so that neighbouring seeds give unrelated numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0xD1B5_4A32_D192_ED03))
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is at most 2^32.
    pub fn below(&mut self, bound: usize) -> usize {
        let scaled = (self.bits() >> 32).wrapping_mul(bound as u64) >> 32;
        usize::try_from(scaled).unwrap_or_default()
    }

    /// Exponentially distributed, with mean 1.
    pub fn exponential(&mut self) -> f64 {
        let unit = ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -unit.ln()
    }

    /// Fisher and Yates, from the end.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

impl Machine {
    /// Compute of all its cards, in thousandths of a card.
    pub fn compute(&self) -> u64 {
        self.cards.len() as u64 * 1000
    }

    /// Adds it to a market, empty and with room for this many pods. Returns its number there.
    pub fn join(&self, market: &mut Market, pods: u64) -> usize {
        let slot = |card: &CardKind| {
            let capacity = Share { compute: Milli::WHOLE, memory: card.memory };
            Slot { free: capacity, capacity, kind: market.kind(&card.model, card.memory), whole: true }
        };
        let slots = self.cards.iter().map(slot).collect();
        market.add(Host {
            cpu: self.cpu,
            cpu_capacity: self.cpu,
            memory: self.memory,
            memory_capacity: self.memory,
            pods,
            slots,
        })
    }
}

fn compute(pod: &Pod) -> u64 {
    pod.shape.cards.compute()
}

/// What a drawn pod counts towards the target: its part of one card, as in the published runs.
fn per_card(pod: &Pod) -> u64 {
    match pod.shape.cards {
        Cards::None => 0,
        Cards::Share(share) => share.compute.0.into(),
        Cards::Whole(_) => 1000,
    }
}

impl Arrivals {
    /// Each pod comes in the order given, and none leaves.
    pub fn in_order(pods: Vec<Pod>) -> Self {
        let steps = (0..pods.len()).map(Step::Comes).collect();
        Self { pods, steps, times: Vec::new() }
    }

    /// Each pod comes and leaves at the trace's times; at the same moment, pods leave first. A pod without times comes
    /// at the beginning and stays.
    pub fn by_time(pods: Vec<Pod>) -> Self {
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (number, pod) in pods.iter().enumerate() {
            events.push((pod.stay.map_or(0, |stay| stay.from), true, number));
            // a pod that leaves at the moment it comes still comes
            let leaves = pod.stay.and_then(|stay| Some((stay.from, stay.until?)));
            events.extend(leaves.map(|(from, until)| (until.max(from.saturating_add(1)), false, number)));
        }
        events.sort_unstable();
        // the trace's own clock may have begun long before its first pod
        let begin = events.first().map_or(0, |(at, ..)| *at);
        let step = |(_, comes, number): &(u64, bool, usize)| {
            if *comes { Step::Comes(*number) } else { Step::Leaves(*number) }
        };
        Self {
            steps: events.iter().map(step).collect(),
            times: events.iter().map(|(at, ..)| (at - begin) as f64).collect(),
            pods,
        }
    }
}

/// The published protocol, with this generator: the trace's pods shuffled, then more drawn from it until they ask for
/// `percent` of the machines' compute; where the trace already asks for more, random pods are removed. The machines are
/// shuffled too, as their order breaks ties.
pub fn shuffle_and_fill(machines: &[Machine], trace: &[Pod], percent: u64, seed: u64) -> Workload {
    let (mut machines, mut trace) = (machines.to_vec(), trace.to_vec());
    machines.sort_by(|a, b| a.name.cmp(&b.name));
    trace.sort_by(|a, b| a.name.cmp(&b.name));
    let mut random = Random::new(seed);
    let mut pods = trace.clone();
    random.shuffle(&mut pods);
    let capacity: u64 = machines.iter().map(Machine::compute).sum();
    let target = capacity * percent / 100;
    let mut asked: u64 = pods.iter().map(compute).sum();
    while asked > target && !pods.is_empty() {
        asked -= compute(&pods.remove(random.below(pods.len())));
    }
    let fills = asked < target && trace.iter().any(|pod| compute(pod) > 0);
    let mut drawn = 0;
    while let Some(pod) = fills.then(|| random.below(trace.len())).and_then(|at| trace.get(at)) {
        if asked + per_card(pod) > target {
            break;
        }
        asked += compute(pod);
        pods.push(Pod { name: format!("{}-tuned-{drawn}", pod.name).into(), ..pod.clone() });
        drawn += 1;
    }
    random.shuffle(&mut machines);
    Workload { machines, arrivals: Arrivals::in_order(pods) }
}

/// Pods drawn from the trace that come at random (Poisson) and stay for a random time (exponential, one hour on
/// average), so that those present would ask for `load` times the cluster's cards if all found a place.
pub fn stream(machines: &[Machine], trace: &[Pod], load: f64, hours: f64, seed: u64) -> Workload {
    const STAY: f64 = 3600.0;
    let (mut machines, mut trace) = (machines.to_vec(), trace.to_vec());
    machines.sort_by(|a, b| a.name.cmp(&b.name));
    trace.sort_by(|a, b| a.name.cmp(&b.name));
    let mut random = Random::new(seed);
    random.shuffle(&mut machines);
    let capacity: f64 = machines.iter().map(|machine| machine.compute() as f64).sum();
    let mean = trace.iter().map(compute).sum::<u64>() as f64 / trace.len().max(1) as f64;
    let mut arrivals = Arrivals::default();
    // ordered by the bits of the time, which for positive numbers is the order of the numbers
    let mut leaving: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut now = 0.0;
    loop {
        if mean <= 0.0 {
            break;
        }
        now += random.exponential() * STAY * mean / (load * capacity);
        while let Some(Reverse((at, number))) =
            leaving.peek().copied().filter(|Reverse((at, _))| f64::from_bits(*at) <= now)
        {
            leaving.pop();
            arrivals.steps.push(Step::Leaves(number));
            arrivals.times.push(f64::from_bits(at));
        }
        if now > hours * STAY {
            break;
        }
        let Some(pod) = trace.get(random.below(trace.len())) else { break };
        let number = arrivals.pods.len();
        leaving.push(Reverse(((now + random.exponential() * STAY).to_bits(), number)));
        arrivals.pods.push(Pod { name: format!("{}-drawn-{number}", pod.name).into(), ..pod.clone() });
        arrivals.steps.push(Step::Comes(number));
        arrivals.times.push(now);
    }
    Workload { machines, arrivals }
}
