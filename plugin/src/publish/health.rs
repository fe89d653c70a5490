//! Writes the Node's condition on GPU health, and its events.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{About, Cluster, ClusterError, Condition, EventQueue};
use crate::base::backoff::Backoff;
use crate::base::level_triggered::{self, Next, Publisher};
use crate::publish::condition::Verdict;
use crate::state::State;
use crate::state::cards_watch::CardsWatch;

/// The condition is written again this often, as a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// At most so many events wait to be written again after the API server did not take them.
const PENDING: usize = 16;

/// Keeps the condition `kind` of the Node, with events for its changes, until `token` is cancelled; at most one
/// write every `period`.
pub async fn follow(cluster: Cluster, kind: String, state: State, period: Duration, token: CancellationToken) {
    let mut health = HealthCondition {
        cards: CardsWatch::of([&state]),
        events: EventQueue::new(PENDING),
        cluster,
        kind,
        state,
        period,
        shown_is_read: false,
        verdict: None,
        condition: None,
        written: None,
    };
    level_triggered::follow(&mut health, &token).await;
}

/// One condition of the Node, and what was written of it.
struct HealthCondition {
    cluster: Cluster,
    kind: String,
    state: State,
    cards: CardsWatch,
    period: Duration,
    /// Whether the condition left by a previous run of the plugin was read.
    shown_is_read: bool,
    verdict: Option<Verdict>,
    condition: Option<Condition>,
    written: Option<Instant>,
    events: EventQueue,
}

impl Publisher for HealthCondition {
    type Error = ClusterError;

    async fn publish(&mut self) -> Result<Next, ClusterError> {
        let cards = self.cards.cards();
        let foreign =
            self.state.allocations(|allocations| allocations.kubelet.other_domain().map(ToString::to_string));
        let verdict = cards.first().and_then(|cards| Verdict::of(cards)).map(|verdict| verdict.withheld(foreign));
        let wrote = match verdict {
            Some(verdict) => self.tell(verdict).await?,
            None => false,
        };
        let quiet = if wrote { self.period } else { Duration::ZERO };
        let next_heartbeat = self.written.map_or(HEARTBEAT, |at| HEARTBEAT.saturating_sub(at.elapsed()));
        Ok(Next { quiet, most: Some(next_heartbeat.max(self.period)) })
    }

    async fn changed(&mut self) -> bool {
        self.cards.changed().await
    }

    fn failed(&mut self, error: &ClusterError, new: bool, backoff: &mut Backoff) -> Next {
        self.cluster.failed("node");
        if new {
            tracing::warn!(condition = self.kind, %error, "health not written to the Node; trying again");
        }
        // refused writes are retried now and then: rights may be granted while the plugin runs
        let wait = if error.refused() { HEARTBEAT } else { backoff.failed() };
        Next { quiet: wait.min(self.period), most: Some(wait) }
    }
}

impl HealthCondition {
    /// Returns whether something was written.
    async fn tell(&mut self, verdict: Verdict) -> Result<bool, ClusterError> {
        if !self.shown_is_read {
            self.condition = self.cluster.condition(&self.kind).await?;
            self.shown_is_read = true;
        }
        let now = Timestamp::now();
        if self.verdict.as_ref() != Some(&verdict) {
            self.note(&verdict, now);
        }
        let events = self.events.send(&self.cluster).await;
        let status = if verdict.healthy() { "True" } else { "False" };
        let before = self.condition.as_ref();
        let since = before.filter(|before| before.status == status).map_or(now, |before| before.since);
        let condition =
            Condition { status, reason: verdict.reason().to_owned(), message: verdict.message(), since };
        self.verdict = Some(verdict);
        let due = self.written.is_none_or(|at| at.elapsed() >= HEARTBEAT);
        let wrote = due || self.condition.as_ref() != Some(&condition);
        if wrote {
            self.cluster.set_condition(&self.kind, &condition, now).await?;
            self.condition = Some(condition);
            self.written = Some(Instant::now());
        }
        events.map(|()| wrote)
    }

    /// Queues the events for a verdict that differs from the last one.
    fn note(&mut self, verdict: &Verdict, now: Timestamp) {
        let shown = self.condition.as_ref();
        let events = match &self.verdict {
            Some(before) => verdict.since(before),
            None => verdict.at_start(shown.map(|shown| (shown.status, shown.message.as_str()))),
        };
        for (at, event) in events.into_iter().enumerate() {
            tracing::debug!(
                condition = self.kind,
                reason = event.reason,
                message = event.message,
                "health changed"
            );
            let name = format!("{}-{:x}-{at}", self.kind.to_ascii_lowercase(), now.as_nanosecond());
            self.events.push(About::Node(name), event);
        }
    }
}
