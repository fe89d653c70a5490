//! Waiting for news of cards, for whoever tells others of them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::device::cards::Cards;
use crate::state::State;

/// Changes of the cards of one or several backends.
pub struct News {
    receivers: Vec<watch::Receiver<Arc<Cards>>>,
}

impl News {
    /// Of these; what is there now counts as seen with the first [`News::cards`].
    pub fn of<'a>(states: impl IntoIterator<Item = &'a State>) -> Self {
        Self { receivers: states.into_iter().map(State::watch_cards).collect() }
    }

    /// The cards as they are now, by backend.
    pub fn cards(&mut self) -> Vec<Arc<Cards>> {
        self.receivers.iter_mut().map(|receiver| receiver.borrow_and_update().clone()).collect()
    }

    /// Waits for a change, but not before `quiet` and no longer than `most`. `false`: it is to end.
    pub async fn next(&mut self, quiet: Duration, most: Duration, token: &CancellationToken) -> bool {
        tokio::select! {
            () = token.cancelled() => return false,
            () = tokio::time::sleep(quiet.min(most)) => {}
        }
        if self.receivers.is_empty() {
            token.cancelled().await;
            return false;
        }
        let changed = select_all(self.receivers.iter_mut().map(|receiver| Box::pin(receiver.changed())));
        tokio::select! {
            () = token.cancelled() => false,
            (changed, _, _) = changed => changed.is_ok(),
            () = tokio::time::sleep(most.saturating_sub(quiet)) => true,
        }
    }
}
