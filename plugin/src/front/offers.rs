//! Keeps what is offered registered with kubelet, as GPUs appear and change.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kerf_runtime::readiness::Condition;
use kerf_runtime::shutdown::Tasks;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::allocation;
use crate::base::counters::Counters;
use crate::device::cards::Cards;
use crate::front::cdi;
use crate::front::device_plugin::{Served, Service};
use crate::front::records::Records;
use crate::kubelet::registration::{self, Endpoint};
use crate::offer::hand_over::{self, Item};
use crate::offer::{NamedBy, Offered, Offers};
use crate::state::left_out::ProfileLeftOut;
use crate::state::{self, State};

/// Offers the GPUs of one source.
pub struct Front<F> {
    /// The name in logs.
    pub name: &'static str,
    /// What the source's GPUs are offered as.
    pub offers: F,
    /// Holds the source's GPUs.
    pub state: State,
    /// Is told which of them are not offered.
    pub left_out: ProfileLeftOut,
    /// `None` where the extender does not place the pods.
    pub records: Option<Records>,
    pub counters: Counters,
    /// kubelet's directory of device plugins.
    pub directory: PathBuf,
    /// Met while at least one resource is offered and every one is registered.
    pub ready: Condition,
}

impl<F: Fn(&Cards) -> Offers> Front<F> {
    pub async fn follow(self, token: CancellationToken) {
        let mut cards = self.state.watch_cards();
        let sender = watch::Sender::new(Arc::new(Offers::default()));
        let registered = Registered { known: Arc::default(), ready: self.ready.clone() };
        let tasks = Tasks::new(token.child_token());
        let mut undescribed = false;
        loop {
            let now = cards.borrow_and_update().clone();
            let mut made = (self.offers)(&now);
            for refusal in made.refusals.difference(&sender.borrow().refusals) {
                tracing::warn!(profile = self.name, %refusal, "not offered");
            }
            self.left_out.refuse(made.refusals.iter().cloned().collect());
            // the names must resolve before a container is given them
            self.describe(&mut made, &mut undescribed);
            let new = made.resources.values().filter(|offered| registered.add(&offered.offer.resource));
            let new: Vec<_> = new.cloned().collect();
            state::set(&sender, Arc::new(made));
            for offered in new {
                self.register(&offered, &sender, &registered, &tasks);
            }
            tokio::select! {
                // ends with `token`, and with a registration that fails: then the process has to end, too
                () = tasks.token().cancelled() => break,
                changed = cards.changed() => if changed.is_err() { break },
            }
        }
        tasks.drained().await;
    }

    fn register(
        &self,
        offered: &Offered,
        sender: &watch::Sender<Arc<Offers>>,
        registered: &Registered,
        tasks: &Tasks,
    ) {
        let offer = &offered.offer;
        // a resource that only shows GPUs takes no place on any of them
        let records = self.records.clone().filter(|_| offer.named_by != NamedBy::Ids);
        let served = Served {
            offer: Arc::new(offer.clone()),
            offers: sender.subscribe(),
            records: records.clone(),
            counters: self.counters.clone(),
        };
        let endpoint = Endpoint {
            word: offer.socket.clone(),
            label: offer.label.clone(),
            resource: offer.resource.clone(),
            options: served.options(),
            counters: self.counters.clone(),
            directory: self.directory.clone(),
            service: move |streams, token| Service { served: served.clone(), streams, token },
        };
        self.counters.offered(&offer.label, refusals(&offer.named_by));
        let (registered, resource) = (registered.clone(), offer.resource.clone());
        let recorded = records.filter(|_| matches!(offer.named_by, NamedBy::Record(_)));
        let met = move |met| {
            registered.set(&resource, met);
            if let Some(records) = recorded.as_ref().filter(|_| !met) {
                records.state.allocations(|allocations| allocations.kubelet.disconnected());
            }
        };
        let stop = tasks.token().clone();
        tasks.spawn(self.name, async move { registration::keep_registered(endpoint, met, stop).await });
    }

    /// Writes what the CDI names mean. Where that fails, containers are not given the names. `told`: the failure is
    /// already logged.
    fn describe(&self, made: &mut Offers, told: &mut bool) {
        let failed = made.resources.values().find_map(|offered| cdi::describe(offered).err());
        let told = std::mem::replace(told, failed.is_some());
        let Some((path, error)) = failed else { return };
        if !told {
            let path = path.display();
            tracing::warn!(profile = self.name, %path, %error, "CDI file not written; giving device files alone");
        }
        for offered in made.resources.values_mut() {
            let mut plain = Offered::clone(offered);
            plain.offer.hand_over = plain.offer.hand_over.without(|item| matches!(item, Item::Cdi(_)));
            *offered = Arc::new(plain);
        }
    }
}

/// The words for why a call of Allocate can be refused.
fn refusals(named_by: &NamedBy) -> impl Iterator<Item = &'static str> + use<> {
    let recorded = matches!(named_by, NamedBy::Record(_));
    let by_record = allocation::Code::ALL.into_iter().map(allocation::Code::as_str).filter(move |_| recorded);
    let by_ids = hand_over::Code::ALL.into_iter().map(hand_over::Code::as_str).filter(move |_| !recorded);
    by_record.chain(by_ids)
}

/// The resources that kubelet knows.
#[derive(Clone)]
struct Registered {
    known: Arc<Mutex<BTreeMap<String, bool>>>,
    ready: Condition,
}

impl Registered {
    /// Returns whether it is new.
    fn add(&self, resource: &str) -> bool {
        let mut known = self.known.lock();
        let new = !known.contains_key(resource);
        known.entry(resource.to_owned()).or_default();
        new
    }

    fn set(&self, resource: &str, met: bool) {
        let mut known = self.known.lock();
        known.insert(resource.to_owned(), met);
        self.ready.set(known.values().all(|met| *met));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use kerf::annotation::Keys;
    use kerf_proto::deviceplugin::KUBELET_SOCKET;
    use kerf_runtime::readiness::Readiness;
    use prometheus::{IntCounterVec, Opts, Registry};

    use super::*;
    use crate::offer::vcuda;
    use crate::state::left_out::LeftOut;

    /// Without it kubelet would never learn of the resource, and nobody that it does not.
    #[tokio::test]
    async fn a_registration_that_panics_ends_all_of_them() {
        let directory = tempfile::tempdir().unwrap();
        // nobody listens, so the attempt fails, and counting that panics: the counter has another number of labels
        std::fs::write(directory.path().join(KUBELET_SOCKET), "").unwrap();
        let registrations = IntCounterVec::new(Opts::new("registrations", "x"), &["resource"]).unwrap();
        let counters = Counters { registrations, ..Counters::new(&Registry::new()).unwrap() };
        let [core, _] = vcuda::offers(&Keys::default(), None, Vec::new(), BTreeSet::new());
        let front = Front {
            name: "vcuda",
            offers: move |cards: &Cards| Offers::of_all(&core, cards),
            state: State::default(),
            left_out: LeftOut::default().of("vcuda"),
            records: None,
            counters,
            directory: directory.path().to_owned(),
            ready: Readiness::default().condition("kubelet-core"),
        };
        let token = CancellationToken::new();
        tokio::time::timeout(Duration::from_secs(60), front.follow(token.clone())).await.unwrap();
        assert!(!token.is_cancelled(), "the task that offers ends by itself, and by that the plugin");
    }
}
