//! Waiting for changes of GPUs, for the parts that publish them.

use std::sync::Arc;

use futures::future::select_all;
use tokio::sync::watch;

use crate::device::cards::Cards;
use crate::state::State;

/// The GPUs of one or several sources.
pub struct CardsWatch {
    receivers: Vec<watch::Receiver<Arc<Cards>>>,
}

impl CardsWatch {
    /// Watches these sources; their present GPUs count as seen with the first [`CardsWatch::cards`].
    pub fn of<'a>(states: impl IntoIterator<Item = &'a State>) -> Self {
        Self { receivers: states.into_iter().map(State::watch_cards).collect() }
    }

    /// The GPUs as they are now, by source.
    pub fn cards(&mut self) -> Vec<Arc<Cards>> {
        self.receivers.iter_mut().map(|receiver| receiver.borrow_and_update().clone()).collect()
    }

    /// Waits for a change; for ever where there is no source. `false`: there will be no more changes.
    pub async fn changed(&mut self) -> bool {
        if self.receivers.is_empty() {
            return std::future::pending().await;
        }
        let changed = select_all(self.receivers.iter_mut().map(|receiver| Box::pin(receiver.changed())));
        changed.await.0.is_ok()
    }
}
