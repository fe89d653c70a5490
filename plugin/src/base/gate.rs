//! Lists that are asked for while kubelet waits: after a failure the next one has to wait, longer each time, however
//! many calls want one.

use std::sync::Arc;
use std::time::Duration;

use kerf_runtime::failure::Failure;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::base::backoff::Backoff;

/// A call of kubelet waits so long for its turn, and no longer: kubelet does nothing else meanwhile.
const TURN: Duration = Duration::from_secs(1);

/// Lets questions pass, unless the last one failed a moment ago. Clones are one gate.
#[derive(Clone, Debug)]
pub struct Gate {
    closed: Arc<Mutex<Option<Closed>>>,
    changed: watch::Sender<()>,
}

/// What is known since the last question failed.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Since when every question failed.
    pub since: Instant,
    /// What the last one met with.
    pub failure: Failure,
    /// The next one may be asked then.
    pub next: Instant,
    backoff: Backoff,
}

impl Default for Gate {
    fn default() -> Self {
        Self { closed: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Gate {
    /// Waits until the next question may be asked, where that is soon.
    ///
    /// # Errors
    /// What the last question met with, where the next one is not due soon.
    pub async fn pass(&self) -> Result<(), Failure> {
        let Some(Closed { next, failure, .. }) = self.closed() else { return Ok(()) };
        if next > Instant::now() + TURN {
            return Err(failure);
        }
        sleep_until(next).await;
        Ok(())
    }

    /// A question was answered.
    pub fn answered(&self) {
        if self.lock().take().is_some() {
            self.changed.send_replace(());
        }
    }

    /// A question failed. Of questions that were asked at the same time only the first makes the pause longer.
    pub fn failed(&self, failure: Failure) {
        let now = Instant::now();
        let mut closed = self.lock();
        let since = closed.as_ref().map_or(now, |closed| closed.since);
        let (next, backoff) = match closed.take() {
            Some(closed) if closed.next > now => (closed.next, closed.backoff),
            before => {
                let fresh = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
                let mut backoff = before.map_or(fresh, |closed| closed.backoff);
                (now + backoff.failed(), backoff)
            }
        };
        *closed = Some(Closed { since, failure, next, backoff });
        drop(closed);
        self.changed.send_replace(());
    }

    /// Since when questions fail, if they do.
    pub fn closed(&self) -> Option<Closed> {
        self.lock().clone()
    }

    /// Told of every change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Closed>> {
        self.closed.lock()
    }
}
