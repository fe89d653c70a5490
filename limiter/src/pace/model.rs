//! Lanes on a simulated GPU, with programs of every kind.

use std::cell::Cell;
use std::rc::Rc;

use proptest::prelude::*;

use super::lane::{Begin, Failed, Lane, Mark, Meter, Run, Work};

/// How long after its submission work begins or an event is reached, at the earliest; nanoseconds.
const LATENCY: u64 = 5_000;
const LAUNCH: u64 = 4_000;

/// One stream of a GPU, in its own time.
#[derive(Default)]
struct Gpu {
    now: Rc<Cell<u64>>,
    /// When all that was submitted is done.
    free: u64,
    /// When each event is reached.
    events: Vec<u64>,
    spare: Vec<Mark>,
    /// The host's clock is this many millionths faster.
    drift: u64,
    captured: bool,
    failing: bool,
    asked: u64,
}

impl Gpu {
    fn spend(&mut self, nanoseconds: u64) {
        self.now.set(self.now.get() + nanoseconds);
        self.asked += 1;
    }

    fn submit(&mut self, nanoseconds: u64) {
        self.free = self.free.max(self.now.get() + LATENCY) + nanoseconds;
    }
}

impl Meter for Gpu {
    fn now(&self) -> u64 {
        self.now.get()
    }

    fn record(&mut self) -> Result<Option<Mark>, Failed> {
        self.spend(1_500);
        if self.failing {
            return Err(Failed);
        }
        if self.captured {
            return Ok(None);
        }
        self.submit(0);
        let mark = self.spare.pop().unwrap_or(Mark(self.events.len()));
        self.events.resize(self.events.len().max(mark.0 + 1), 0);
        self.events[mark.0] = self.free;
        Ok(Some(mark))
    }

    fn reached(&mut self, mark: Mark) -> Result<bool, Failed> {
        self.spend(500);
        Ok(self.events[mark.0] <= self.now.get())
    }

    fn elapsed(&mut self, from: Mark, to: Mark) -> Result<u64, Failed> {
        self.spend(500);
        // timestamps of half a microsecond, of a clock that is slower than the host's
        let at = |mark: Mark| (self.events[mark.0] - self.events[mark.0] * self.drift / 1_000_000) / 500 * 500;
        Ok(at(to) - at(from))
    }

    fn recycle(&mut self, mark: Mark) {
        self.spare.push(mark);
    }
}

/// What a program does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Kernel(u64),
    Graph(u64),
    /// Waits until all is done, in a way that is noticed.
    Wait,
    /// In a way that is not.
    Copy,
    Idle(u64),
}

/// A program, its stream, and what was charged for it.
struct Program {
    gpu: Gpu,
    lane: Lane,
    left: u32,
    ran: Vec<Run>,
    busy: u64,
    in_flight: u64,
    launches: u64,
}

impl Program {
    fn new(drift: u64, seed: u64) -> Self {
        let gpu = Gpu { drift, ..Gpu::default() };
        gpu.now.set(1_000_000_000);
        Self { gpu, lane: Lane::new(seed), left: 0, ran: Vec::new(), busy: 0, in_flight: 0, launches: 0 }
    }

    /// As [`super::Pacer::launch`] does, without debt. `load` is what the first launch of a kernel takes longer.
    fn launch(&mut self, nanoseconds: u64, work: Work, load: u64) {
        let (gpu, lane) = (&mut self.gpu, &mut self.lane);
        let begin = if work == Work::Kernel && self.left > 0 {
            self.left -= 1;
            lane.passed(1);
            Begin::Unseen
        } else {
            lane.harvest(gpu, &mut self.ran).unwrap();
            while let Some(until) = lane.full() {
                let now = gpu.now.get();
                gpu.now.set(until.clamp(now + 20_000, now + 1_000_000));
                lane.harvest(gpu, &mut self.ran).unwrap();
            }
            lane.begin(gpu, work).unwrap()
        };
        gpu.now.set(gpu.now.get() + LAUNCH + load);
        gpu.submit(nanoseconds);
        self.busy += nanoseconds;
        self.launches += 1;
        if let Some(left) = lane.launched(gpu, begin, work, &mut self.ran).unwrap() {
            self.left = left;
        }
        self.in_flight = self.in_flight.max(gpu.free.saturating_sub(gpu.now.get()));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Kernel(nanoseconds) => self.launch(nanoseconds, Work::Kernel, 0),
            Step::Graph(nanoseconds) => self.launch(nanoseconds, Work::Graph, 0),
            Step::Wait => {
                let began = self.gpu.now.get();
                self.step(Step::Copy);
                self.lane.waited(self.gpu.now.get() - began);
            }
            Step::Copy => self.gpu.now.set(self.gpu.now.get().max(self.gpu.free) + 10_000),
            Step::Idle(nanoseconds) => self.gpu.now.set(self.gpu.now.get() + nanoseconds),
        }
    }

    /// Nanoseconds that were charged, when all has ended.
    fn charged(&mut self) -> u64 {
        self.step(Step::Wait);
        self.lane.harvest(&mut self.gpu, &mut self.ran).unwrap();
        self.ran.extend(self.lane.end(self.gpu.now.get()));
        self.ran.iter().map(|run| run.end - run.start).sum()
    }
}

/// A program that repeats a few steps.
fn steps(kernel: impl Strategy<Value = u64> + Clone) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => kernel.clone().prop_map(Step::Kernel),
        1 => kernel.prop_map(Step::Graph),
        1 => Just(Step::Wait),
        1 => Just(Step::Copy),
        2 => (0..3_u32, 0_u64..1000).prop_map(|(size, n)| Step::Idle(n * 1000_u64.pow(size))),
    ];
    proptest::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Kernels of one length, in any pattern of launches, waits and pauses of up to a second.
    #[test]
    fn kernels_are_charged_and_pauses_are_not(
        kernel in prop_oneof![1_000..30_000_u64, 30_000..20_000_000_u64],
        pattern in steps(Just(0)),
        drift in 0..50_u64,
        seed in any::<u64>(),
    ) {
        let mut program = Program::new(drift, seed);
        while program.launches < 600 {
            for step in &pattern {
                program.step(match step {
                    Step::Kernel(_) => Step::Kernel(kernel),
                    Step::Graph(_) => Step::Graph(kernel * 5),
                    other => *other,
                });
            }
            if pattern.iter().all(|s| !matches!(s, Step::Kernel(_) | Step::Graph(_))) {
                return Ok(());
            }
        }
        let (charged, busy) = (program.charged(), program.busy);
        let (low, high) = ((busy * 9 / 10).saturating_sub(program.launches * 1_000), busy * 12 / 10 + program.launches * 4_500 + 20_000);
        prop_assert!((low..high).contains(&charged), "charged {charged} of {busy}");
    }

    /// Kernels of any lengths.
    #[test]
    fn mixed_kernels_are_charged_about_as_they_run(
        pattern in steps(prop_oneof![4 => 1_000..30_000_u64, 1 => 30_000..2_000_000_u64]),
        seed in any::<u64>(),
    ) {
        if pattern.iter().all(|s| !matches!(s, Step::Kernel(_) | Step::Graph(_))) {
            return Ok(());
        }
        let mut program = Program::new(20, seed);
        while program.launches < 5000 {
            pattern.iter().for_each(|step| program.step(*step));
        }
        let (charged, busy) = (program.charged(), program.busy);
        let (low, high) = (busy * 3 / 10, busy * 5 / 2 + program.launches * 2_000);
        prop_assert!((low..high).contains(&charged), "charged {charged} of {busy}");
    }

    #[test]
    fn what_is_in_flight_is_bounded(kernel in 1_000..50_000_000_u64, launches in 10..400_u64, seed in any::<u64>()) {
        let mut program = Program::new(0, seed);
        for _ in 0..launches {
            program.launch(kernel, Work::Kernel, 0);
        }
        // the bound, what one mark stands for, and what came before the first was measured
        prop_assert!(program.in_flight < 6_000_000 + 3 * kernel, "{}", program.in_flight);
    }

    /// Marks and questions, per launch of a program that launches as fast as it can.
    #[test]
    fn the_driver_is_seldom_asked(kernel in 500..3_900_u64, seed in any::<u64>()) {
        let mut program = Program::new(0, seed);
        for _ in 0..3000 {
            program.launch(kernel, Work::Kernel, 0);
        }
        prop_assert!(program.gpu.asked < 3000 * 7 / 24, "{}", program.gpu.asked);
    }
}

#[test]
fn what_a_launch_takes_on_the_host_is_not_charged() {
    let mut program = Program::new(0, 1);
    for load in [2_000_000_000, 0, 0, 0, 3_000_000_000, 0, 0] {
        program.launch(10_000, Work::Kernel, load);
        program.step(Step::Wait);
    }
    // also behind work
    (0..100).for_each(|_| program.launch(600_000, Work::Kernel, 0));
    for load in [2_000_000_000, 0, 0, 0] {
        program.launch(600_000, Work::Kernel, load);
    }
    let (charged, busy) = (program.charged(), program.busy);
    assert!((busy * 8 / 10..busy * 13 / 10).contains(&charged), "{charged} of {busy}");
}

#[test]
fn a_captured_launch_is_not_measured_and_leaves_no_mark() {
    let mut program = Program::new(0, 1);
    program.gpu.captured = true;
    assert_eq!(program.lane.begin(&mut program.gpu, Work::Kernel), Ok(Begin::Captured));
    program.lane.launched(&mut program.gpu, Begin::Captured, Work::Kernel, &mut program.ran).unwrap();
    assert!(!program.lane.busy() && program.lane.marks().is_empty());
}

#[test]
fn a_refused_mark_is_told_and_no_mark_is_lost() {
    let mut program = Program::new(0, 1);
    (0..5).for_each(|_| program.launch(1_000_000, Work::Kernel, 0));
    program.gpu.failing = true;
    assert_eq!(
        program.lane.launched(&mut program.gpu, Begin::Behind(0), Work::Kernel, &mut program.ran),
        Err(Failed)
    );
    let (kept, spare) = (program.lane.marks().len(), program.gpu.spare.len());
    assert_eq!(kept + spare, program.gpu.events.len());
}
