//! What the parts of the plugin share. Locks are private to this file, never held across an await, and methods
//! return owned values.

pub mod answers;
pub mod breach;
pub mod cards_watch;
pub mod decisions;
pub mod left_out;
pub mod occupancy;
pub mod sample;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::allocation::{Allocations, Decision, Key, Refusal};
use crate::device::backend::{BackendError, HostDevice};
use crate::device::cards::Cards;
use crate::device::ids::Resource;
use crate::offer::contract::Contract;
use crate::roster::{Roster, Source};
use crate::state::breach::{Breaches, LimiterFlags};
use crate::state::decisions::{Decided, Decisions};
use crate::state::sample::{Failed, Sample};
use kerf::device::Health;
use kerf::ids::DeviceId;
use kerf::isolation::Isolation;
use std::collections::{BTreeMap, BTreeSet};

/// The plugin's state: what all parts share, and the GPUs of one source. Clones refer to the same state and source.
#[derive(Clone, Debug)]
pub struct State {
    shared: Arc<Shared>,
    cards: watch::Sender<Arc<Cards>>,
    /// The index of these GPUs in [`Shared::sources`].
    source: usize,
}

/// What all sources of GPUs have in common.
#[derive(Debug, Default)]
struct Shared {
    allocations: Mutex<Allocations>,
    sources: Mutex<Vec<Source>>,
    roster: watch::Sender<Arc<Roster>>,
    sample: watch::Sender<Arc<Sample>>,
    breaches: Mutex<Arc<Breaches>>,
    limiter_flags: Mutex<Arc<LimiterFlags>>,
    decisions: Mutex<Decisions>,
    doubt: Notify,
    repeats: watch::Sender<()>,
    withdrawn: watch::Sender<bool>,
    cordoned: Mutex<BTreeSet<DeviceId>>,
    failures: watch::Sender<Option<Arc<Failed>>>,
    /// Pods hold GPUs that are not counted anywhere: no GPU is announced as healthy.
    withheld: AtomicBool,
}

impl Default for State {
    fn default() -> Self {
        let shared = Shared { sources: Mutex::new(vec![Source::default()]), ..Shared::default() };
        Self { shared: Arc::new(shared), cards: watch::Sender::default(), source: 0 }
    }
}

impl State {
    /// Another source of GPUs, those that a contract's backend finds, with the same shared state.
    #[must_use]
    pub fn beside(&self, contract: Arc<Contract>) -> Self {
        let mut sources = self.shared.sources.lock();
        sources.push(Source { contract: Some(contract), cards: None });
        let shared = Arc::clone(&self.shared);
        Self { shared, cards: watch::Sender::new(Arc::default()), source: sources.len() - 1 }
    }

    /// Locks the allocations. `act` must be short and must not wait.
    pub fn allocations<T>(&self, act: impl FnOnce(&mut Allocations) -> T) -> T {
        act(&mut self.shared.allocations.lock())
    }

    /// The GPUs of all sources, each once.
    pub fn roster(&self) -> Arc<Roster> {
        self.shared.roster.borrow().clone()
    }

    /// Follows the GPUs of all sources; the current ones count as not seen.
    pub fn watch_roster(&self) -> watch::Receiver<Arc<Roster>> {
        let mut receiver = self.shared.roster.subscribe();
        receiver.mark_changed();
        receiver
    }

    /// The GPUs of this source, as they are now.
    pub fn cards(&self) -> Arc<Cards> {
        self.cards.borrow().clone()
    }

    /// Follows the GPUs of this source; the current ones count as not seen.
    pub fn watch_cards(&self) -> watch::Receiver<Arc<Cards>> {
        let mut receiver = self.cards.subscribe();
        receiver.mark_changed();
        receiver
    }

    /// Takes the GPUs that a discovery found.
    pub fn discovered(&self, found: Vec<HostDevice>) {
        self.discovered_but(found, &BTreeSet::new());
    }

    /// Takes the GPUs of a discovery that left these out, by id or name.
    pub fn discovered_but(&self, found: Vec<HostDevice>, left_out: &BTreeSet<String>) {
        let cards = self.cards().discovered_but(found, left_out);
        // at once: what no container holds is not announced as unhealthy in between
        let cards = self.retired(&cards).unwrap_or(cards);
        self.set_cards(cards);
    }

    /// Forgets parts of GPUs that are divided otherwise now, once no container holds them any more.
    pub fn retire(&self) {
        if let Some(cards) = self.retired(&self.cards()) {
            self.set_cards(cards);
        }
    }

    /// As [`State::retire`], where containers hold these GPUs and no others.
    pub fn retire_all_but(&self, held: &BTreeSet<DeviceId>) {
        if let Some(cards) = self.cards().retired(|id| held.contains(id)) {
            self.set_cards(cards);
        }
    }

    fn retired(&self, cards: &Cards) -> Option<Cards> {
        self.allocations(|allocations| cards.retired(|id| allocations.may_hold(id)))
    }

    /// Takes the GPUs' health from the driver. On an error, no GPU is healthy.
    pub fn health(&self, health: Result<BTreeMap<DeviceId, Health>, &BackendError>) {
        self.set_cards(self.cards().with_health(&health.unwrap_or_default()));
    }

    /// Takes how the node enforces shares of each GPU.
    pub fn isolation(&self, level: impl Fn(&HostDevice) -> Isolation) {
        self.set_cards(self.cards().with_isolation(level));
    }

    /// Announces all GPUs as unhealthy, so that no pod is admitted, or again with their own health, which counts
    /// once the driver is asked next. Returns whether that is a change.
    pub fn withhold(&self, withheld: bool) -> bool {
        let news = self.shared.withheld.swap(withheld, Ordering::SeqCst) != withheld;
        if news && withheld {
            self.set_cards(self.cards().as_ref().clone());
        }
        news
    }

    fn set_cards(&self, cards: Cards) {
        let withheld = self.shared.withheld.load(Ordering::SeqCst);
        let cards = Arc::new(if withheld { cards.with_health(&BTreeMap::new()) } else { cards });
        self.enlist(&cards);
        set(&self.cards, cards);
    }

    /// Publishes this source's GPUs. In one lock: of two sources at a time, the later one sees the earlier one's
    /// GPUs.
    fn enlist(&self, cards: &Arc<Cards>) {
        let mut sources = self.shared.sources.lock();
        let Some(source) = sources.get_mut(self.source) else { return };
        if source.cards.as_ref() == Some(cards) {
            return;
        }
        source.cards = Some(Arc::clone(cards));
        let roster = Roster::new(sources.iter());
        self.allocations(|allocations| allocations.set_cards(roster.hosts().map(|host| host.device.clone())));
        if set(&self.shared.roster, Arc::new(roster)) {
            // kubelet may have listed ids that can be interpreted only now
            self.doubt();
        }
    }

    pub fn sample(&self) -> Arc<Sample> {
        self.shared.sample.borrow().clone()
    }

    pub fn set_sample(&self, sample: Sample) {
        self.shared.sample.send_replace(Arc::new(sample));
    }

    /// Follows the measurements; the current one counts as seen.
    pub fn watch_samples(&self) -> watch::Receiver<Arc<Sample>> {
        self.shared.sample.subscribe()
    }

    /// Containers that break their limits now.
    pub fn breaches(&self) -> Arc<Breaches> {
        self.shared.breaches.lock().clone()
    }

    pub fn set_breaches(&self, breaches: Breaches) {
        *self.shared.breaches.lock() = Arc::new(breaches);
    }

    pub fn limiter_flags(&self) -> Arc<LimiterFlags> {
        self.shared.limiter_flags.lock().clone()
    }

    pub fn set_limiter_flags(&self, flags: LimiterFlags) {
        *self.shared.limiter_flags.lock() = Arc::new(flags);
    }

    /// Notes the container that kubelet's call for so many ids was matched to, and why; or why the call was
    /// refused.
    pub fn decided(&self, resource: &Resource, units: u64, outcome: Result<(&Key, &Decision), &Refusal>) {
        self.shared.decisions.lock().add(resource, units, outcome);
    }

    /// The last decisions, the oldest first.
    pub fn decisions(&self) -> Vec<Decided> {
        self.shared.decisions.lock().all()
    }

    /// A container has failed for reasons of this node.
    pub fn failed(&self, reason: String) {
        let failed = Failed { at: tokio::time::Instant::now(), reason };
        self.shared.failures.send_replace(Some(Arc::new(failed)));
    }

    /// Follows the last failure of a container for reasons of this node.
    pub fn watch_failures(&self) -> watch::Receiver<Option<Arc<Failed>>> {
        self.shared.failures.subscribe()
    }

    /// GPUs that the Node's annotation takes out of service.
    pub fn cordoned(&self) -> BTreeSet<DeviceId> {
        self.shared.cordoned.lock().clone()
    }

    /// Takes the GPUs that the Node's annotation takes out of service.
    pub fn set_cordoned(&self, cards: BTreeSet<DeviceId>) {
        *self.shared.cordoned.lock() = cards;
    }

    /// Has the unchanged list of devices sent to kubelet again.
    pub fn repeat(&self) {
        self.shared.repeats.send_replace(());
    }

    /// Follows the requests to send kubelet the same list again; earlier ones do not count.
    pub fn watch_repeats(&self) -> watch::Receiver<()> {
        self.shared.repeats.subscribe()
    }

    /// Announces devices that no container can be given as unhealthy, or again with their own health. Returns
    /// whether that is a change.
    pub fn withdraw(&self, withdrawn: bool) -> bool {
        self.shared.withdrawn.send_if_modified(|known| std::mem::replace(known, withdrawn) != withdrawn)
    }

    /// Follows whether devices are withdrawn; the current value counts as seen.
    pub fn watch_withdrawn(&self) -> watch::Receiver<bool> {
        self.shared.withdrawn.subscribe()
    }

    /// Asks for a comparison with kubelet soon.
    pub fn doubt(&self) {
        self.shared.doubt.notify_one();
    }

    /// Waits until a comparison was asked for.
    pub async fn doubted(&self) {
        self.shared.doubt.notified().await;
    }
}

/// Replaces a value that others watch, where it differs. Returns whether it does.
pub fn set<T: PartialEq>(sender: &watch::Sender<T>, new: T) -> bool {
    sender.send_if_modified(|known| {
        let changed = *known != new;
        if changed {
            *known = new;
        }
        changed
    })
}
