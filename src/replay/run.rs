//! One run: a workload under a policy.

use super::curve::Curve;
use super::workload::{Machine, Pod, Step, Workload};
use crate::placement::market::{Choice, Class, Market};
use crate::placement::shape::{Cards, Shape};
use crate::policy::Policy;

/// The most pods of one machine, as in the published runs.
const MOST_PODS: u64 = 1001;

/// A run: call [`Run::step`] until it returns false.
#[derive(Debug)]
pub struct Run<'a> {
    workload: &'a Workload,
    policy: Policy,
    market: Market,
    classes: Vec<Class>,
    capacity: u64,
    next: usize,
    placed: Vec<Option<Choice>>,
    outcome: Outcome,
    arrived: u64,
    used: u64,
    time: Option<Span>,
}

/// Sums over time, after the warm-up.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: f64,
    last: f64,
    unallocated: f64,
    asked: u64,
    lost: u64,
}

/// What a pod that found no place asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    Cpu,
    Share,
    One,
    /// Several whole cards.
    Several,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Position in the workload.
    pub pod: usize,
    /// `None` where the pod found no place.
    pub choice: Option<Choice>,
}

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// In order of arrival.
    pub placed: Vec<Placed>,
    pub curve: Curve,
    /// Number of pods without a place, in the order of `Failure`.
    pub failed: [u64; 4],
    /// Demand of all pods that came, in percent of the cluster.
    pub asked: f64,
    /// Compute that is not allocated in the end, in percent of the cluster.
    pub unallocated: f64,
    /// Demand that had come when the first pod found no place, in percent of the cluster.
    pub first_failure: Option<f64>,
    /// With departures: unallocated compute as an average over time, in percent of the cluster.
    pub average_unallocated: Option<f64>,
    /// With departures: compute asked for by pods that found no place, in percent of all that was asked for.
    pub lost: Option<f64>,
}

impl<'a> Run<'a> {
    /// `known`: the demand, given in advance; `None`: learnt from the pods that come. `warm_up`: seconds before
    /// averages over time begin.
    pub fn new(workload: &'a Workload, policy: Policy, known: Option<&[(Shape, u64)]>, warm_up: f64) -> Self {
        let mut market = Market::default();
        for machine in &workload.machines {
            machine.join(&mut market, MOST_PODS);
        }
        if let Some(demand) = known {
            market.know(demand);
        }
        let classes = workload.arrivals.pods.iter().map(|pod| market.class(&pod.shape)).collect();
        let timed = !workload.arrivals.times.is_empty();
        Self {
            workload,
            policy,
            market,
            classes,
            capacity: workload.machines.iter().map(Machine::compute).sum(),
            next: 0,
            placed: vec![None; workload.arrivals.pods.len()],
            outcome: Outcome::default(),
            arrived: 0,
            used: 0,
            time: timed.then_some(Span { from: warm_up, last: warm_up, unallocated: 0.0, asked: 0, lost: 0 }),
        }
    }

    /// Performs the next step. False where none is left.
    pub fn step(&mut self) -> bool {
        let Some(step) = self.workload.arrivals.steps.get(self.next).copied() else { return false };
        let now = self.workload.arrivals.times.get(self.next).copied().unwrap_or_default();
        if let Some(span) = &mut self.time
            && now > span.last
        {
            span.unallocated += (now - span.last) * (self.capacity - self.used) as f64;
            span.last = now;
        }
        self.next += 1;
        match step {
            Step::Comes(pod) => self.comes(pod, now),
            Step::Leaves(pod) => self.leaves(pod),
        }
        true
    }

    /// Performs all remaining steps.
    pub fn finish(mut self) -> Outcome {
        while self.step() {}
        let percent = |part: u64| 100.0 * part as f64 / self.capacity.max(1) as f64;
        self.outcome.asked = percent(self.arrived);
        self.outcome.unallocated = percent(self.capacity - self.used);
        if let Some(span) = self.time {
            let lasted = span.last - span.from;
            self.outcome.average_unallocated =
                (lasted > 0.0).then(|| 100.0 * span.unallocated / lasted / self.capacity as f64);
            self.outcome.lost = (span.asked > 0).then(|| 100.0 * span.lost as f64 / span.asked as f64);
        }
        self.outcome
    }

    fn pod(&self, number: usize) -> Option<(&'a Pod, Class)> {
        Some((self.workload.arrivals.pods.get(number)?, *self.classes.get(number)?))
    }

    fn comes(&mut self, number: usize, now: f64) {
        let Some((pod, class)) = self.pod(number) else { return };
        let compute = pod.shape.cards.compute();
        self.arrived += compute;
        self.market.arrived(class);
        let choice = self.market.choose(self.policy, class);
        match &choice {
            Some(choice) => {
                self.market.take(class, choice);
                self.used += compute;
            }
            None => self.fails(pod),
        }
        if let Some(span) = self.time.as_mut().filter(|span| now >= span.from) {
            span.asked += compute;
            span.lost += if choice.is_none() { compute } else { 0 };
        }
        self.outcome.placed.push(Placed { pod: number, choice: choice.clone() });
        if let Some(place) = self.placed.get_mut(number) {
            *place = choice;
        }
        self.outcome.curve.add(self.arrived, self.used, self.capacity);
    }

    fn fails(&mut self, pod: &Pod) {
        let kind = match pod.shape.cards {
            Cards::None => Failure::Cpu,
            Cards::Share(_) => Failure::Share,
            Cards::Whole(1) => Failure::One,
            Cards::Whole(_) => Failure::Several,
        };
        if let Some(count) = self.outcome.failed.get_mut(kind as usize) {
            *count += 1;
        }
        let percent = 100.0 * self.arrived as f64 / self.capacity as f64;
        self.outcome.first_failure.get_or_insert(percent);
    }

    fn leaves(&mut self, number: usize) {
        let Some((pod, class)) = self.pod(number) else { return };
        if let Some(choice) = self.placed.get_mut(number).and_then(Option::take) {
            self.market.give(class, &choice);
            self.used -= pod.shape.cards.compute();
        }
    }

    /// Steps done, and steps in total.
    pub fn progress(&self) -> (usize, usize) {
        (self.next, self.workload.arrivals.steps.len())
    }
}
