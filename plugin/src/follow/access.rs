//! Whether the API server serves this plugin, and what follows where it does not.
//!
//! Without the API server it is unknown which GPU a pod was given, so an Allocate would fail the pod, and each
//! replacement as fast as it is created. So the plugin is not ready from the first failure on; after a grace period
//! it announces its devices as unhealthy, and pods wait; and as soon as a watch is open again, everything is as
//! before. A watch that goes on is enough, even where lists are refused: it shows every pod.

use std::time::Duration;

use kerf_runtime::feed::Feed;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::gate::Gate;
use crate::reconcile::Reconciler;
use crate::state::State;

/// A watch that ends normally is opened again within this time.
const REOPENING: Duration = Duration::from_secs(2);

/// What is known of the connection to the API server.
#[derive(Clone, Debug)]
pub struct Access {
    /// The watch of this node's pods.
    pub pods: Feed,
    /// The lists of this node's pods, besides the watch.
    pub lists: Gate,
    /// For so long, devices stay announced as healthy.
    pub grace: Duration,
}

impl Access {
    /// What prevents pods from being served, in words: empty before the first list; `None` where nothing does.
    pub fn lacks(&self) -> Option<String> {
        if let Some(lost) = self.pods.lost() {
            let seconds = lost.age.as_secs();
            return match lost.failure {
                Some(failure) => Some(format!("{failure} for {seconds} s")),
                None if !self.pods.listed() => Some(String::new()),
                None => (lost.age > REOPENING).then(|| format!("no answer for {seconds} s")),
            };
        }
        self.pods.stale().or_else(|| self.lists.complaint())
    }

    /// When the devices are to be withdrawn, unless a watch opens before; `None` while one is open.
    fn due(&self) -> Option<Instant> {
        let lost = self.pods.lost()?;
        Some(Instant::now() + self.grace.saturating_sub(lost.age))
    }

    /// Withdraws the devices and offers them again, and retries failed lists now and then, until `token` is
    /// cancelled.
    pub async fn follow(self, state: State, reconciler: Reconciler, token: CancellationToken) {
        let (mut pods, mut lists) = (self.pods.changes(), self.lists.changes());
        loop {
            pods.borrow_and_update();
            lists.borrow_and_update();
            let due = self.due();
            let withdraw = due.is_some_and(|due| due <= Instant::now());
            if state.withdraw(withdraw) {
                match self.lacks() {
                    Some(lacks) if withdraw => {
                        tracing::error!(
                            reason = lacks,
                            "devices are reported unhealthy until the API server answers again"
                        );
                    }
                    _ => tracing::info!("the API server answers again; devices are reported with their own health"),
                }
            }
            // while the watch is lost, it is the watch that retries
            let probe = self.lists.due().filter(|_| due.is_none());
            let wake = due.filter(|_| !withdraw).into_iter().chain(probe).min();
            tokio::select! {
                () = token.cancelled() => return,
                _ = pods.changed() => {}
                _ = lists.changed() => {}
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    if probe.is_some_and(|probe| probe <= Instant::now()) {
                        let _ = reconciler.refresh().await;
                    }
                }
            }
        }
    }
}
