//! How old the news of one kind of object is, and why.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounter, Opts};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::failure::Failure;

/// Time limits of each step. An API server without events sends a bookmark about once a minute, so `silence` and
/// `stale` are far above that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For one page of a list.
    pub list: Duration,
    /// From the request for a watch to the first byte of its answer.
    pub start: Duration,
    /// For the next event or bookmark of a watch: after that the connection counts as dead, and everything is listed
    /// again.
    pub silence: Duration,
    /// Older news is too old to decide by.
    pub stale: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            list: Duration::from_secs(20),
            start: Duration::from_secs(10),
            silence: Duration::from_secs(90),
            stale: Duration::from_secs(150),
        }
    }
}

/// The state of one watch, shared by all clones.
#[derive(Clone, Debug)]
pub struct Feed {
    kind: &'static str,
    patience: Patience,
    failures: IntCounter,
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    /// Time of the last complete list, event or bookmark that could be parsed.
    heard: Instant,
    listed: bool,
    /// Since when no watch is open.
    lost: Option<Instant>,
    failure: Option<Failure>,
}

/// A watch that is not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Time since it was open.
    pub age: Duration,
    /// The failure of the last attempt; `None` during the first.
    pub failure: Option<Failure>,
}

impl Feed {
    /// For the objects called `kind` (such as `pods`). Failed attempts are counted in `failures`.
    pub fn new(kind: &'static str, patience: Patience, failures: IntCounter) -> Self {
        let now = Instant::now();
        let inner = Inner { heard: now, listed: false, lost: Some(now), failure: None };
        Self { kind, patience, failures, inner: Arc::new(Mutex::new(inner)), changed: watch::Sender::new(()) }
    }

    /// The kind of object, such as `pods`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Its time limits.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Time since the last list, event or bookmark; before the first, since the start.
    pub fn age(&self) -> Duration {
        self.inner.lock().heard.elapsed()
    }

    /// `Some` where the news is too old to decide by, with a text that does not change.
    pub fn stale(&self) -> Option<String> {
        let stale = self.patience.stale;
        (self.age() > stale).then(|| format!("no news for more than {} s", stale.as_secs_f64()))
    }

    /// Whether there was a complete list.
    pub fn listed(&self) -> bool {
        self.inner.lock().listed
    }

    /// `None` while a watch is open.
    pub fn lost(&self) -> Option<Lost> {
        let inner = self.inner.lock();
        inner.lost.map(|since| Lost { age: since.elapsed(), failure: inner.failure.clone() })
    }

    /// A receiver that is notified when a watch opens, ends or fails.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn complete(&self) {
        let mut inner = self.inner.lock();
        (inner.heard, inner.listed) = (Instant::now(), true);
    }

    pub(super) fn opened(&self) {
        let failure = {
            let mut inner = self.inner.lock();
            inner.lost = None;
            inner.failure.take()
        };
        if failure.is_some() {
            tracing::info!(kind = self.kind, "watch resumed");
        }
        self.changed.send_replace(());
    }

    pub(super) fn heard(&self) {
        self.inner.lock().heard = Instant::now();
    }

    /// The watch has ended normally.
    pub(super) fn ended(&self) {
        self.inner.lock().lost.get_or_insert_with(Instant::now);
        self.changed.send_replace(());
    }

    /// An attempt failed. Logged where the failure differs from the previous one.
    pub(super) fn failed(&self, failure: Failure) {
        self.failures.inc();
        let news = {
            let mut inner = self.inner.lock();
            inner.lost.get_or_insert_with(Instant::now);
            let news = inner.failure.as_ref() != Some(&failure);
            inner.failure = Some(failure.clone());
            news
        };
        if news {
            tracing::warn!(kind = self.kind, %failure, "watch interrupted; trying again");
        }
        self.changed.send_replace(());
    }

    /// Logs once when the news becomes too old, and once when it is fresh again. Never ends.
    pub(super) async fn tell(&self) {
        let (kind, most) = (self.kind, self.patience.stale);
        let due = || self.inner.lock().heard + most;
        loop {
            let first = due();
            sleep_until(first).await;
            if due() > Instant::now() {
                continue;
            }
            tracing::error!(kind, older_than = ?most, "API server unreachable: not ready until a watch is open again");
            self.changed.send_replace(());
            while self.stale().is_some() {
                // the steps' own deadlines are far longer than this
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            tracing::info!(kind, "API server reachable again");
            self.changed.send_replace(());
        }
    }
}

/// The age of several feeds' news as a gauge, read at scrape.
pub struct Ages {
    feeds: Vec<Feed>,
    gauge: GaugeVec,
}

impl Ages {
    /// A gauge called `name`, with a label `kind` for each feed.
    ///
    /// # Errors
    /// Where the name is invalid.
    pub fn new(name: &str, feeds: impl IntoIterator<Item = Feed>) -> prometheus::Result<Self> {
        let help = "Time since the last news of this kind of object from the API server; bookmarks count.";
        let gauge = GaugeVec::new(Opts::new(name, help), &["kind"])?;
        Ok(Self { feeds: feeds.into_iter().collect(), gauge })
    }
}

impl Collector for Ages {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for feed in &self.feeds {
            self.gauge.with_label_values(&[feed.kind]).set(feed.age().as_secs_f64());
        }
        self.gauge.collect()
    }
}
