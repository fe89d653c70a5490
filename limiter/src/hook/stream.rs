//! Streams: waiting for them, destroying them, and whether they are captured.

use std::ptr;

use crate::abi::{Handle, STREAM_PER_THREAD, SUCCESS, Status, check};
use crate::clock;
use crate::driver;
use crate::pace::events::captured;
use crate::pace::streams::Key;
use crate::process;

/// The stream that a handle means to a function for per-thread default streams: 0 is the calling thread's.
pub fn per_thread(stream: Handle) -> Handle {
    if stream.is_null() { STREAM_PER_THREAD as Handle } else { stream }
}

/// The graph that a stream is captured into.
pub(crate) fn graph_of(stream: Handle) -> Option<usize> {
    if captured(stream) != Some(true) {
        return None;
    }
    let (mut status, mut id, mut graph) = (0, 0, ptr::null_mut());
    // SAFETY: the stream is the program's, the pointers are to locals, and null is allowed for the others.
    let answer = unsafe {
        driver::cuStreamGetCaptureInfo_v2(
            stream,
            &raw mut status,
            &raw mut id,
            &raw mut graph,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    (answer == SUCCESS && status != 0).then_some(graph as usize)
}

/// What a program waits for.
pub enum For {
    Stream(Handle),
    Event,
    /// All work of the context.
    Context,
}

/// The program has waited: what has ended is charged, and pools may have shrunk.
pub unsafe fn wait(call: impl FnOnce() -> Status, what: For) -> Result<(), Status> {
    let process = process::current()?;
    let (began, freed) = (clock::now(), process.leaving.until_now());
    check(call())?;
    if let Some(card) = process.cards.here().and_then(|card| process.cards.get(card))
        && card.pacer.paces()
    {
        let stream = if let For::Stream(stream) = what { Some(stream) } else { None };
        card.pacer.waited(stream, || process.context(), clock::now().saturating_sub(began));
    }
    process.pools.settle(process);
    if let Some(freed) = freed {
        process.left(match what {
            For::Stream(stream) => process.leaving.of_stream(Key::of(stream, || process.context()), freed),
            For::Context => process.leaving.of_streams(process.context(), freed),
            For::Event => process.leaving.gone(|| process.context()),
        });
    }
    Ok(())
}

/// Whatever context the thread is in: the stream may be on any GPU.
pub unsafe fn destroy(call: impl FnOnce() -> Status, stream: Handle) -> Result<(), Status> {
    let process = process::current()?;
    for card in process.cards.all().iter().filter(|card| card.pacer.paces()) {
        card.pacer.retire(stream);
    }
    process.leaving.without(stream);
    check(call())
}
