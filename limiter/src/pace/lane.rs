//! The time measurement of one stream: marks (events of the driver) between its launches.
//!
//! What lies between two marks is the GPU's work only where the stream cannot have run dry in between. That is known in
//! two cases: the first mark was not reached yet when the second one was put (the work before it hides the program's
//! pauses), or a single launch was put between them at once. Everything else is charged by the mean of what was measured,
//! and at most by what lies between the marks. So the time that a program leaves its stream idle is never charged,
//! however it waits.
//!
//! Asking the driver costs about as much as launching, so it is done for one launch in many: after a random number of
//! them, or when about [`MARK_TIME`] of work lies behind the last mark. Without the driver ([`Meter`]) this is arithmetic.

use std::collections::VecDeque;

/// The most launches between two marks.
const MARK_LAUNCHES: u64 = 48;
/// The most work between two marks, as far as it is foreseen; nanoseconds.
const MARK_TIME: u64 = 500_000;
/// The time in which about one launch is looked at, where they are short; nanoseconds.
const LOOK_TIME: u64 = 200_000;
/// The most marks with launches before them that have not been reached.
const AHEAD_MARKS: usize = 8;
/// Work in flight from which on a launch waits, if two marks have not been reached; nanoseconds. It hides pauses of the
/// program of that length.
const AHEAD_TIME: u64 = 4_000_000;
/// The most that short launches leave to be charged for others; nanoseconds.
const CARRY: u64 = 2_000_000;
/// How many measured launches the mean goes back.
const MEMORY: u64 = 32;
/// The part of the time by which the clocks of host and GPU differ at most.
const DRIFT: u64 = 10_000;
/// The most that is made of it for one launch; nanoseconds.
const SLACK: u64 = 3_000;
/// How long it takes at most until the GPU gets what was submitted; nanoseconds. Moments on its clock are counted from then.
const SUBMISSION: u64 = 10_000;
/// How long a wait takes in which nothing is waited for; nanoseconds.
const WAIT: u64 = 20_000;
/// How long after it was not reached a mark is taken to be not reached; nanoseconds.
const STILL: u64 = 50_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Kernel,
    /// A graph: many kernels. Each is measured.
    Graph,
}

/// An event of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(pub usize);

/// The driver has refused a mark, or an answer about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// What a lane needs of the driver, on its stream.
pub trait Meter {
    /// Nanoseconds of the host's clock.
    fn now(&self) -> u64;
    /// Puts a mark behind what was launched; `None` while the stream is captured.
    fn record(&mut self) -> Result<Option<Mark>, Failed>;
    fn reached(&mut self, mark: Mark) -> Result<bool, Failed>;
    /// Nanoseconds from one mark to a later one; both were reached.
    fn elapsed(&mut self, from: Mark, to: Mark) -> Result<u64, Failed>;
    /// The mark is not needed any more.
    fn recycle(&mut self, mark: Mark);
}

/// Kernels ran from `start` to `end`, in nanoseconds of the host's clock.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub start: u64,
    pub end: u64,
}

/// What is known of the time between a mark and the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// The stream had work all the time.
    Busy,
    /// One launch, which was made at this moment.
    Single { launched: u64 },
    /// The stream may have run dry.
    Dry,
}

/// A mark that was not reached.
#[derive(Clone, Copy, Debug)]
struct Flight {
    mark: Mark,
    recorded: u64,
    /// It is reached at this moment at the earliest.
    after: u64,
    /// Launches since the mark before.
    launches: u32,
    /// For how long the program has waited for them.
    waited: u64,
    known: Known,
    work: Work,
}

/// How a launch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It is not looked at.
    Unseen,
    /// The stream is captured: it is not run now.
    Captured,
    /// A mark was put before it at this moment.
    Marked(u64),
    /// At this moment the last mark was not reached.
    Behind(u64),
}

/// Nanoseconds that a launch takes.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    /// 0 where none was measured.
    value: u64,
    /// How many were measured, up to [`MEMORY`].
    count: u64,
    /// The last one took much longer.
    other: bool,
    /// Nanoseconds by which launches were seen to be shorter than the mean: so others are longer.
    carry: u64,
}

impl Mean {
    fn note(&mut self, each: u64) {
        let other = self.value > 0 && each / 4 > self.value;
        if other && self.other {
            // not one long kernel among short ones, but long ones from now on
            (self.value, self.count) = (each, 0);
        }
        self.other = other;
        self.count = (self.count + 1).min(MEMORY);
        self.value = ((self.value * (self.count - 1) + each) / self.count).max(1);
    }

    fn of(self, launches: u64) -> u64 {
        self.value.saturating_mul(launches)
    }
}

#[derive(Debug)]
pub struct Lane {
    /// The last mark that was reached, and when on the host's clock.
    base: Option<(Mark, u64)>,
    flying: VecDeque<Flight>,
    /// Launches since the last mark, and for how long the program has waited for them.
    unmarked: u32,
    waited: u64,
    /// When one was looked at last, and launches since.
    looked: u64,
    passed: u64,
    /// The time between two launches.
    every: u64,
    mean: Mean,
    /// That of graphs.
    graphs: Mean,
    /// By how much the clocks of GPU and host may have differed when the last mark was reached.
    slack: u64,
    random: u64,
}

impl Lane {
    /// `seed` is any number.
    pub fn new(seed: u64) -> Self {
        Self {
            base: None,
            flying: VecDeque::new(),
            unmarked: 0,
            waited: 0,
            looked: 0,
            passed: 0,
            every: 0,
            mean: Mean::default(),
            graphs: Mean::default(),
            slack: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// Whether there are marks that were not reached.
    pub fn busy(&self) -> bool {
        !self.flying.is_empty()
    }

    /// Counts launches that were not looked at.
    pub fn passed(&mut self, launches: u32) {
        self.unmarked += launches;
        self.passed += u64::from(launches);
    }

    /// Whether so much is in flight that a launch has to wait; then until when about.
    pub fn full(&self) -> Option<u64> {
        let mut with = self.flying.iter().filter(|f| f.launches > 0);
        let marks = with.clone().count();
        // what was never measured may take any time
        let much = |f: &Flight| if self.mean(f.work).value == 0 { AHEAD_TIME } else { self.foreseen(f) };
        let foreseen = with.clone().map(much).fold(0, u64::saturating_add);
        let full = marks >= AHEAD_MARKS || (marks >= 2 && foreseen >= AHEAD_TIME);
        let front = with.next().filter(|_| full)?;
        let begun = self.base.map_or(front.recorded, |(_, at)| at);
        Some(begun.saturating_add(self.foreseen(front)))
    }

    fn mean(&self, work: Work) -> Mean {
        match work {
            Work::Kernel => self.mean,
            Work::Graph => self.graphs,
        }
    }

    fn foreseen(&self, flight: &Flight) -> u64 {
        self.mean(flight.work).of(u64::from(flight.launches))
    }

    /// Before a launch that is looked at. Ended work was harvested a moment ago.
    pub fn begin(&mut self, meter: &mut impl Meter, work: Work) -> Result<Begin, Failed> {
        if self.busy() && (work == Work::Kernel || self.unmarked == 0) {
            return Ok(Begin::Behind(meter.now()));
        }
        let Some(mark) = meter.record()? else { return Ok(Begin::Captured) };
        let now = meter.now();
        // otherwise what is before it may have ended at any time
        let known = if self.busy() { Known::Busy } else { Known::Dry };
        self.fly(mark, now, known, Work::Kernel);
        Ok(Begin::Marked(now))
    }

    /// After a launch that was looked at: puts a mark behind it. Returns how many launches pass before the next that is looked
    /// at, where that is decided anew.
    pub fn launched(
        &mut self,
        meter: &mut impl Meter,
        begin: Begin,
        work: Work,
        ran: &mut Vec<Run>,
    ) -> Result<Option<u32>, Failed> {
        let (begun, marked) = match begin {
            Begin::Unseen | Begin::Captured => return Ok(None),
            Begin::Marked(at) => (at, true),
            Begin::Behind(at) => (at, false),
        };
        self.unmarked += 1;
        self.passed += 1;
        let launched = meter.now();
        let soon = launched.saturating_sub(begun) < STILL;
        let known = match (marked, soon) {
            (true, false) => {
                self.harvest(meter, ran)?;
                // a mark that is still not reached is behind other work: the launch began right after it
                Known::Single { launched: if self.busy() { 0 } else { launched } }
            }
            _ if self.unmarked == 1 => Known::Single { launched },
            (_, true) => Known::Busy,
            (false, false) => Known::Dry,
        };
        let Some(mark) = meter.record()? else { return Ok(None) };
        let now = meter.now();
        self.fly(mark, now, known, work);
        Ok((work == Work::Kernel).then(|| self.stride(now)))
    }

    /// Adds ended runs to `ran`.
    pub fn harvest(&mut self, meter: &mut impl Meter, ran: &mut Vec<Run>) -> Result<(), Failed> {
        while let Some(flight) = self.flying.front().copied() {
            if !meter.reached(flight.mark)? {
                if let Some(front) = self.flying.front_mut() {
                    front.after = meter.now().saturating_sub(SUBMISSION).max(front.after);
                }
                break;
            }
            self.flying.pop_front();
            let now = meter.now();
            let (mut at, mut slack) = (flight.after, 0);
            if let Some((base, began)) = self.base {
                let between = meter.elapsed(base, flight.mark)?;
                // the clocks of host and GPU drift apart a little, and no mark is reached before it is recorded
                at = began.saturating_add(between).clamp(flight.after, now.max(flight.after));
                slack = (between / DRIFT).min(SLACK);
                let lasted = self.believed(&flight, between, began).min(now.saturating_sub(began));
                if lasted > 0 {
                    let start = if flight.known == Known::Dry { began } else { at.saturating_sub(lasted) };
                    ran.push(Run { start, end: start + lasted });
                }
            }
            if let Some((old, _)) = self.base.replace((flight.mark, at)) {
                meter.recycle(old);
            }
            self.slack = slack;
        }
        Ok(())
    }

    /// How long the launches of a flight took, of the time `between` its mark and the one before, which was
    /// reached at `began`. Notes the mean.
    fn believed(&mut self, flight: &Flight, between: u64, began: u64) -> u64 {
        let launches = u64::from(flight.launches);
        if launches == 0 {
            return 0;
        }
        let mean = match flight.work {
            Work::Kernel => &mut self.mean,
            Work::Graph => &mut self.graphs,
        };
        let lasted = match flight.known {
            Known::Busy => between,
            Known::Single { launched } => {
                let began = began.saturating_add(self.slack);
                // the GPU's clock has half a microsecond of resolution
                between.saturating_sub(launched.saturating_sub(began)).max(between.min(500))
            }
            Known::Dry => {
                let foreseen = if mean.value > 0 { mean.of(launches) + mean.carry } else { between };
                // not shorter than the mark, or the program, has waited for them
                let reached = began.saturating_add(between - between / DRIFT);
                let least = between.min(reached.saturating_sub(flight.recorded).max(flight.waited));
                if mean.value > 0 && least <= foreseen {
                    let lasted = between.min(foreseen);
                    mean.carry = (foreseen - lasted).min(CARRY);
                    return lasted;
                }
                mean.carry = 0;
                least.max(foreseen.min(between))
            }
        };
        mean.note((lasted / launches).max(1));
        lasted
    }

    /// The program was blocked for so long until the stream was done.
    pub fn waited(&mut self, nanoseconds: u64) {
        if self.open() {
            let before: u64 = self.flying.iter().map(|f| self.foreseen(f)).fold(WAIT, u64::saturating_add);
            self.waited = self.waited.saturating_add(nanoseconds.saturating_sub(before));
        }
    }

    /// Whether there are launches that no mark is behind.
    pub fn open(&self) -> bool {
        self.unmarked > 0
    }

    /// Puts a mark behind what was launched, while nothing else is done.
    pub fn close(&mut self, meter: &mut impl Meter, ran: &mut Vec<Run>) -> Result<(), Failed> {
        if self.open() {
            self.harvest(meter, ran)?;
            let known = if self.busy() { Known::Busy } else { Known::Dry };
            if let Some(mark) = meter.record()? {
                self.fly(mark, meter.now(), known, Work::Kernel);
            }
        }
        Ok(())
    }

    /// No more is launched on the stream: charges by the mean what no mark is behind.
    pub fn end(&mut self, now: u64) -> Option<Run> {
        let launches = u64::from(std::mem::take(&mut self.unmarked));
        let began = self.flying.back().map_or(self.base.map_or(now, |(_, at)| at), |last| last.recorded);
        let lasted = self.mean.of(launches).max(self.waited).min(now.saturating_sub(began));
        (lasted > 0).then_some(Run { start: began, end: began + lasted })
    }

    fn fly(&mut self, mark: Mark, recorded: u64, known: Known, work: Work) {
        let (launches, waited) = (std::mem::take(&mut self.unmarked), std::mem::take(&mut self.waited));
        self.flying.push_back(Flight { mark, recorded, after: recorded, launches, waited, known, work });
    }

    /// How many launches pass before the next that is looked at: random, so that the measured ones are not always the same
    /// of a program's loop. As many as fit into a time, by how often the program launches: what it costs to look is then a
    /// small part of it.
    fn stride(&mut self, now: u64) -> u32 {
        let last = if self.looked == 0 { now } else { self.looked };
        let each = ((now - last.min(now)) / self.passed.max(1)).min(LOOK_TIME);
        (self.looked, self.passed) = (now, 0);
        // not by the last ones alone: what is looked at would depend on what comes before it
        self.every = if self.every == 0 { each } else { (self.every * 15 + each) / 16 };
        let fits = |time: u64, each: u64| time.checked_div(each).unwrap_or(0);
        let most = fits(MARK_TIME, self.mean.value).min(fits(LOOK_TIME, self.every.max(1))).min(MARK_LAUNCHES);
        // xorshift
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (most / 2 + (self.random >> 16) % (most / 2 + 1)) as u32
    }

    /// All marks, which the lane does not need any more.
    pub fn marks(&mut self) -> Vec<Mark> {
        let flying = std::mem::take(&mut self.flying);
        self.base.take().into_iter().map(|(mark, _)| mark).chain(flying.into_iter().map(|f| f.mark)).collect()
    }
}
