//! Holding launches back, so that the container has no more of a GPU's time than it may.
//!
//! Time is measured, not guessed from the size of grids: with the driver's events between launches ([`lane`], [`events`]).
//! The measured time is charged to the container's [`bucket`], overlaps once ([`spans`], [`timeline`]); a launch waits until the
//! bucket is out of debt. A kernel is never interrupted, so a long one is paid for afterwards. Only a bounded time is in
//! flight on a stream, so that a program cannot queue seconds of work before the first of it is charged.
//!
//! Every wait is bounded, and looks at the allowance again: a launch may be what a running kernel waits for.

pub mod bucket;
pub mod events;
pub mod lane;
#[cfg(test)]
mod model;
pub mod spans;
pub mod streams;
pub mod timeline;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kerf_limiter_contract::allowance;
use kerf_limiter_contract::limits::DeviceLimits;
use kerf_limiter_contract::state::{Flags, State};

use crate::abi::{Handle, STREAM_PER_THREAD, SUCCESS, Status};
use crate::clock;
use events::{Marks, Spare};
use lane::{Begin, Failed, Lane, Run, Work};
use spans::Spans;
use streams::{Key, Stream, Streams};

/// The longest sleep before the allowance is looked at again; nanoseconds.
const NAP: u64 = 100_000_000;
/// The first and the longest pause between two looks at a mark that is overdue; nanoseconds.
const POLL: (u64, u64) = (20_000, 1_000_000);
/// For how long a launch waits at most for work in flight on its stream; nanoseconds. What runs may wait for this launch.
const STALL: u64 = 1_000_000_000;
/// How often the streams are looked at that nothing is launched on; nanoseconds.
const LOOK: u64 = 1_000_000;
/// How much longer than looking takes the pause is before the next look: with many streams it would take all of the time.
const PAUSE: u64 = 20;
/// For how long a stream is not measured after the driver has failed to; nanoseconds.
const BROKEN: u64 = 1_000_000_000;

pub struct Pacer {
    state: &'static State,
    card: usize,
    /// `vcuda-core` in millionths of the GPU's time.
    floor: u32,
    allowance: Option<&'static [AtomicU64]>,
    streams: Mutex<Streams>,
    spare: Spare,
    /// What was charged.
    spans: Mutex<Spans>,
    /// When all streams were last looked at, and for how long they need not be.
    looked: AtomicU64,
    pause: AtomicU64,
}

impl Pacer {
    /// For the GPU at a position of the limits.
    pub fn new(
        state: &'static State,
        card: usize,
        limits: &DeviceLimits,
        allowance: Option<&'static [AtomicU64]>,
    ) -> Self {
        // the host applies ceiling and floor and writes the allowance; without an allowance the floor holds
        let floor = u32::from(limits.core) * (allowance::WHOLE / 100);
        let (looked, pause) = (AtomicU64::new(0), AtomicU64::new(0));
        let (streams, spare, spans) = (Mutex::default(), Spare::default(), Mutex::default());
        Self { state, card, floor, allowance, streams, spare, spans, looked, pause }
    }

    /// The part of wall time in which kernels may run now, in millionths.
    fn rate(&self, now: u64) -> u32 {
        let entry = self.allowance.and_then(|entries| entries.get(self.card));
        entry.and_then(|e| allowance::read(e.load(Ordering::Relaxed), now)).unwrap_or(self.floor)
    }

    fn whole(&self, now: u64) -> bool {
        self.rate(now) == allowance::WHOLE
    }

    /// Whether kernels on this GPU are ever held back.
    pub fn paces(&self) -> bool {
        self.floor != allowance::WHOLE
    }

    /// Launches `work` on a stream that is not captured, as soon as it may. `context` is that of the thread.
    pub fn launch(
        &self,
        stream: Handle,
        work: Work,
        context: impl FnOnce() -> usize,
        call: impl FnOnce() -> Status,
    ) -> Status {
        let now = clock::about();
        if self.whole(now) {
            return call();
        }
        if self.owes(now) && self.owes(clock::now()) {
            self.close();
            self.wait(clock::now());
        }
        let key = Key::of(stream, context);
        if work == Work::Kernel && self.streams().pass(key) {
            return call();
        }
        let stream = self.stream(key, stream);
        let begun = self.begin(&stream, work);
        let status = call();
        let measured = begun.and_then(|begin| self.launched(&stream, begin, work));
        if measured.is_err() {
            self.failed(&stream, status);
        }
        status
    }

    /// Whether the container is in debt.
    fn owes(&self, now: u64) -> bool {
        self.state.devices.get(self.card).is_some_and(|device| bucket::due(&device.due, now) > now)
    }

    /// Before a sleep: puts marks behind what was launched, so that it is measured without the sleep.
    fn close(&self) {
        let own = streams::thread();
        let lanes =
            self.streams().lanes.iter().map(|(key, stream)| (key.thread, Arc::clone(stream))).collect::<Vec<_>>();
        let mut ran = Vec::new();
        // the default stream of another thread cannot be named by this one
        for stream in lanes.into_iter().filter(|(thread, _)| [0, own].contains(thread)).map(|(_, stream)| stream) {
            let Some(mut lane) = stream.try_lane() else { continue };
            let idle = !lane.open() || stream.gone.load(Ordering::Relaxed) || self.broken(&stream);
            if !idle && lane.close(&mut self.marks(&stream), &mut ran).is_err() {
                drop(lane);
                self.failed(&stream, SUCCESS);
            }
        }
        self.book(ran);
    }

    /// Sleeps while the container is in debt.
    fn wait(&self, mut now: u64) {
        let Some(device) = self.state.devices.get(self.card).filter(|_| self.owes(now)) else { return };
        let began = now;
        loop {
            // ended launches are charged before more are let through
            self.harvest();
            let due = bucket::due(&device.due, now);
            if due <= now || self.whole(now) {
                break;
            }
            clock::sleep_until(due.min(now + NAP));
            now = clock::now();
        }
        device.waited.fetch_add(now - began, Ordering::Relaxed);
    }

    /// Before a launch that is looked at: waits while too much is in flight.
    fn begin(&self, stream: &Stream, work: Work) -> Result<Begin, Failed> {
        let began = clock::now();
        if self.broken(stream) {
            return Ok(Begin::Unseen);
        }
        if self.overdue(began, LOOK) {
            self.harvest();
        }
        let (mut now, mut poll) = (began, POLL.0);
        loop {
            let mut ran = Vec::new();
            let full = {
                let mut lane = stream.lane();
                let mut marks = self.marks(stream);
                let harvested = lane.harvest(&mut marks, &mut ran);
                let full = harvested.map(|()| lane.full());
                match full {
                    Ok(None) if ran.is_empty() => return lane.begin(&mut marks, work),
                    other => other,
                }
            };
            // their cost is waited for now, and not as a part of the run that begins
            self.book(ran);
            self.wait(now);
            now = clock::now();
            match full? {
                Some(until) if now.saturating_sub(began) < STALL && !self.whole(now) => {
                    // what is foreseen may be wrong: not for long, and not all at once
                    let until = if until > now { until.min(now + POLL.1) } else { now + poll };
                    poll = (poll * 2).min(POLL.1);
                    clock::sleep_until(until);
                    now = clock::now();
                }
                Some(_) => return stream.lane().begin(&mut self.marks(stream), work),
                None => {}
            }
        }
    }

    fn launched(&self, stream: &Stream, begin: Begin, work: Work) -> Result<(), Failed> {
        if matches!(begin, Begin::Unseen | Begin::Captured) {
            return Ok(());
        }
        let mut ran = Vec::new();
        let measured = stream.lane().launched(&mut self.marks(stream), begin, work, &mut ran);
        self.book(ran);
        if let Some(pass) = measured? {
            self.streams().let_pass(stream, pass);
        }
        Ok(())
    }

    /// The driver does not measure this stream: begins anew some time later, and tells the host where the launch itself did
    /// not fail.
    fn failed(&self, stream: &Stream, status: Status) {
        let mut old = std::mem::replace(&mut *stream.lane(), Stream::fresh(stream.handle));
        let relaxed = self.marks(stream);
        events::discard(old.marks());
        drop(relaxed);
        stream.broken.store(clock::now() + BROKEN, Ordering::Relaxed);
        if status == SUCCESS {
            self.state.header.flags.fetch_or(Flags::UNMEASURED.0, Ordering::Relaxed);
        }
    }

    /// The program was blocked for so long until a stream was done, or all (`None`).
    pub fn waited(&self, stream: Option<Handle>, context: impl FnOnce() -> usize, nanoseconds: u64) {
        let waited = match stream {
            Some(stream) => self.streams().lanes.get(&Key::of(stream, context)).cloned(),
            None => {
                // for several it is not known which
                let streams = self.streams();
                let mut open = streams.lanes.values().filter(|stream| stream.try_lane().is_some_and(|l| l.open()));
                open.next().filter(|_| open.next().is_none()).cloned()
            }
        };
        if let Some(stream) = waited {
            stream.lane().waited(nanoseconds);
            self.harvest_of([stream]);
        }
        if self.overdue(clock::now(), 0) {
            self.harvest();
        }
    }

    /// Whether the streams were not looked at for so long.
    fn overdue(&self, now: u64, nanoseconds: u64) -> bool {
        let pause = self.pause.load(Ordering::Relaxed).max(nanoseconds);
        now.saturating_sub(self.looked.load(Ordering::Relaxed)) >= pause
    }

    fn broken(&self, stream: &Stream) -> bool {
        let until = stream.broken.load(Ordering::Relaxed);
        until != 0 && clock::now() < until
    }

    /// Charges launches that have ended, on all streams.
    fn harvest(&self) {
        let began = clock::now();
        // other threads leave it to this one
        self.looked.store(began, Ordering::Relaxed);
        let all: Vec<_> = {
            let mut streams = self.streams();
            streams.retired.retain(|stream| stream.try_lane().is_none_or(|mut lane| self.kept(stream, &mut lane)));
            streams.lanes.values().chain(&streams.retired).filter(|stream| stream.busy()).cloned().collect()
        };
        self.harvest_of(all);
        let now = clock::now();
        self.pause.store(now.saturating_sub(began).saturating_mul(PAUSE), Ordering::Relaxed);
        self.looked.store(now, Ordering::Relaxed);
    }

    fn harvest_of(&self, all: impl IntoIterator<Item = Arc<Stream>>) {
        let mut ran = Vec::new();
        for stream in all {
            // another thread that has it does the same
            let Some(mut lane) = stream.try_lane() else { continue };
            if lane.busy() && lane.harvest(&mut self.marks(&stream), &mut ran).is_err() {
                drop(lane);
                self.failed(&stream, SUCCESS);
            }
        }
        self.book(ran);
    }

    /// Whether work of a retired stream is still to be charged; otherwise its marks are used again.
    fn kept(&self, stream: &Stream, lane: &mut Lane) -> bool {
        let busy = lane.busy();
        if !busy {
            lane.marks().into_iter().for_each(|mark| self.spare.keep(stream.context, mark));
        }
        busy
    }

    /// Charges runs, the earliest first.
    fn book(&self, mut ran: Vec<Run>) {
        let Some(device) = self.state.devices.get(self.card).filter(|_| !ran.is_empty()) else { return };
        let now = clock::now();
        ran.sort_unstable_by_key(|run| run.end);
        let mut charged = 0;
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for run in ran {
            spans.add(run.start, run.end, |start, end| charged += timeline::charge(&device.timeline, start, end));
        }
        drop(spans);
        if charged > 0 {
            device.busy.fetch_add(charged, Ordering::Relaxed);
            bucket::charge(&device.due, now, charged, self.rate(now));
        }
    }

    /// A context is gone, with its streams and events.
    pub fn forget_context(&self, context: usize) {
        let mut streams = self.streams();
        streams.lanes.retain(|_, stream| stream.context != context);
        streams.retired.retain(|stream| stream.context != context);
        self.spare.forget(context);
    }

    /// A stream is about to be destroyed: its launches are still charged.
    pub fn retire(&self, stream: Handle) {
        if stream as usize <= STREAM_PER_THREAD {
            return;
        }
        let key = Key::of(stream, || 0);
        let Some(stream) = self.streams().lanes.remove(&key) else { return };
        let rest = {
            let mut lane = stream.lane();
            stream.gone.store(true, Ordering::Relaxed);
            lane.end(clock::now())
        };
        self.streams().retired.push(stream);
        self.book(rest.into_iter().collect());
    }

    fn stream(&self, key: Key, handle: Handle) -> Arc<Stream> {
        if let Some(known) = self.streams().lanes.get(&key) {
            return Arc::clone(known);
        }
        // without the lock: it asks the driver
        let new = Arc::new(Stream::new(key, handle));
        Arc::clone(self.streams().lanes.entry(key).or_insert(new))
    }

    fn marks(&self, stream: &Stream) -> Marks<'_> {
        Marks::new(&self.spare, stream.context, stream.handle)
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
