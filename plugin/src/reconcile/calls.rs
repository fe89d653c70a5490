//! kubelet's calls that are being answered.
//!
//! When kubelet is asked for its list it removes ended pods from its state. The ids that it has chosen for the call
//! that it makes at that moment are not yet in that state: they look free afterwards, and are given again
//! (`UpdateAllocatedDevices` and `devicesToAllocate` in kubelet's device manager). So kubelet is not asked while it
//! waits for an answer, unless the answer depends on it, and then before it has chosen ids wherever an earlier call
//! allows that.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// kubelet has noted an answer this long after it was given. Its next call may have come by then.
const NOTED: Duration = Duration::from_millis(10);

/// Counts the calls that are being answered. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Calls(watch::Sender<Open>);

#[derive(Clone, Copy, Debug, Default)]
struct Open {
    calls: usize,
    /// When the last one was answered.
    answered: Option<Instant>,
}

/// A call that is being answered, until this is dropped.
#[derive(Debug)]
pub struct Call(Calls);

impl Calls {
    pub fn begin(&self) -> Call {
        self.0.send_modify(|open| open.calls += 1);
        Call(self.clone())
    }

    /// Waits until kubelet waits for no answer and has noted the last one.
    pub async fn quiet(&self) {
        let mut open = self.0.subscribe();
        loop {
            let Open { calls, answered } = *open.borrow_and_update();
            let rest = answered.map(|at| NOTED.saturating_sub(at.elapsed())).unwrap_or_default();
            if calls == 0 && rest.is_zero() {
                return;
            }
            tokio::select! {
                changed = open.changed() => if changed.is_err() { return },
                () = sleep(rest), if calls == 0 => {}
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.0.send_modify(|open| {
            open.calls = open.calls.saturating_sub(1);
            open.answered = Some(Instant::now());
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn it_is_quiet_once_every_answer_was_noted() {
        let calls = Calls::default();
        assert!(calls.quiet().now_or_never().is_some(), "nobody has called");
        let (first, second) = (calls.begin(), calls.begin());
        drop(first);
        assert!(calls.quiet().now_or_never().is_none(), "one waits");
        drop(second);
        assert!(calls.quiet().now_or_never().is_none(), "the answer is on its way");
        let waiting = calls.quiet();
        let third = calls.begin();
        let answered = Instant::now();
        drop(third);
        waiting.await;
        assert!(answered.elapsed() >= NOTED, "the next call followed at once");
    }
}
