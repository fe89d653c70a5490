//! Writes the condition and the events.

use std::collections::VecDeque;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::client::{Cluster, ClusterError, Condition};
use crate::base::backoff::Backoff;
use crate::base::counters::Counters;
use crate::publish::condition::{Tiding, Verdict};
use crate::state::State;
use crate::state::cards_watch::News;

/// The condition is written again this often, as a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// Events that the API server did not take are tried again, so many of them.
const PENDING: usize = 16;

/// What the Node was told.
#[derive(Default)]
struct Told {
    /// Whether what it shows from an earlier life was read.
    asked: bool,
    verdict: Option<Verdict>,
    condition: Option<Condition>,
    written: Option<Instant>,
    pending: VecDeque<(String, Tiding)>,
}

/// Keeps the condition `kind` of the Node and tells its changes until `token` is cancelled, at most one every `period`.
pub async fn follow(
    cluster: Cluster,
    kind: String,
    state: State,
    counters: Counters,
    period: Duration,
    token: CancellationToken,
) {
    let mut news = News::of([&state]);
    let (mut told, mut pause, mut trouble) = (Told::default(), Backoff::of_api_server(), None);
    loop {
        let cards = news.cards();
        let foreign = state.allocations(|allocations| allocations.other_domain().map(ToString::to_string));
        let verdict = cards.first().and_then(|cards| Verdict::of(cards)).map(|verdict| verdict.withheld(foreign));
        let result = match verdict {
            Some(verdict) => told.tell(&cluster, &kind, verdict, &counters).await,
            None => Ok(false),
        };
        let (quiet, most) = match result {
            Ok(wrote) => {
                pause.reset();
                trouble = None;
                (if wrote { period } else { Duration::ZERO }, told.rest().max(period))
            }
            Err(error) => {
                counters.api_errors.with_label_values(&["node"]).inc();
                let text = error.to_string();
                if trouble.as_ref() != Some(&text) {
                    tracing::warn!(condition = kind, %error, "health not told to the Node; trying again");
                    trouble = Some(text);
                }
                // who may not write is asked again now and then: rights come while the plugin runs
                let wait = if error.refused() { HEARTBEAT } else { pause.failed() };
                (wait.min(period), wait)
            }
        };
        if !news.next(quiet, most, &token).await {
            return;
        }
    }
}

impl Told {
    /// Until the next sign of life.
    fn rest(&self) -> Duration {
        self.written.map_or(HEARTBEAT, |at| HEARTBEAT.saturating_sub(at.elapsed()))
    }

    /// Says whether something was written.
    async fn tell(
        &mut self,
        cluster: &Cluster,
        kind: &str,
        verdict: Verdict,
        counters: &Counters,
    ) -> Result<bool, ClusterError> {
        if !self.asked {
            self.condition = cluster.condition(kind).await?;
            self.asked = true;
        }
        let now = Timestamp::now();
        if self.verdict.as_ref() != Some(&verdict) {
            let tidings = match &self.verdict {
                Some(before) => verdict.since(before),
                None => {
                    let shown = self.condition.as_ref();
                    verdict.at_start(shown.map(|shown| (shown.status, shown.message.as_str())))
                }
            };
            for (at, tiding) in tidings.into_iter().enumerate() {
                tracing::debug!(
                    condition = kind,
                    reason = tiding.reason,
                    message = tiding.message,
                    "health changed"
                );
                // the same name for every try: what was written without an answer is not written again
                let name = format!("{}-{:x}-{at}", kind.to_ascii_lowercase(), now.as_nanosecond());
                self.pending.push_back((name, tiding));
            }
            while self.pending.len() > PENDING {
                self.pending.pop_front();
            }
        }
        let events = self.send(cluster, counters).await;
        let status = if verdict.healthy() { "True" } else { "False" };
        let before = self.condition.as_ref();
        let since = before.filter(|before| before.status == status).map_or(now, |before| before.since);
        let condition =
            Condition { status, reason: verdict.reason().to_owned(), message: verdict.message(), since };
        self.verdict = Some(verdict);
        let due = self.written.is_none_or(|at| at.elapsed() >= HEARTBEAT);
        let wrote = due || self.condition.as_ref() != Some(&condition);
        if wrote {
            cluster.set_condition(kind, &condition, now).await?;
            self.condition = Some(condition);
            self.written = Some(Instant::now());
        }
        events.map(|()| wrote)
    }

    /// Sends the events that are left, in order. One that is refused is given up on; the condition says the same.
    async fn send(&mut self, cluster: &Cluster, counters: &Counters) -> Result<(), ClusterError> {
        while let Some((name, tiding)) = self.pending.front() {
            match cluster.node_event(name, tiding).await {
                Ok(()) => {}
                Err(error) if error.refused() => {
                    counters.api_errors.with_label_values(&["event"]).inc();
                    tracing::warn!(%error, reason = tiding.reason, "event about the Node refused");
                }
                Err(error) => return Err(error),
            }
            self.pending.pop_front();
        }
        Ok(())
    }
}
