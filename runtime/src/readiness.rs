//! Readiness as a set of named conditions, each set by the part of the program that can judge it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

/// All conditions of a process. Ready when every one holds.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<Vec<Judged>>>,
    changed: watch::Sender<()>,
}

/// How a condition is judged.
#[derive(Clone)]
enum Judged {
    /// Its owner sets it.
    Told(Condition),
    /// A function is called at each check: what it lacks, if anything.
    Asked(&'static str, Arc<dyn Fn() -> Option<String> + Send + Sync>),
}

impl fmt::Debug for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Judged").field(&self.unmet()).finish()
    }
}

impl Judged {
    fn unmet(&self) -> Option<String> {
        match self {
            Self::Told(condition) => (!condition.is_met()).then(|| condition.name.to_owned()),
            Self::Asked(name, lacks) => lacks().map(|lacks| match &*lacks {
                "" => (*name).to_owned(),
                lacks => format!("{name}: {lacks}"),
            }),
        }
    }
}

/// One condition; starts as not met.
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    met: Arc<AtomicBool>,
    changed: watch::Sender<()>,
}

impl Readiness {
    /// Adds a condition; the process is not ready until it is met.
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition { name, met: Arc::default(), changed: self.changed.clone() };
        self.conditions.lock().push(Judged::Told(condition.clone()));
        condition
    }

    /// Adds a condition that is judged at each check. `lacks`: what is missing, as a text that may be empty; `None`
    /// where it holds. [`Readiness::ready`] checks again when a condition that its owner sets changes.
    pub fn check(&self, name: &'static str, lacks: impl Fn() -> Option<String> + Send + Sync + 'static) {
        let check = Judged::Asked(name, Arc::new(lacks));
        self.conditions.lock().push(check);
    }

    /// The names of the conditions that are not met, with what they lack where that is known. Empty: ready.
    pub fn unmet(&self) -> Vec<String> {
        let conditions = self.conditions.lock().clone();
        conditions.iter().filter_map(Judged::unmet).collect()
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
