//! Readiness as a set of named conditions, each owned by the part of the program that can judge it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// All conditions of a process. Ready when every one holds.
#[derive(Clone, Debug)]
pub struct Readiness {
    conditions: Arc<Mutex<Vec<Condition>>>,
    changed: watch::Sender<()>,
}

/// One condition; starts as not met.
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    met: Arc<AtomicBool>,
    changed: watch::Sender<()>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { conditions: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Readiness {
    /// Adds a condition; the process is not ready until it is met.
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition { name, met: Arc::default(), changed: self.changed.clone() };
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).push(condition.clone());
        condition
    }

    /// Names of the conditions that are not met. Empty: ready.
    pub fn unmet(&self) -> Vec<&'static str> {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.iter().filter(|condition| !condition.is_met()).map(|condition| condition.name).collect()
    }

    /// Waits until every condition holds.
    pub async fn ready(&self) {
        let mut changes = self.changed.subscribe();
        while !self.unmet().is_empty() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Condition {
    /// Says whether the condition holds now.
    pub fn set(&self, met: bool) {
        self.met.store(met, Ordering::Release);
        self.changed.send_replace(());
    }

    /// Waits until the condition holds.
    pub async fn met(&self) {
        let mut changes = self.changed.subscribe();
        while !self.is_met() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether the condition holds now.
    pub fn is_met(&self) -> bool {
        self.met.load(Ordering::Acquire)
    }
}
