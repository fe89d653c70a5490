//! Limits how often the pods are listed while kubelet waits: after a failure the next list has to wait, longer each
//! time, however many calls want one.

use std::sync::Arc;
use std::time::Duration;

use kerf_runtime::failure::Failure;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::base::backoff::Backoff;

/// A call of kubelet waits no longer for its turn: kubelet does nothing else meanwhile.
const TURN: Duration = Duration::from_secs(1);

/// Lets calls pass, unless the last one failed a moment ago. Clones are one gate.
#[derive(Clone, Debug)]
pub struct Gate {
    closed: Arc<Mutex<Option<Closed>>>,
    changed: watch::Sender<()>,
}

/// What is known since the last call failed.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Since when every call failed.
    pub since: Instant,
    /// The failure of the last call.
    pub failure: Failure,
    /// When the next call may be made.
    pub next: Instant,
    backoff: Backoff,
}

impl Default for Gate {
    fn default() -> Self {
        Self { closed: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Gate {
    /// Waits until the next call may be made, where that is soon.
    ///
    /// # Errors
    /// The last call's failure, where the next one is not due soon.
    pub async fn pass(&self) -> Result<(), Failure> {
        let Some(Closed { next, failure, .. }) = self.closed() else { return Ok(()) };
        if next > Instant::now() + TURN {
            return Err(failure);
        }
        sleep_until(next).await;
        Ok(())
    }

    /// A call was answered.
    pub fn answered(&self) {
        if self.lock().take().is_some() {
            self.changed.send_replace(());
        }
    }

    /// A call failed. Of calls that were made at the same time only the first makes the pause longer.
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

    /// Since when calls fail; `None` where they do not.
    pub fn closed(&self) -> Option<Closed> {
        self.lock().clone()
    }

    /// Notified of every change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Closed>> {
        self.closed.lock()
    }
}
