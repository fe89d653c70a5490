//! Faults that a test can inject, and how often each was hit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;

use super::lag::Watchers;

/// What happens to a request that a fault matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer with this HTTP status and do nothing.
    Status(u16),
    /// Close the connection without doing anything and without an answer.
    DropBefore,
    /// Carry out the request, then close the connection without an answer.
    DropAfter,
    /// Carry out the request, but only after this time.
    Delay(Duration),
    /// Carry out the request, but only after [`Injected::release`].
    Hold,
    /// Carry out the request, and answer only after [`Injected::release`], with the result as it was then.
    HoldAnswer,
}

/// Which requests are hit, and what happens to them.
#[derive(Clone, Debug)]
pub struct Fault {
    /// `get`, `list`, `watch`, `create`, `update`, `patch` or `delete`; `*` means any.
    pub verb: String,
    /// `pods`, `pods/binding`, `pods/status`, …; `*` means any.
    pub resource: String,
    /// Only requests for the object of this name; `None` means any.
    pub name: Option<String>,
    /// Whose requests are hit.
    pub clients: Watchers,
    /// The effect on a request that is hit.
    pub action: Action,
    /// How many requests are hit; `None` means all until the fault is removed.
    pub times: Option<u64>,
}

impl Fault {
    /// A fault for all requests of this verb and resource.
    pub fn new(verb: &str, resource: &str, action: Action) -> Self {
        Self {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            name: None,
            clients: Watchers::All,
            action,
            times: None,
        }
    }

    /// Restricts the fault to the object of one name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Restricts the fault to the requests of some clients.
    #[must_use]
    pub fn of(mut self, clients: Watchers) -> Self {
        self.clients = clients;
        self
    }

    /// Restricts the fault to the first `times` requests.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    fn matches(&self, verb: &str, resource: &str, name: &str, agent: &str) -> bool {
        let same = |pattern: &str, value: &str| pattern == "*" || pattern == value;
        same(&self.verb, verb)
            && same(&self.resource, resource)
            && self.clients.include(agent)
            && self.name.as_deref().is_none_or(|wanted| wanted == name)
    }
}

#[derive(Debug)]
struct Entry {
    fault: Fault,
    hits: watch::Sender<u64>,
    released: watch::Sender<bool>,
    parked: AtomicU64,
    removed: watch::Sender<bool>,
}

/// A fault in place: how often it was hit, and the way to end it.
#[derive(Clone, Debug)]
pub struct Injected(Arc<Entry>);

impl Injected {
    /// How many requests were hit.
    pub fn hits(&self) -> u64 {
        *self.0.hits.borrow()
    }

    /// How many requests wait for [`release`](Self::release) now.
    pub fn parked(&self) -> u64 {
        self.0.parked.load(Ordering::SeqCst)
    }

    /// Waits until this many requests were hit.
    pub async fn wait_hits(&self, hits: u64, timeout: Duration) -> anyhow::Result<()> {
        let mut seen = self.0.hits.subscribe();
        let fault = &self.0.fault;
        tokio::time::timeout(timeout, seen.wait_for(|count| *count >= hits))
            .await
            .with_context(|| format!("fault {fault:?} hit {} times in {timeout:?}, not {hits}", self.hits()))?
            .context("the API server is gone")?;
        Ok(())
    }

    /// Lets held requests go on, now and later.
    pub fn release(&self) {
        self.0.released.send_replace(true);
    }

    /// Ends the fault: it matches no more requests, and held ones go on.
    pub fn remove(&self) {
        self.0.removed.send_replace(true);
        self.release();
    }

    pub(crate) fn action(&self) -> Action {
        self.0.fault.action
    }

    pub(crate) async fn held(&self) {
        self.0.parked.fetch_add(1, Ordering::SeqCst);
        let mut released = self.0.released.subscribe();
        let _gone = released.wait_for(|released| *released).await;
        self.0.parked.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The faults in place, in the order in which they were injected.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Vec<Injected>>);

impl Faults {
    pub(crate) fn inject(&self, fault: Fault) -> Injected {
        let injected = Injected(Arc::new(Entry {
            fault,
            hits: watch::Sender::new(0),
            released: watch::Sender::new(false),
            parked: AtomicU64::new(0),
            removed: watch::Sender::new(false),
        }));
        self.lock().push(injected.clone());
        injected
    }

    pub(crate) fn clear(&self) {
        for fault in std::mem::take(&mut *self.lock()) {
            fault.remove();
        }
    }

    /// The first fault that matches and is not used up; counts the hit.
    pub(crate) fn hit(&self, verb: &str, resource: &str, name: &str, agent: &str) -> Option<Injected> {
        let mut faults = self.lock();
        faults.retain(|injected| !*injected.0.removed.borrow());
        let injected = faults.iter().find(|injected| {
            injected.0.fault.times.is_none_or(|times| injected.hits() < times)
                && injected.0.fault.matches(verb, resource, name, agent)
        })?;
        injected.0.hits.send_modify(|hits| *hits += 1);
        Some(injected.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Injected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
