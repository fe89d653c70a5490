//! State that all requests share.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fault::Faults;
use super::lag::Lag;
use super::resource::Resource;
use super::store::Store;
use super::tally::Tally;

/// Limits that tests may change.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Changes per kind that watches can still read; older versions are answered with 410.
    pub history: usize,
    /// How often a watch that allows bookmarks gets one.
    pub bookmark_every: Duration,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { history: 10_000, bookmark_every: Duration::from_secs(5) }
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    store: Mutex<Store>,
    changed: HashMap<Resource, watch::Sender<u64>>,
    pub(crate) any_change: watch::Sender<u64>,
    pub(crate) lag: Lag,
    pub(crate) breaks: watch::Sender<u64>,
    pub(crate) silent: watch::Sender<bool>,
    pub(crate) paused: watch::Sender<bool>,
    pub(crate) faults: Faults,
    pub(crate) tally: Tally,
    pub(crate) closing: CancellationToken,
    pub(crate) version: Mutex<String>,
    /// What pods answer through the proxy, by path.
    pub(crate) proxied: Mutex<HashMap<String, String>>,
    pub(crate) config: ApiConfig,
}

impl Inner {
    pub(crate) fn new(config: ApiConfig) -> Self {
        Self {
            store: Mutex::new(Store::new(config.history)),
            changed: Resource::ALL.into_iter().map(|resource| (resource, watch::Sender::new(0))).collect(),
            any_change: watch::Sender::new(0),
            lag: Lag::new(),
            breaks: watch::Sender::new(0),
            silent: watch::Sender::new(false),
            paused: watch::Sender::new(false),
            faults: Faults::default(),
            tally: Tally::default(),
            closing: CancellationToken::new(),
            proxied: Mutex::default(),
            version: Mutex::new("v1.36.0-testkit".to_owned()),
            config,
        }
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest version of one kind.
    pub(crate) fn changes(&self, resource: Resource) -> watch::Receiver<u64> {
        self.changed.get(&resource).map_or_else(|| self.any_change.subscribe(), watch::Sender::subscribe)
    }

    /// Runs `act` on the store, and wakes the watches if it changed anything.
    pub(crate) fn change<T>(&self, resource: Resource, act: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store();
        let before = store.rv();
        let result = act(&mut store);
        let after = store.rv();
        drop(store);
        if before != after {
            let raise = |rv: &mut u64| *rv = (*rv).max(after);
            if let Some(changed) = self.changed.get(&resource) {
                changed.send_modify(raise);
            }
            self.any_change.send_modify(raise);
        }
        result
    }
}
