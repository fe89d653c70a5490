//! Holding launches back, so that the container has no more of a GPU's time than it may.
//!
//! Time is measured, not guessed from the size of grids: with the driver's events around runs of launches. The measured
//! time is charged to the container's [`bucket`], overlaps once ([`timeline`]); a launch waits until the bucket is out
//! of debt. A kernel is never interrupted, so a long one is paid for afterwards.
//!
//! Between two marks on a stream there are at most [`MARK_LAUNCHES`] launches, or one long launch; only a few
//! marks are outstanding on a stream, so that a program cannot queue seconds of work before the first of it is
//! charged.

pub mod bucket;
pub mod lane;
pub mod timeline;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kerf_limiter_contract::allowance;
use kerf_limiter_contract::limits::DeviceLimits;
use kerf_limiter_contract::state::State;

use crate::abi::{Handle, STREAM_PER_THREAD, Status};
use crate::clock;
use crate::memory::allocations::PointerHasher;
use lane::{Events, Lane};

/// The most launches between two marks.
pub const MARK_LAUNCHES: u32 = 16;
/// The most marks on a stream that have not been reached.
const AHEAD: usize = 3;
/// Launches that take longer than this get a mark each; nanoseconds.
const LONG: u64 = 20_000;
/// With launches that take longer than this, the next one waits for the last; nanoseconds.
const VERY_LONG: u64 = 5_000_000;
/// Short launches behind the last mark that are not looked at one by one where the stream may have run dry in between.
const DRY: u32 = 8;
/// For how long the driver's answer about a stream's marks is taken to hold; nanoseconds. A program that launches
/// faster than this has not let the stream run dry.
const ASK: u64 = 5_000;
/// The longest sleep before the allowance is looked at again; nanoseconds.
const NAP: u64 = 100_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Kernel,
    /// A graph: many kernels, with a mark of its own.
    Graph,
}

pub struct Pacer {
    state: &'static State,
    card: usize,
    /// `vcuda-core` in millionths of the GPU's time.
    floor: u32,
    allowance: Option<&'static [AtomicU64]>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    lanes: HashMap<Key, Lane, BuildHasherDefault<PointerHasher>>,
    /// Marks that can be used again, by context.
    events: HashMap<usize, Events, BuildHasherDefault<PointerHasher>>,
    /// Nanoseconds that a recent launch took, on average.
    mean: u64,
    /// When the driver was last asked about marks.
    asked: u64,
}

/// One stream of one context; the default stream of a thread also by thread.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    context: usize,
    stream: usize,
    thread: u64,
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
        Self { state, card, floor, allowance, inner: Mutex::default() }
    }

    /// The part of wall time in which kernels may run now, in millionths.
    fn rate(&self, now: u64) -> u32 {
        let entry = self.allowance.and_then(|entries| entries.get(self.card));
        entry.and_then(|e| allowance::read(e.load(Ordering::Relaxed), now)).unwrap_or(self.floor)
    }

    /// Whether kernels on this GPU are ever held back.
    pub fn paces(&self) -> bool {
        self.floor != allowance::WHOLE
    }

    /// Launches `work` on a stream, as soon as it may.
    pub fn launch(
        &self,
        capturing: bool,
        context: impl FnOnce() -> usize,
        stream: Handle,
        work: Work,
        call: impl FnOnce() -> Status,
    ) -> Status {
        let now = clock::now();
        if self.rate(now) == allowance::WHOLE {
            return call();
        }
        self.wait(now);
        let key = Key::of(context(), stream);
        if capturing && stream as usize <= STREAM_PER_THREAD {
            // a mark on this stream would break the capture; the host sees how much it uses
            self.state.header.flags.fetch_or(kerf_limiter_contract::state::Flags::UNMEASURED.0, Ordering::Relaxed);
            return call();
        }
        let _relaxed = capturing.then(lane::Relaxed::enter);
        self.before(key, stream, now);
        let status = call();
        self.after(key, stream, work);
        status
    }

    /// Before the program waits for a stream, or for all (`None`): marks launches that have no mark yet.
    pub fn close(&self, context: usize, stream: Option<Handle>) {
        let only = stream.map(|s| Key::of(context, s));
        let mut inner = self.inner();
        let Inner { lanes, events, .. } = &mut *inner;
        for (key, lane) in lanes.iter_mut() {
            if key.context == context && key.own_thread() && only.is_none_or(|k| k == *key) && lane.open() {
                lane.mark(events.entry(context).or_default(), key.stream as Handle);
            }
        }
    }

    /// After the program has waited: charges launches that have ended.
    pub fn harvest(&self) {
        self.charge(&mut self.inner());
    }

    /// A context is gone, with its streams and events.
    pub fn forget_context(&self, context: usize) {
        let mut inner = self.inner();
        inner.lanes.retain(|key, _| key.context != context);
        inner.events.remove(&context);
    }

    /// A stream is about to be destroyed: its launches are still charged.
    pub fn retire(&self, context: usize, stream: Handle) {
        let key = Key::of(context, stream);
        let mut inner = self.inner();
        let Inner { lanes, events, .. } = &mut *inner;
        let Some(mut lane) = lanes.remove(&key) else { return };
        if lane.open() {
            lane.mark(events.entry(context).or_default(), stream);
        }
        // no stream has an odd handle of this kind, so nothing is launched on it
        let mut retired = Key { stream: key.stream | 1, ..key };
        while lanes.contains_key(&retired) {
            retired.thread += 1;
        }
        lanes.insert(retired, lane);
    }

    /// Sleeps while the container is in debt.
    fn wait(&self, mut now: u64) {
        let Some(device) = self.state.devices.get(self.card) else { return };
        let began = now;
        loop {
            let due = bucket::due(&device.due, now);
            if due <= now {
                break;
            }
            // ended launches are charged before more are let through
            self.harvest();
            let due = bucket::due(&device.due, now);
            clock::sleep_until(due.min(now + NAP));
            now = clock::now();
        }
        if now > began {
            device.waited.fetch_add(now - began, Ordering::Relaxed);
        }
    }

    fn before(&self, key: Key, stream: Handle, now: u64) {
        let mut front = None;
        loop {
            let mut inner = self.inner();
            let recent = now.saturating_sub(inner.asked) < ASK;
            let short = (1..LONG).contains(&inner.mean);
            let known = |lane: &Lane| match lane.outstanding() {
                0 => short && (1..DRY).contains(&lane.unmarked()),
                ahead => recent && (short || inner.mean < VERY_LONG) && ahead < AHEAD,
            };
            if front.is_none() && inner.lanes.get(&key).is_some_and(known) {
                return;
            }
            inner.asked = now;
            self.charge(&mut inner);
            let ahead = if inner.mean >= VERY_LONG { 1 } else { AHEAD };
            let mean = inner.mean;
            let Inner { lanes, events, .. } = &mut *inner;
            let lane = lanes.entry(key).or_default();
            if lane.outstanding() >= ahead {
                // not under the lock: other streams go on
                front = lane.front().filter(|f| front != Some(*f));
                if let Some(event) = front {
                    drop(inner);
                    lane::wait_for(event);
                    self.harvest();
                    self.wait(clock::now());
                    continue;
                }
            }
            let events = events.entry(key.context).or_default();
            if let Some(ran) = lane.resume(events, stream, mean) {
                drop(inner);
                self.book(ran);
                // its cost is waited for now, and not as a part of the run that begins
                self.wait(clock::now());
                continue;
            }
            return;
        }
    }

    fn after(&self, key: Key, stream: Handle, work: Work) {
        let mut inner = self.inner();
        let long = inner.mean == 0 || inner.mean >= LONG;
        let Inner { lanes, events, .. } = &mut *inner;
        let lane = lanes.entry(key).or_default();
        lane.launched(if work == Work::Graph { MARK_LAUNCHES } else { 1 });
        // the first of a run gets its own mark: that tells how long one takes
        if long || work == Work::Graph || lane.unmarked() >= MARK_LAUNCHES || lane.fresh() {
            lane.mark(events.entry(key.context).or_default(), stream);
        }
    }

    /// Charges ended launches of all streams, earliest first.
    fn charge(&self, inner: &mut Inner) {
        let mut ran = Vec::new();
        for (key, lane) in &mut inner.lanes {
            lane.harvest(inner.events.entry(key.context).or_default(), &mut ran);
        }
        // retired streams that are done
        inner.lanes.retain(|key, lane| key.stream & 1 == 0 || key.stream <= STREAM_PER_THREAD || lane.busy());
        ran.sort_unstable_by_key(|r| r.end);
        for run in ran {
            let each = (run.end - run.start) / u64::from(run.launches.max(1));
            inner.mean = if inner.mean == 0 { each.max(1) } else { (inner.mean * 7 + each) / 8 };
            self.book(run);
        }
    }

    fn book(&self, run: lane::Run) {
        let Some(device) = self.state.devices.get(self.card) else { return };
        let now = clock::now();
        let charged = timeline::charge(&device.timeline, run.start, run.end);
        if charged > 0 {
            device.busy.fetch_add(charged, Ordering::Relaxed);
            bucket::charge(&device.due, now, charged, self.rate(now));
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn of(context: usize, stream: Handle) -> Self {
        let stream = stream as usize;
        let thread = if stream == STREAM_PER_THREAD { thread() } else { 0 };
        Self { context, stream, thread }
    }

    /// Whether the calling thread can reach the stream by its handle.
    fn own_thread(&self) -> bool {
        self.stream != STREAM_PER_THREAD || self.thread == thread()
    }
}

fn thread() -> u64 {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::pthread_self() as u64 }
}
