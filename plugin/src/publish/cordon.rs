//! Says what the Node's `gpu-cordon` does: which cards it takes out of service, and what in it names no card. Only the
//! extender obeys it; but whoever writes it looks here for what became of it.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kerf::device::{Cordon, Inventory};
use kerf::ids::DeviceId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::client::Cluster;
use crate::follow::own_node::Latest;
use crate::publish::condition::Tiding;
use crate::publish::metrics::Counters;
use crate::state::State;
use crate::state::cards_watch::Pause;

/// Events that the API server did not take are tried again, so many of them.
const PENDING: usize = 16;
/// So much of a value is repeated.
const SHOWN: usize = 64;
/// So many names that are no card's are repeated.
const NAMED: usize = 8;

/// What was told of an annotation.
#[derive(Debug, Default)]
struct Told {
    /// Whether anything was looked at.
    begun: bool,
    names: Option<String>,
    cards: BTreeSet<DeviceId>,
    complaint: Option<String>,
}

impl Told {
    /// What is to be told now that the annotation of a node with these cards is `names`.
    fn of(&mut self, names: Option<String>, inventory: &Inventory) -> Vec<Tiding> {
        let cordon = names.as_deref().map(|names| inventory.named(names)).unwrap_or_default();
        let cards = |ids: &BTreeSet<DeviceId>, others: &BTreeSet<DeviceId>| -> Option<String> {
            let devices = inventory.devices().iter().filter(|device| ids.contains(&device.id));
            let news = devices.filter(|device| !others.contains(&device.id));
            let named: Vec<String> = news.map(|device| format!("{} (index {})", device.id, device.index)).collect();
            (!named.is_empty()).then(|| named.join(", "))
        };
        let taken = cards(&cordon.cards, &self.cards).map(|cards| Tiding {
            warning: false,
            reason: "GPUCordoned",
            message: format!("cordoned: {cards}; their pods stay, and no new one comes"),
        });
        let given = cards(&self.cards, &cordon.cards).map(|cards| Tiding {
            warning: false,
            reason: "GPUUncordoned",
            message: format!("no longer cordoned: {cards}"),
        });
        let complaint = names.as_deref().and_then(|names| complaint(names, &cordon, inventory));
        let wrong = complaint.clone().filter(|_| self.complaint != complaint || self.names != names);
        let wrong = wrong.map(|message| Tiding { warning: true, reason: "GPUCordonInvalid", message });
        *self = Self { begun: true, names, cards: cordon.cards, complaint };
        [taken, given, wrong].into_iter().flatten().collect()
    }
}

/// What is wrong with an annotation, if anything.
fn complaint(names: &str, cordon: &Cordon, inventory: &Inventory) -> Option<String> {
    let wrong = match (cordon.unknown.as_slice(), cordon.cards.is_empty()) {
        ([], false) => return None,
        ([], true) => "annotation gpu-cordon names no GPU".to_owned(),
        (unknown, _) => {
            let rest = unknown.len().saturating_sub(NAMED);
            let named: Vec<String> = unknown.iter().take(NAMED).map(|name| format!("{:?}", shown(name))).collect();
            let more = if rest > 0 { format!(" or {rest} more") } else { String::new() };
            format!("annotation gpu-cordon {:?}: no GPU of this node is {}{more}", shown(names), named.join(" or "))
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
    mut node: watch::Receiver<Latest>,
    counters: Counters,
    token: CancellationToken,
) {
    let mut roster = state.watch_roster();
    let (mut told, mut pending, mut pause) = (Told::default(), VecDeque::new(), Pause::default());
    loop {
        let now = roster.borrow_and_update().clone();
        let seen = node.borrow_and_update().clone();
        // before both are known nothing can be said
        if let Some(shown) = seen.filter(|_| now.settled && now.hosts().next().is_some()) {
            let first = !told.begun;
            let tidings = told.of(shown.cordon, &now.inventory());
            state.set_cordoned(told.cards.clone());
            for (at, tiding) in tidings.into_iter().enumerate() {
                let (reason, message) = (tiding.reason, &tiding.message);
                if tiding.warning {
                    tracing::warn!(reason, "{message}");
                } else {
                    tracing::info!(reason, "{message}");
                }
                // the same name for every try, and for what an earlier life may have told: it is not told again
                let mut name = DefaultHasher::new();
                let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
                (message, (!first).then_some((time, at))).hash(&mut name);
                pending.push_back((format!("gpu-cordon-{:016x}", name.finish()), tiding));
            }
            while pending.len() > PENDING {
                pending.pop_front();
            }
        }
        let wait = send(&cluster, &mut pending, &mut pause, &counters).await;
        tokio::select! {
            () = token.cancelled() => return,
            changed = roster.changed() => if changed.is_err() { return },
            changed = node.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
}

/// Writes the events that are left, in order; says when to try again. One that is refused is given up on: the log says
/// the same.
async fn send(
    cluster: &Cluster,
    pending: &mut VecDeque<(String, Tiding)>,
    pause: &mut Pause,
    counters: &Counters,
) -> Option<Duration> {
    while let Some((name, tiding)) = pending.front() {
        if let Err(error) = cluster.node_event(name, tiding).await {
            counters.api_errors.with_label_values(&["event"]).inc();
            if !error.refused() {
                return Some(pause.longer());
            }
            tracing::warn!(%error, reason = tiding.reason, "event about the Node refused");
        }
        pause.end();
        pending.pop_front();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use kerf::device::Device;
    use kerf::units::Mib;

    fn inventory() -> Inventory {
        Inventory::new((0..4).map(|index| Device::new(format!("GPU-{index}"), index, Mib(1))).collect())
    }

    fn tell(told: &mut Told, names: Option<&str>) -> Vec<(&'static str, String)> {
        let tidings = told.of(names.map(str::to_owned), &inventory());
        tidings.into_iter().map(|tiding| (tiding.reason, tiding.message)).collect()
    }

    #[test]
    fn a_list_that_names_no_card_is_told_once_for_each_change() {
        let help = "; give indices (0, 1, 2, 3) or UUIDs, joined by commas";
        for names in ["9", "GPU-nosuch", "all", "2;3"] {
            let mut told = Told::default();
            let wanted = format!("annotation gpu-cordon {names:?}: no GPU of this node is {names:?}{help}");
            assert_eq!(tell(&mut told, Some(names)), [("GPUCordonInvalid", wanted)]);
            assert_eq!(tell(&mut told, Some(names)), [], "{names}");
            assert_eq!(tell(&mut told, None), []);
            assert_eq!(tell(&mut told, Some(names)).len(), 1);
        }
        for names in ["", " ", ",", " , "] {
            let wanted = format!("annotation gpu-cordon names no GPU{help}");
            assert_eq!(tell(&mut Told::default(), Some(names)), [("GPUCordonInvalid", wanted)], "{names:?}");
        }
    }

    #[test]
    fn what_works_is_told_and_what_does_not_beside_it() {
        let mut told = Told::default();
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
        let told = tell(&mut Told::default(), Some(&"x".repeat(100_000)));
        assert!(told[0].1.len() < 400);
        let told = tell(&mut Told::default(), Some(&"x,".repeat(100_000)));
        assert!(told[0].1.len() < 400 && told[0].1.contains(" or 99992 more; "), "{}", told[0].1);
    }
}
