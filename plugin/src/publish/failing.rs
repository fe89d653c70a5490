//! A condition of the Node that says whether containers fail here for reasons of the node's own: limits that cannot be
//! written, shares that are not enforced as was announced, cards that are not there. The extender tries such a node last,
//! so that replacements of the pods that failed do not follow them.
//!
//! It is written when the first one fails, and taken back when none has failed for a while. A node where nothing failed
//! has no such condition.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kerf::k8s::ALLOCATIONS_SUCCEED;
use tokio_util::sync::CancellationToken;

use crate::api::client::{Cluster, ClusterError, Condition};
use crate::publish::metrics::Counters;
use crate::state::cards_watch::Pause;
use crate::state::{Failed, State};

/// After so long without another one, a failure is over.
pub const MEMORY: Duration = Duration::from_secs(60);
/// So much of a reason is told.
const SHOWN: usize = 512;

/// Keeps the condition current until `token` is cancelled. A failure is over `memory` after the last one.
pub async fn follow(
    cluster: Cluster,
    state: State,
    memory: Duration,
    counters: Counters,
    token: CancellationToken,
) {
    let mut failures = state.watch_failures();
    let (mut writer, mut pause) = (Writer { cluster, failing: None }, Pause::default());
    loop {
        let last = failures.borrow_and_update().clone().filter(|failed| failed.at.elapsed() < memory);
        let wait = match writer.keep(last.as_deref(), memory).await {
            Ok(()) => {
                pause.end();
                last.map(|failed| memory.saturating_sub(failed.at.elapsed()))
            }
            Err(error) => {
                counters.api_errors.with_label_values(&["node"]).inc();
                tracing::warn!(%error, "the Node is not told whether allocations fail; trying again");
                Some(pause.longer())
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            changed = failures.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
}

struct Writer {
    cluster: Cluster,
    /// Whether the Node says that they fail; `None`: it was not read.
    failing: Option<bool>,
}

impl Writer {
    async fn keep(&mut self, last: Option<&Failed>, memory: Duration) -> Result<(), ClusterError> {
        let shown = match self.failing {
            Some(shown) => shown,
            // what an earlier life wrote ends with it
            None => self.cluster.condition(ALLOCATIONS_SUCCEED).await?.is_some_and(|c| c.status == "False"),
        };
        self.failing = Some(shown);
        let condition = match last {
            Some(failed) if !shown => {
                let reason: String = failed.reason.chars().take(SHOWN).collect();
                tracing::error!(reason, "containers fail for reasons of this node; it is tried last for a while");
                ("False", "AllocationsFail", reason)
            }
            None if shown => {
                tracing::info!("containers do not fail any more");
                let seconds = memory.as_secs();
                ("True", "AllocationsSucceed", format!("nothing has failed for {seconds} s"))
            }
            _ => return Ok(()),
        };
        let now = Timestamp::now();
        let (status, reason, message) = condition;
        let condition = Condition { status, reason: reason.to_owned(), message, since: now };
        self.cluster.set_condition(ALLOCATIONS_SUCCEED, &condition, now).await?;
        self.failing = Some(last.is_some());
        Ok(())
    }
}
