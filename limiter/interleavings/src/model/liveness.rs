//! Who lives is given.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use kerf_limiter_contract::state::State;

use super::shared;

#[derive(Clone, Debug, Default)]
pub struct Liveness {
    /// The entry of a process that has ended once this is set.
    ends: Option<(usize, Arc<AtomicBool>)>,
}

impl Liveness {
    pub fn of_the_dead(slot: usize) -> Self {
        Self { ends: Some((slot, Arc::new(AtomicBool::new(true)))) }
    }

    pub fn of_one_that_may_end(slot: usize) -> Self {
        Self { ends: Some((slot, Arc::default())) }
    }

    pub fn end(&self) {
        self.ends.iter().for_each(|(_, over)| over.store(true, SeqCst));
    }

    /// In the order of the limiter's own.
    pub fn reap(&self, state: &State) -> bool {
        let Some((slot, _)) = self.ends.as_ref().filter(|(_, over)| over.load(SeqCst)) else { return false };
        shared::leave(state, *slot);
        state.devices[0].held[*slot].store(0, SeqCst);
        state.devices[0].taken[*slot].store(0, SeqCst);
        state.processes[*slot].owner.store(0, SeqCst);
        true
    }
}
