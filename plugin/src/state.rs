//! What the parts of the plugin share. Locks are private to this file, never held across an await, and methods
//! return owned values.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::backend::{BackendError, HostDevice, Usage};
use crate::claim::Claims;
use crate::inventory::Cards;
use crate::watchdog::Breaches;
use kerf::device::Health;
use kerf::ids::DeviceId;
use kerf::isolation::Isolation;
use std::collections::BTreeMap;

/// The plugin's memory. A cheap clone of one shared thing.
#[derive(Clone, Debug)]
pub struct State {
    claims: Arc<Mutex<Claims>>,
    cards: watch::Sender<Arc<Cards>>,
    sample: watch::Sender<Arc<Sample>>,
    breaches: Arc<Mutex<Arc<Breaches>>>,
    doubt: Arc<Notify>,
    repeats: watch::Sender<()>,
}

/// The last measurement.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// What cards and processes did; empty where the driver does not answer.
    pub usage: Usage,
    /// Where each process runs; in the order of `usage.processes`.
    pub owners: Vec<Option<crate::cgroup::Owner>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            claims: Arc::default(),
            cards: watch::Sender::new(Arc::default()),
            sample: watch::Sender::new(Arc::default()),
            breaches: Arc::default(),
            doubt: Arc::default(),
            repeats: watch::Sender::new(()),
        }
    }
}

impl State {
    /// Does something with the claims; short and without waiting.
    pub fn claims<T>(&self, act: impl FnOnce(&mut Claims) -> T) -> T {
        let mut claims: MutexGuard<'_, Claims> = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut claims)
    }

    /// The cards as they are now.
    pub fn cards(&self) -> Arc<Cards> {
        self.cards.borrow().clone()
    }

    /// Follows the cards; the current ones count as not seen.
    pub fn watch_cards(&self) -> watch::Receiver<Arc<Cards>> {
        let mut receiver = self.cards.subscribe();
        receiver.mark_changed();
        receiver
    }

    /// Takes what a discovery found.
    pub fn discovered(&self, found: Vec<HostDevice>) {
        self.set_cards(self.cards().discovered(found));
    }

    /// Takes what the driver says of the cards' health; where it says nothing, none is healthy.
    pub fn health(&self, health: Result<BTreeMap<DeviceId, Health>, &BackendError>) {
        self.set_cards(self.cards().with_health(&health.unwrap_or_default()));
    }

    /// Takes how the node enforces shares of each card.
    pub fn isolation(&self, level: impl Fn(&HostDevice) -> Isolation) {
        self.set_cards(self.cards().with_isolation(level));
    }

    fn set_cards(&self, cards: Cards) {
        self.claims(|claims| claims.set_cards(cards.hosts().map(|host| host.device.clone())));
        self.cards.send_if_modified(|current| {
            let changed = **current != cards;
            if changed {
                *current = Arc::new(cards);
            }
            changed
        });
    }

    /// The last measurement.
    pub fn sample(&self) -> Arc<Sample> {
        self.sample.borrow().clone()
    }

    /// Takes a measurement.
    pub fn set_sample(&self, sample: Sample) {
        self.sample.send_replace(Arc::new(sample));
    }

    /// Follows the measurements; the current one counts as seen.
    pub fn watch_samples(&self) -> watch::Receiver<Arc<Sample>> {
        self.sample.subscribe()
    }

    /// Containers that break their limits now.
    pub fn breaches(&self) -> Arc<Breaches> {
        self.breaches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes who breaks limits.
    pub fn set_breaches(&self, breaches: Breaches) {
        *self.breaches.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(breaches);
    }

    /// Has kubelet told the same list of devices again.
    pub fn repeat(&self) {
        self.repeats.send_replace(());
    }

    /// Follows the wishes to tell kubelet the same again; earlier ones do not count.
    pub fn watch_repeats(&self) -> watch::Receiver<()> {
        self.repeats.subscribe()
    }

    /// Asks for a comparison with kubelet soon.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Waits until somebody asked for a comparison.
    pub async fn doubted(&self) {
        self.doubt.notified().await;
    }
}
