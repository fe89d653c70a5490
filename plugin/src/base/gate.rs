//! Limits how often the pods are listed while kubelet waits: after a failure the next list has to wait, longer each
//! time, however many calls want one.

use std::time::Duration;

use kerf_runtime::failure::Failure;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::base::backoff::Backoff;

/// A call of kubelet waits no longer for its turn: kubelet does nothing else meanwhile.
const TURN: Duration = Duration::from_secs(1);

/// Lets calls pass, unless the last one failed a moment ago. Clones are one gate.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    closed: watch::Sender<Option<Closed>>,
}

/// What is known since the last call failed.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Since when every call failed.
    since: Instant,
    /// The failure of the last call.
    failure: Failure,
    /// When the next call may be made.
    next: Instant,
    backoff: Backoff,
}

impl Gate {
    /// Waits until the next call may be made, where that is soon.
    ///
    /// # Errors
    /// The last call's failure, where the next one is not due soon.
    pub async fn pass(&self) -> Result<(), Failure> {
        let Some(Closed { next, failure, .. }) = self.closed.borrow().clone() else { return Ok(()) };
        if next > Instant::now() + TURN {
            return Err(failure);
        }
        sleep_until(next).await;
        Ok(())
    }

    /// A call was answered.
    pub fn answered(&self) {
        self.closed.send_if_modified(|closed| closed.take().is_some());
    }

    /// A call failed. Of calls that were made at the same time only the first makes the pause longer.
    pub fn failed(&self, failure: Failure) {
        let now = Instant::now();
        self.closed.send_modify(|closed| {
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
        });
    }

    /// The last failure, in words, and for how long calls fail; `None` where they do not.
    pub fn complaint(&self) -> Option<String> {
        let closed = self.closed.borrow();
        closed.as_ref().map(|closed| format!("{} for {} s", closed.failure, closed.since.elapsed().as_secs()))
    }

    /// When the next call may be made; `None` where none failed.
    pub fn due(&self) -> Option<Instant> {
        self.closed.borrow().as_ref().map(|closed| closed.next)
    }

    /// Notified of every change.
    pub fn changes(&self) -> watch::Receiver<Option<Closed>> {
        self.closed.subscribe()
    }
}
