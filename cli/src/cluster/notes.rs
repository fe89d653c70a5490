//! Problems of a node's cards and pods, as sentences.

use kerf::ledger::{Basis, Commitment, NodeLedger};
use kerf::unfit::Unfit;

/// Sentences without the node's name: why the node takes no pod, and which pods have records of cards that the node
/// does not list.
pub fn notes(ledger: &NodeLedger) -> Vec<String> {
    let trouble = trouble(ledger).map(|why| match why {
        Unfit::OtherDomain => format!("{why}: it takes no pod until they have ended"),
        why if ledger.cards().is_empty() => format!("{why}: it takes no pod"),
        why => format!("{why}: it takes no pod; its GPUs are those that were known last"),
    });
    let pods = ledger.commitments().values().filter(|known| ledger.concerns(known));
    trouble.into_iter().chain(pods.filter_map(|known| note(ledger, known))).collect()
}

/// Why the node takes no pod. `None` for a node without GPUs: kerf does not serve it.
pub fn trouble(ledger: &NodeLedger) -> Option<Unfit> {
    ledger.without_cards().filter(|why| !matches!(why, Unfit::UnknownNode | Unfit::NoCards))
}

fn note(ledger: &NodeLedger, known: &Commitment) -> Option<String> {
    let pod = &known.pod;
    match known.basis() {
        Basis::Amounts => Some(format!(
            "{pod}: no placement is recorded on it, or none that can be read; counted by its amounts on every GPU"
        )),
        Basis::Everything => Some(format!("{pod}: its amounts cannot be read; every GPU counts as full")),
        Basis::Record => {
            let missing: Vec<&str> = ledger.missing(known).map(|hold| hold.device.id.as_str()).collect();
            (!missing.is_empty())
                .then(|| format!("{pod}: on GPUs that the node does not have: {}", missing.join(", ")))
        }
    }
}
