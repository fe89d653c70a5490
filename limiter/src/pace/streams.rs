//! The streams that a process launches on.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::events;
use super::lane::Lane;
use crate::abi::{Handle, STREAM_LEGACY, STREAM_PER_THREAD};
use crate::clock;
use crate::memory::allocations::PointerHasher;

#[derive(Default)]
pub struct Streams {
    pub lanes: HashMap<Key, Arc<Stream>, BuildHasherDefault<PointerHasher>>,
    /// Streams that were destroyed, with work that is not charged yet. Nothing is recorded on them.
    pub retired: Vec<Arc<Stream>>,
}

pub struct Stream {
    pub context: usize,
    pub handle: usize,
    /// Launches that are not looked at before the next that is. Changed while all streams are locked.
    left: AtomicU32,
    state: Mutex<State>,
    /// Not measured before this moment.
    pub broken: AtomicU64,
    /// Destroyed, or about to be; set while the lane is locked.
    pub gone: AtomicBool,
    /// Whether the lane was busy when it was locked last.
    busy: AtomicBool,
}

/// Not locked while the driver launches, and never that of two streams at once.
struct State {
    lane: Lane,
    /// The number of launches left that the lane knows of.
    known: u32,
}

/// A stream that was created, by its handle; a special one by context, the default one of a thread by thread as well.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    stream: usize,
    context: usize,
    pub thread: u64,
}

/// A stream's lane, which has counted all launches.
pub struct Locked<'a>(MutexGuard<'a, State>, &'a AtomicBool);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.1.store(self.0.lane.busy(), Relaxed);
    }
}

impl std::ops::Deref for Locked<'_> {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        &self.0.lane
    }
}

impl std::ops::DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Lane {
        &mut self.0.lane
    }
}

impl Streams {
    /// Counts a launch on a stream that is not looked at; false where it is to be.
    pub fn pass(&self, key: Key) -> bool {
        let Some(stream) = self.lanes.get(&key) else { return false };
        let left = stream.left.load(Relaxed);
        stream.left.store(left.saturating_sub(1), Relaxed);
        left > 0
    }

    /// Lets so many launches pass from now on.
    pub fn let_pass(&self, stream: &Stream, launches: u32) {
        let mut state = stream.state.lock().unwrap_or_else(PoisonError::into_inner);
        stream.count(&mut state);
        stream.left.store(launches, Relaxed);
        state.known = launches;
    }
}

impl Stream {
    pub fn new(key: Key, handle: Handle) -> Self {
        let context = if key.context == 0 { events::context_of(handle) } else { key.context };
        let state = State { lane: Self::fresh(handle as usize), known: 0 };
        Self {
            context,
            handle: handle as usize,
            left: AtomicU32::new(0),
            state: Mutex::new(state),
            broken: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            busy: AtomicBool::new(false),
        }
    }

    pub fn fresh(handle: usize) -> Lane {
        Lane::new(clock::now() ^ handle as u64)
    }

    pub fn lane(&self) -> Locked<'_> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.count(&mut state);
        Locked(state, &self.busy)
    }

    /// `None` while another thread has it.
    pub fn try_lane(&self) -> Option<Locked<'_>> {
        let mut state = self.state.try_lock().ok()?;
        self.count(&mut state);
        Some(Locked(state, &self.busy))
    }

    /// Whether there are marks that were not reached; while the lane is locked, as it was before.
    pub fn busy(&self) -> bool {
        self.busy.load(Relaxed)
    }

    fn count(&self, state: &mut State) {
        let left = self.left.load(Relaxed);
        state.lane.passed(state.known.saturating_sub(left));
        state.known = left;
    }
}

impl Key {
    /// `context` is that of the thread.
    pub fn of(stream: Handle, context: impl FnOnce() -> usize) -> Self {
        match stream as usize {
            0 | STREAM_LEGACY => Self { stream: STREAM_LEGACY, context: context(), thread: 0 },
            STREAM_PER_THREAD => Self { stream: STREAM_PER_THREAD, context: context(), thread: thread() },
            stream => Self { stream, context: 0, thread: 0 },
        }
    }

    /// The stream for a thread in a context; `None` where it cannot name it.
    pub fn handle(&self, context: usize, thread: u64) -> Option<Handle> {
        let here = [0, context].contains(&self.context) && [0, thread].contains(&self.thread);
        here.then_some(self.stream as Handle)
    }
}

pub fn thread() -> u64 {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::pthread_self() as u64 }
}
