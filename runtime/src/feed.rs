//! How old the news of one kind of object is, and what keeps it away.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounter, Opts};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::failure::Failure;

/// How long each step may take. An API server that has nothing to tell sends a bookmark about once a minute, so
/// `silence` and `stale` are well above that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For one page of a list.
    pub list: Duration,
    /// From the request for a watch to the first byte of its answer.
    pub start: Duration,
    /// For the next event or bookmark of a watch: after that the connection counts as dead, and everything is listed.
    pub silence: Duration,
    /// News that is older is too old to decide by.
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

/// What is known of one watch; clones know the same.
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
    /// When it last said anything that was understood: a complete list, an event, a bookmark.
    heard: Instant,
    /// Whether there was a complete list.
    listed: bool,
    /// Since when no watch is open.
    lost: Option<Instant>,
    /// What the last attempt met with.
    failure: Option<Failure>,
}

/// A watch that is not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// For how long.
    pub age: Duration,
    /// What the last attempt met with; `None` while the first is under way.
    pub failure: Option<Failure>,
}

impl Feed {
    /// Of the objects called `kind` (`pods`). Attempts that fail are counted in `failures`.
    pub fn new(kind: &'static str, patience: Patience, failures: IntCounter) -> Self {
        let now = Instant::now();
        let inner = Inner { heard: now, listed: false, lost: Some(now), failure: None };
        Self { kind, patience, failures, inner: Arc::new(Mutex::new(inner)), changed: watch::Sender::new(()) }
    }

    /// What is watched.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// How long each step may take.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Time since it last said anything; before that, since the start.
    pub fn age(&self) -> Duration {
        self.inner.lock().heard.elapsed()
    }

    /// Whether the news is too old to decide by, and if so in words that do not change.
    pub fn stale(&self) -> Option<String> {
        let stale = self.patience.stale;
        (self.age() > stale).then(|| format!("no news for more than {} s", stale.as_secs_f64()))
    }

    /// Whether everything was listed once.
    pub fn listed(&self) -> bool {
        self.inner.lock().listed
    }

    /// Whether a watch is open, and if not since when.
    pub fn lost(&self) -> Option<Lost> {
        let inner = self.inner.lock();
        inner.lost.map(|since| Lost { age: since.elapsed(), failure: inner.failure.clone() })
    }

    /// Told whenever a watch opens, ends or fails; for those that wait for one of it.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A complete list was read.
    pub(super) fn complete(&self) {
        let mut inner = self.inner.lock();
        (inner.heard, inner.listed) = (Instant::now(), true);
    }

    /// A watch is open.
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

    /// An event or a bookmark came.
    pub(super) fn heard(&self) {
        self.inner.lock().heard = Instant::now();
    }

    /// The watch has ended, as watches do.
    pub(super) fn ended(&self) {
        self.inner.lock().lost.get_or_insert_with(Instant::now);
        self.changed.send_replace(());
    }

    /// An attempt failed. Logged when it is another failure than the one before.
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

    /// Says once when the news becomes too old, and once when it is fresh again. Never ends.
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
                // whatever is heard is heard within the steps' own deadlines
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            tracing::info!(kind, "API server reachable again");
            self.changed.send_replace(());
        }
    }
}

/// The age of the news of some feeds as a gauge, read at scrape.
pub struct Ages {
    feeds: Vec<Feed>,
    gauge: GaugeVec,
}

impl Ages {
    /// Called `name`, of these feeds by `kind`.
    ///
    /// # Errors
    /// Where the name is not legal.
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
