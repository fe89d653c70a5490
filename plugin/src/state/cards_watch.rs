//! Waiting for news of cards, for whoever tells others of them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::device::cards::Cards;
use crate::state::State;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

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

/// How long to wait before something that failed is tried again: longer each time, up to a bound.
#[derive(Debug)]
pub struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pause {
    /// How long it is to wait next.
    pub fn now(&self) -> Duration {
        self.0
    }

    /// It failed.
    pub fn longer(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(LONGEST_PAUSE);
        now
    }

    /// It succeeded.
    pub fn end(&mut self) {
        *self = Self::default();
    }
}
