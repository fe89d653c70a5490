//! A condition of the Node for containers that fail here for reasons of the node's own: limits that cannot be
//! written, shares that are not enforced as announced, missing GPUs. The extender tries such a node last, so that
//! replacements of the failed pods do not follow them.
//!
//! It is set when the first container fails, and cleared when none has failed for a while. A node where none failed
//! has no such condition.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kerf::k8s::ALLOCATIONS_SUCCEED;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{Cluster, ClusterError, Condition};
use crate::base::backoff::Backoff;
use crate::base::level_triggered::{self, Next, Publisher};
use crate::state::State;
use crate::state::sample::Failed;

/// A failure is over after so long without another one.
pub const MEMORY: Duration = Duration::from_secs(60);
/// At most so much of a reason is published.
const SHOWN: usize = 512;

/// Keeps the condition current until `token` is cancelled. A failure is over `memory` after the last one.
pub async fn follow(cluster: Cluster, state: State, memory: Duration, token: CancellationToken) {
    let mut failing = FailureCondition { cluster, failures: state.watch_failures(), memory, shown: None };
    level_triggered::follow(&mut failing, &token).await;
}

struct FailureCondition {
    cluster: Cluster,
    failures: watch::Receiver<Option<Arc<Failed>>>,
    memory: Duration,
    /// Whether the Node shows that containers fail; `None`: not read yet.
    shown: Option<bool>,
}

impl Publisher for FailureCondition {
    type Error = ClusterError;

    async fn publish(&mut self) -> Result<Next, ClusterError> {
        let last = self.failures.borrow_and_update().clone();
        let last = last.filter(|failed| failed.at.elapsed() < self.memory);
        self.write(last.as_deref()).await?;
        let most = last.map(|failed| self.memory.saturating_sub(failed.at.elapsed()));
        Ok(Next { quiet: Duration::ZERO, most })
    }

    async fn changed(&mut self) -> bool {
        self.failures.changed().await.is_ok()
    }

    fn failed(&mut self, error: &ClusterError, new: bool, backoff: &mut Backoff) -> Next {
        self.cluster.failed("node");
        if new {
            tracing::warn!(%error, "condition about failing allocations not written; trying again");
        }
        Next::within(backoff.failed())
    }
}

impl FailureCondition {
    async fn write(&mut self, last: Option<&Failed>) -> Result<(), ClusterError> {
        let shown = match self.shown {
            Some(shown) => shown,
            // a failure that a previous run published is over
            None => self.cluster.condition(ALLOCATIONS_SUCCEED).await?.is_some_and(|c| c.status == "False"),
        };
        self.shown = Some(shown);
        let (status, reason, message) = match last {
            Some(failed) if !shown => {
                let reason: String = failed.reason.chars().take(SHOWN).collect();
                tracing::error!(reason, "containers fail because of this node; it is tried last for a while");
                ("False", "AllocationsFail", reason)
            }
            None if shown => {
                tracing::info!("containers no longer fail");
                let seconds = self.memory.as_secs();
                ("True", "AllocationsSucceed", format!("nothing has failed for {seconds} s"))
            }
            _ => return Ok(()),
        };
        let now = Timestamp::now();
        let condition = Condition { status, reason: reason.to_owned(), message, since: now };
        self.cluster.set_condition(ALLOCATIONS_SUCCEED, &condition, now).await?;
        self.shown = Some(last.is_some());
        Ok(())
    }
}
