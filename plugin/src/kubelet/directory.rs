//! Notices changes in kubelet's directory: by inotify, and by checking every second, since events are dropped under
//! load and do not cross every kind of mount.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, interval};

const PERIOD: Duration = Duration::from_secs(1);

/// The identity of the file at a path: another file has another identity, even under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// An inode number may be reused at once, but not within the same nanosecond.
    created: (i64, i64),
}

impl Identity {
    /// `None` where there is no file, or it cannot be seen.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        // a socket's mtime is that of its creation; its ctime changes with chmod, too
        let created = (metadata.mtime(), metadata.mtime_nsec());
        Some(Self { device: metadata.dev(), inode: metadata.ino(), created })
    }
}

/// A directory that is watched. It need not exist yet.
pub(super) struct Directory {
    events: Arc<Notify>,
    /// Stops watching when dropped.
    _watcher: Option<RecommendedWatcher>,
    ticks: Interval,
}

impl Directory {
    pub(super) fn watch(path: &Path) -> Self {
        let events = Arc::new(Notify::new());
        let notified = Arc::clone(&events);
        let watcher = notify::recommended_watcher(move |_| notified.notify_one())
            .and_then(|mut watcher| watcher.watch(path, RecursiveMode::NonRecursive).map(|()| watcher))
            .inspect_err(|error| tracing::debug!(%error, "no inotify; looking every second instead"))
            .ok();
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { events, _watcher: watcher, ticks }
    }

    /// Returns when something may have changed.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            () = self.events.notified() => {}
            _ = self.ticks.tick() => {}
        }
    }
}
