//! Events about the Node's `gpu-cordon`: which GPUs it takes out of service, and which names in it are unknown.
//! Only the extender obeys it, but an administrator who writes it finds the result here.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

use kerf::device::{Cordon, Inventory};
use kerf::ids::DeviceId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{About, Cluster, ClusterError, EventQueue, EventText, NodeShown};
use crate::base::backoff::Backoff;
use crate::base::level_triggered::{self, Next, Publisher};
use crate::publish::condition::names;
use crate::publish::node_view::NodeView;
use crate::state::State;

/// At most so many events wait to be written again after the API server did not take them.
const PENDING: usize = 16;
/// At most so much of a value is repeated in an event.
const SHOWN: usize = 64;

/// The annotation for which events were last written.
#[derive(Debug, Default)]
struct Answered {
    /// Whether the annotation was read at least once.
    begun: bool,
    names: Option<String>,
    cards: BTreeSet<DeviceId>,
    complaint: Option<String>,
}

impl Answered {
    /// The events now that the annotation of a node with these GPUs is `names`.
    fn to(&mut self, names: Option<String>, inventory: &Inventory) -> Vec<EventText> {
        let cordon = names.as_deref().map(|names| inventory.named(names)).unwrap_or_default();
        let cards = |ids: &BTreeSet<DeviceId>, others: &BTreeSet<DeviceId>| -> Option<String> {
            let devices = inventory.devices().iter().filter(|device| ids.contains(&device.id));
            let news = devices.filter(|device| !others.contains(&device.id));
            let named: Vec<String> = news.map(|device| format!("{} (index {})", device.id, device.index)).collect();
            (!named.is_empty()).then(|| named.join(", "))
        };
        let taken = cards(&cordon.cards, &self.cards).map(|cards| {
            EventText::normal("GPUCordoned", format!("cordoned: {cards}; their pods stay, and no new one comes"))
        });
        let given = cards(&self.cards, &cordon.cards)
            .map(|cards| EventText::normal("GPUUncordoned", format!("no longer cordoned: {cards}")));
        let complaint = names.as_deref().and_then(|names| complaint(names, &cordon, inventory));
        let wrong = complaint.clone().filter(|_| self.complaint != complaint || self.names != names);
        let wrong = wrong.map(|message| EventText::warning("GPUCordonInvalid", message));
        *self = Self { begun: true, names, cards: cordon.cards, complaint };
        [taken, given, wrong].into_iter().flatten().collect()
    }
}

/// What is wrong with an annotation, if anything.
fn complaint(value: &str, cordon: &Cordon, inventory: &Inventory) -> Option<String> {
    let wrong = match (cordon.unknown.as_slice(), cordon.cards.is_empty()) {
        ([], false) => return None,
        ([], true) => "annotation gpu-cordon names no GPU".to_owned(),
        (unknown, _) => {
            let unknown = names(unknown.iter().map(|name| format!("{:?}", shown(name))), " or ", "or");
            format!("annotation gpu-cordon {:?}: no GPU of this node is {unknown}", shown(value))
        }
    };
    let indices: Vec<String> = inventory.devices().iter().map(|device| device.index.to_string()).collect();
    Some(format!("{wrong}; give indices ({}) or UUIDs, joined by commas", indices.join(", ")))
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Follows the annotation of the Node until `token` is cancelled.
pub async fn follow(
    cluster: Cluster,
    state: State,
    node: watch::Receiver<Option<NodeShown>>,
    token: CancellationToken,
) {
    let (view, events) = (NodeView::new(&state, node), EventQueue::new(PENDING));
    let mut events = CordonEvents { cluster, state, view, answered: Answered::default(), events };
    level_triggered::follow(&mut events, &token).await;
}

struct CordonEvents {
    cluster: Cluster,
    state: State,
    view: NodeView,
    answered: Answered,
    events: EventQueue,
}

impl Publisher for CordonEvents {
    type Error = ClusterError;

    async fn publish(&mut self) -> Result<Next, ClusterError> {
        let (roster, shown) = self.view.now();
        // an event needs both the annotation and the GPUs
        if let Some(shown) = shown.filter(|_| roster.has_gpus()) {
            self.answer(shown.cordon, &roster.inventory());
        }
        self.events.send(&self.cluster).await?;
        Ok(Next::change())
    }

    async fn changed(&mut self) -> bool {
        self.view.changed().await
    }

    fn failed(&mut self, error: &ClusterError, new: bool, backoff: &mut Backoff) -> Next {
        self.cluster.failed("event");
        if new {
            tracing::debug!(%error, "event about the Node not written; trying again");
        }
        Next::within(backoff.failed())
    }
}

impl CordonEvents {
    fn answer(&mut self, names: Option<String>, inventory: &Inventory) {
        let first = !self.answered.begun;
        let events = self.answered.to(names, inventory);
        self.state.set_cordoned(self.answered.cards.clone());
        for (at, event) in events.into_iter().enumerate() {
            let (reason, message) = (event.reason, &event.message);
            if event.warning {
                tracing::warn!(reason, "{message}");
            } else {
                tracing::info!(reason, "{message}");
            }
            // an event that a previous run may have written has the same name, so it is not written twice
            let mut name = DefaultHasher::new();
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            (message, (!first).then_some((time, at))).hash(&mut name);
            self.events.push(About::Node(format!("gpu-cordon-{:016x}", name.finish())), event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kerf::device::Device;
    use kerf::units::Mib;

    fn inventory() -> Inventory {
        Inventory::new((0..4).map(|index| Device::new(format!("GPU-{index}"), index, Mib(1))).collect())
    }

    fn tell(told: &mut Answered, names: Option<&str>) -> Vec<(&'static str, String)> {
        let events = told.to(names.map(str::to_owned), &inventory());
        events.into_iter().map(|event| (event.reason, event.message)).collect()
    }

    #[test]
    fn a_list_that_names_no_card_is_told_once_for_each_change() {
        let help = "; give indices (0, 1, 2, 3) or UUIDs, joined by commas";
        for names in ["9", "GPU-nosuch", "all", "2;3"] {
            let mut told = Answered::default();
            let wanted = format!("annotation gpu-cordon {names:?}: no GPU of this node is {names:?}{help}");
            assert_eq!(tell(&mut told, Some(names)), [("GPUCordonInvalid", wanted)]);
            assert_eq!(tell(&mut told, Some(names)), [], "{names}");
            assert_eq!(tell(&mut told, None), []);
            assert_eq!(tell(&mut told, Some(names)).len(), 1);
        }
        for names in ["", " ", ",", " , "] {
            let wanted = format!("annotation gpu-cordon names no GPU{help}");
            assert_eq!(tell(&mut Answered::default(), Some(names)), [("GPUCordonInvalid", wanted)], "{names:?}");
        }
    }

    #[test]
    fn what_works_is_told_and_what_does_not_beside_it() {
        let mut told = Answered::default();
        let cordoned = "cordoned: GPU-2 (index 2), GPU-3 (index 3); their pods stay, and no new one comes";
        assert_eq!(tell(&mut told, Some(" GPU-2 , 3 ")), [("GPUCordoned", cordoned.to_owned())]);
        assert_eq!(tell(&mut told, Some("2,3")), [], "the same cards");
        let both = tell(&mut told, Some("3,x"));
        assert_eq!(both[0], ("GPUUncordoned", "no longer cordoned: GPU-2 (index 2)".to_owned()));
        assert!(both[1].1.starts_with("annotation gpu-cordon \"3,x\": no GPU of this node is \"x\";"), "{both:?}");
        assert_eq!(tell(&mut told, None), [("GPUUncordoned", "no longer cordoned: GPU-3 (index 3)".to_owned())]);
    }

    #[test]
    fn a_long_value_is_not_repeated_whole() {
        let told = tell(&mut Answered::default(), Some(&"x".repeat(100_000)));
        assert!(told[0].1.len() < 400);
        let told = tell(&mut Answered::default(), Some(&"x,".repeat(100_000)));
        assert!(told[0].1.len() < 400 && told[0].1.contains(" or 99992 more; "), "{}", told[0].1);
    }
}
