//! Watches that see changes late, as they do behind a busy API server.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::resource::Resource;
use super::store::Change;

/// The prefix of the `User-Agent` of this crate's own scheduler and kubelets.
pub(crate) const STAND_IN: &str = "kerf-testkit";

/// Whose watches lag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watchers {
    /// Those of all clients.
    All,
    /// Those of all clients but this crate's scheduler and kubelets: the programs under test.
    Others,
    /// Those of this crate's scheduler and kubelets.
    StandIns,
    /// Those of clients whose `User-Agent` begins with this text.
    Agent(String),
}

impl Watchers {
    pub(crate) fn include(&self, agent: &str) -> bool {
        match self {
            Self::All => true,
            Self::Others => !agent.starts_with(STAND_IN),
            Self::StandIns => agent.starts_with(STAND_IN),
            Self::Agent(prefix) => agent.starts_with(prefix.as_str()),
        }
    }
}

#[derive(Debug)]
struct Hold {
    resource: Resource,
    watchers: Watchers,
    /// The newest version that these watches may see.
    until: u64,
}

/// Which watches lag and by how much.
#[derive(Debug)]
pub(crate) struct Lag {
    holds: Mutex<Vec<Hold>>,
    delays: Mutex<Vec<(Watchers, Duration)>>,
    changed: watch::Sender<u64>,
}

/// Whether a watcher may see a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    Now,
    At(Instant),
    Held,
}

impl Lag {
    pub(crate) fn new() -> Self {
        Self { holds: Mutex::default(), delays: Mutex::default(), changed: watch::Sender::new(0) }
    }

    pub(crate) fn hold(&self, resource: Resource, watchers: Watchers, until: u64) {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).push(Hold { resource, watchers, until });
        self.notify();
    }

    pub(crate) fn release(&self, resource: Resource) {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).retain(|hold| hold.resource != resource);
        self.notify();
    }

    /// Sets how late these watchers see changes; zero means at once.
    pub(crate) fn delay(&self, watchers: Watchers, by: Duration) {
        let mut delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
        delays.retain(|(whose, _)| *whose != watchers);
        if !by.is_zero() {
            delays.push((watchers, by));
        }
        drop(delays);
        self.notify();
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn sight(&self, resource: Resource, agent: &str, change: &Change) -> Sight {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let held = holds
            .iter()
            .any(|hold| hold.resource == resource && change.object.rv > hold.until && hold.watchers.include(agent));
        if held {
            return Sight::Held;
        }
        drop(holds);
        let delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
        let late = delays.iter().filter(|(watchers, _)| watchers.include(agent)).map(|(_, by)| *by).max();
        match late.map(|by| change.at + by) {
            Some(at) if at > Instant::now() => Sight::At(at),
            _ => Sight::Now,
        }
    }

    fn notify(&self) {
        self.changed.send_modify(|version| *version += 1);
    }
}
