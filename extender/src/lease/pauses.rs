//! Whether the process was stopped: what it knows was true before.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Longer than a process that is not stopped goes without running.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// `T`: what was known when a pause began.
#[derive(Debug)]
pub(super) struct Pauses<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    /// When it was last seen to run.
    last: Instant,
    /// When the last pause was noticed, and what was known before the first, until that is confirmed.
    noticed: Option<(Instant, T)>,
}

impl<T> Pauses<T> {
    pub fn new(now: Instant) -> Self {
        Self { state: Mutex::new(State { last: now, noticed: None }) }
    }

    /// Whether there was a pause after which nothing has been confirmed yet. `known`: what is known now, from before.
    pub fn look(&self, now: Instant, known: impl FnOnce() -> T) -> bool {
        let mut state = self.state.lock();
        if now.saturating_duration_since(state.last) > PAUSE {
            let known = state.noticed.take().map_or_else(known, |(_, known)| known);
            state.noticed = Some((now, known));
        }
        state.last = state.last.max(now);
        state.noticed.is_some()
    }

    /// What was asked for at `asked` has been answered. What was known before the pause, where it has ended by that.
    pub fn confirm(&self, asked: Instant, now: Instant, known: impl FnOnce() -> T) -> Option<T> {
        self.look(now, known);
        let mut state = self.state.lock();
        let (_, known) = state.noticed.take_if(|(noticed, _)| *noticed <= asked)?;
        Some(known)
    }
}
