//! The time measurement of one stream: marks (events of the driver) between its launches.
//!
//! A stream begins to be busy with a mark that is reached at once, so its time on the host's clock is known. The time
//! of each later mark follows from the driver's measurement since the one before.

use std::collections::VecDeque;
use std::ptr;

use crate::abi::{CAPTURE_RELAXED, EVENT_BLOCKING, Handle, SUCCESS};
use crate::{clock, driver};

/// Marks that can be used again.
pub type Events = Vec<Mark>;

/// An event of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(usize);

impl Mark {
    fn handle(self) -> Handle {
        self.0 as Handle
    }

    fn reached(self) -> bool {
        // SAFETY: the event was made by `Lane::record` in a context that still exists.
        unsafe { driver::cuEventQuery(self.handle()) == SUCCESS }
    }

    /// Nanoseconds from `self` to `later`; both were reached.
    fn until(self, later: Self) -> u64 {
        let mut milliseconds = 0.0_f32;
        // SAFETY: the events are as in `reached`, and the pointer is to a local.
        let status = unsafe { driver::cuEventElapsedTime(&raw mut milliseconds, self.handle(), later.handle()) };
        if status == SUCCESS { (f64::from(milliseconds) * 1e6).max(0.0).round() as u64 } else { 0 }
    }
}

/// Blocks until a mark is reached.
pub fn wait_for(mark: Mark) {
    // SAFETY: the event is as in `Mark::reached`. If its context is destroyed meanwhile, the driver returns an error.
    unsafe { driver::cuEventSynchronize(mark.handle()) };
}

/// Kernels ran from `start` to `end`, in nanoseconds of the host's clock.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub start: u64,
    pub end: u64,
    /// The number of launches in the run.
    pub launches: u32,
}

#[derive(Default)]
pub struct Lane {
    /// The last mark that was reached, and when.
    base: Option<(Mark, u64)>,
    /// Marks that were not reached, with the launches before each.
    flying: VecDeque<(Mark, u32)>,
    /// Launches since the last mark.
    unmarked: u32,
    /// The last mark was put before a launch, on an idle stream.
    fresh: bool,
}

impl Lane {
    pub fn open(&self) -> bool {
        self.unmarked > 0
    }

    pub fn fresh(&self) -> bool {
        self.fresh
    }

    pub fn unmarked(&self) -> u32 {
        self.unmarked
    }

    /// Whether there are launches that were not charged.
    pub fn busy(&self) -> bool {
        self.unmarked > 0 || !self.flying.is_empty()
    }

    /// The number of marks that were not reached.
    pub fn outstanding(&self) -> usize {
        self.flying.len()
    }

    /// The first mark that was not reached.
    pub fn front(&self) -> Option<Mark> {
        self.flying.front().map(|(mark, _)| *mark)
    }

    /// Counts launches.
    pub fn launched(&mut self, weight: u32) {
        self.unmarked += weight;
    }

    /// Puts a mark behind the launches.
    pub fn mark(&mut self, events: &mut Events, stream: Handle) {
        if let Some(mark) = Self::record(events, stream) {
            self.flying.push_back((mark, self.unmarked));
            (self.unmarked, self.fresh) = (0, false);
        }
    }

    /// Before a launch: begins a run where the stream is idle. Returns the run behind the last mark, if it has ended.
    pub fn resume(&mut self, events: &mut Events, stream: Handle, mean: u64) -> Option<Run> {
        if !self.flying.is_empty() {
            return None;
        }
        let launches = self.unmarked;
        let mark = Self::record(events, stream)?;
        let now = clock::now();
        let Some((base, at)) = self.base.filter(|_| launches > 0) else {
            self.restart(events, mark, now);
            self.fresh = true;
            return None;
        };
        if !mark.reached() {
            // still busy, without a break
            self.flying.push_back((mark, launches));
            self.unmarked = 0;
            return None;
        }
        // they ended some time between the last mark and now: assume that they took the mean
        let lasted = base.until(mark).min(mean.saturating_mul(u64::from(launches)));
        self.unmarked = 0;
        self.restart(events, mark, now);
        Some(Run { start: at, end: at + lasted, launches })
    }

    /// Adds ended runs to `ran`.
    pub fn harvest(&mut self, events: &mut Events, ran: &mut Vec<Run>) {
        while let Some((mark, launches)) = self.flying.front().copied() {
            if !mark.reached() {
                break;
            }
            self.flying.pop_front();
            let now = clock::now();
            let (base, at) = self.base.unwrap_or((mark, now));
            // the clocks of host and GPU drift apart a little; no kernel ends in the future
            let end = (at + base.until(mark)).min(now.max(at));
            if end > at && launches > 0 {
                ran.push(Run { start: at, end, launches });
            }
            self.restart(events, mark, end);
        }
    }

    fn restart(&mut self, events: &mut Events, mark: Mark, at: u64) {
        if let Some((old, _)) = self.base.replace((mark, at))
            && old != mark
        {
            events.push(old);
        }
    }

    fn record(events: &mut Events, stream: Handle) -> Option<Mark> {
        let mark = match events.pop() {
            Some(mark) => mark,
            None => {
                let mut event = ptr::null_mut();
                // SAFETY: the pointer is to a local.
                let status = unsafe { driver::cuEventCreate(&raw mut event, EVENT_BLOCKING) };
                (status == SUCCESS).then_some(Mark(event as usize))?
            }
        };
        // SAFETY: the event is of the current context, and the stream is the program's own, which it is launching on.
        let status = unsafe { driver::cuEventRecord(mark.handle(), stream) };
        if status != SUCCESS {
            events.push(mark);
            return None;
        }
        Some(mark)
    }
}

/// While it lives, the calling thread's own calls do not disturb captures of other threads.
pub struct Relaxed(i32);

impl Relaxed {
    pub fn enter() -> Self {
        let mut mode = CAPTURE_RELAXED;
        // SAFETY: the pointer is to a local.
        unsafe { driver::cuThreadExchangeStreamCaptureMode(&raw mut mode) };
        Self(mode)
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        // SAFETY: the pointer is to this value's own field.
        unsafe { driver::cuThreadExchangeStreamCaptureMode(&raw mut self.0) };
    }
}
