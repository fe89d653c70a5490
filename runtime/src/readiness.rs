//! Readiness as a set of named conditions, each set by the part of the program that can judge it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

/// What a condition lacks now, with its name; `None` where it holds.
type Check = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// All conditions of a process. Ready when every one holds.
#[derive(Clone, Default)]
pub struct Readiness {
    checks: Arc<Mutex<Vec<Check>>>,
    changed: watch::Sender<()>,
}

/// One condition; starts as not met.
#[derive(Clone, Debug)]
pub struct Condition {
    met: Arc<AtomicBool>,
    changed: watch::Sender<()>,
}

impl Readiness {
    /// Adds a condition, which its owner sets; the process is not ready until it is met.
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition { met: Arc::default(), changed: self.changed.clone() };
        let own = condition.clone();
        self.check(name, move || (!own.is_met()).then(String::new));
        condition
    }

    /// Adds a condition that is judged at each check. `lacks`: what is missing, as a text that may be empty; `None`
    /// where it holds. [`Readiness::ready`] checks again when a condition that its owner sets changes.
    pub fn check(&self, name: &'static str, lacks: impl Fn() -> Option<String> + Send + Sync + 'static) {
        let check = move || {
            lacks().map(|lacks| if lacks.is_empty() { name.to_owned() } else { format!("{name}: {lacks}") })
        };
        self.checks.lock().push(Arc::new(check));
    }

    /// The names of the conditions that are not met, with what they lack where that is known. Empty: ready.
    pub fn unmet(&self) -> Vec<String> {
        let checks = self.checks.lock().clone();
        checks.iter().filter_map(|check| check()).collect()
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
    /// Sets whether the condition holds.
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

    /// Whether the condition holds.
    pub fn is_met(&self) -> bool {
        self.met.load(Ordering::Acquire)
    }
}
