//! Linear memory that was freed in the order of a stream, and is of no pool. The driver does not give it back before the
//! stream is waited for the next time, as NVIDIA says of `cudaFreeAsync`
//! (<https://developer.nvidia.com/blog/using-cuda-stream-ordered-memory-allocator-part-1/>); until then it counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::abi::{Handle, STREAM_LEGACY, SUCCESS};
use crate::driver;
use crate::memory::allocations::Allocation;
use crate::memory::shared::Ticket;
use crate::pace::events::{Relaxed, captured};
use crate::pace::streams::{self, Key};

#[derive(Default)]
pub struct Leaving {
    inner: Mutex<Inner>,
    /// How many streams have any, so that most programs need not look.
    streams: AtomicUsize,
}

#[derive(Default)]
struct Inner {
    all: HashMap<Key, Vec<Numbered>>,
    next: u64,
}

/// With the number of others that were freed before it.
struct Numbered(u64, Left);

/// Memory that was freed.
pub struct Left {
    pub allocation: Allocation,
    /// Its entry of the table of shared memory.
    pub ticket: Option<Ticket>,
    /// The context of the stream.
    pub on: usize,
}

impl Leaving {
    /// Memory is freed in the order of a stream.
    pub fn add(&self, stream: Key, left: Left) {
        let mut inner = self.inner();
        let number = inner.next;
        inner.next += 1;
        inner.all.entry(stream).or_default().push(Numbered(number, left));
        self.streams.store(inner.all.len(), Ordering::Release);
    }

    /// How many were freed until now; `None` where none of them is left.
    pub fn until_now(&self) -> Option<u64> {
        (self.streams.load(Ordering::Acquire) > 0).then(|| self.inner().next)
    }

    /// A stream was waited for: what was freed on it before that.
    pub fn of_stream(&self, stream: Key, before: u64) -> Vec<(Key, Left)> {
        self.take(|key, number, _| number < before && *key == stream)
    }

    /// The streams of a context were waited for: what was freed on them before that.
    pub fn of_streams(&self, context: usize, before: u64) -> Vec<(Key, Left)> {
        self.take(|_, number, left| number < before && left.on == context)
    }

    /// A context is gone, with its memory and its streams.
    pub fn of_context(&self, context: usize) -> Vec<(Key, Left)> {
        self.take(|_, _, left| [left.on, left.allocation.context].contains(&context))
    }

    /// What was freed on streams that have nothing left to do. `context` is that of the thread.
    pub fn gone(&self, context: impl FnOnce() -> usize) -> Vec<(Key, Left)> {
        let Some(before) = self.until_now() else { return Vec::new() };
        let (context, own) = (context(), streams::thread());
        let known: Vec<Key> = self.inner().all.keys().copied().collect();
        // without the lock: it asks the driver
        let done = known.into_iter().filter(|key| key.handle(context, own).is_some_and(is_done));
        let done: Vec<Key> = done.collect();
        self.take(|key, number, _| number < before && done.contains(key))
    }

    /// A stream is about to be destroyed. Its work goes on, and cannot be asked for by its handle.
    pub fn without(&self, stream: Handle) {
        if self.until_now().is_none() {
            return;
        }
        let mut inner = self.inner();
        for left in inner.all.remove(&Key::of(stream, || 0)).into_iter().flatten() {
            let key = Key::of(STREAM_LEGACY as Handle, || left.1.on);
            inner.all.entry(key).or_default().push(left);
        }
        self.streams.store(inner.all.len(), Ordering::Release);
    }

    fn take(&self, which: impl Fn(&Key, u64, &Left) -> bool) -> Vec<(Key, Left)> {
        if self.until_now().is_none() {
            return Vec::new();
        }
        let mut inner = self.inner();
        let mut gone = Vec::new();
        inner.all.retain(|key, all| {
            let taken = all.extract_if(.., |Numbered(number, left)| which(key, *number, left));
            gone.extend(taken.map(|Numbered(_, left)| (*key, left)));
            !all.is_empty()
        });
        self.streams.store(inner.all.len(), Ordering::Release);
        gone
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a stream that has nothing left to do, so that the driver gives back what was freed on it.
fn is_done(stream: Handle) -> bool {
    let _relaxed = Relaxed::enter();
    if captured(stream) != Some(false) {
        return false;
    }
    // SAFETY: the stream is the program's, and was not destroyed.
    unsafe { driver::cuStreamQuery(stream) == SUCCESS && driver::cuStreamSynchronize(stream) == SUCCESS }
}
