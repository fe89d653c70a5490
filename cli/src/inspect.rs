//! `kerf inspect`

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use kerf::annotation::Keys;
use kerf::ledger::{Card, Commitment, Held, NodeLedger, Offered};
use kerf::unfit::Unfit;
use serde_json::{Value, json};

use super::notes::{notes, trouble};
use super::print::say;
use super::snapshot::{self, Node};

pub fn run(path: &Path, keys: &Keys, as_json: bool, out: &mut String) -> anyhow::Result<ExitCode> {
    let cluster = snapshot::cluster(path, keys)?;
    let (nodes, note) = (&cluster.nodes, cluster.note(keys));
    if as_json {
        let nodes: serde_json::Map<String, Value> =
            nodes.iter().map(|(name, known)| (name.to_string(), node(&known.ledger))).collect();
        writeln!(
            out,
            "{}",
            serde_json::to_string_pretty(
                &json!({ "nodes": nodes, "note": note, "schedulers": cluster.replicas.report() })
            )?
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    say(out, &format!("{:<28} {:>4} {:<24} {:>9} {:>19}  PODS", "NODE", "GPU", "MODEL", "COMPUTE", "MEMORY MiB"));
    for (name, Node { ledger, .. }) in nodes {
        for card in ledger.cards() {
            let device = card.device();
            let compute = format!("{} %", card.used().compute.to_core_units());
            let memory = format!("{} of {}", card.used().memory.0, device.memory.0);
            let (model, pods) = (&device.model, pods(ledger, card));
            let (name, index) = (name.as_str(), device.index);
            say(out, &format!("{name:<28} {index:>4} {model:<24} {compute:>9} {memory:>19}  {pods}"));
        }
        for note in notes(ledger) {
            say(out, &format!("{:<28}    ! {note}", name.as_str()));
        }
    }
    if let Some(replicas) = cluster.replicas.text() {
        say(out, &replicas);
    }
    if let Some(note) = note {
        say(out, &format!("! {note}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Pods that may be on any card.
fn unreadable(ledger: &NodeLedger) -> impl Iterator<Item = &Commitment> {
    ledger.commitments().values().filter(|known| known.held == Held::Unreadable && ledger.concerns(known))
}

/// What is wrong with a card, the pods on it and those that count on it because their GPU is not known, and what it is
/// offered as.
fn pods(ledger: &NodeLedger, card: &Card) -> String {
    let mut words: Vec<String> = Vec::new();
    if card.overcommitted() {
        words.push("OVERCOMMITTED".into());
    }
    match card.device() {
        device if device.cordoned => words.push("CORDONED".into()),
        device if !device.usable() => words.push("UNHEALTHY".into()),
        _ if !card.usable() => words.push("CLOSED".into()),
        _ => {}
    }
    let on_card = ledger.commitments().values().filter(|commitment| match &commitment.held {
        Held::Plan(plan) => plan
            .grants
            .iter()
            .flat_map(|grant| grant.gpus.ids())
            .any(|id| *id == card.device().id || id.as_index() == Some(card.device().index)),
        Held::Unreadable => false,
    });
    words.extend(on_card.map(|commitment| commitment.pod.to_string()));
    let perhaps = unreadable(ledger).filter(|commitment| {
        !commitment.request.only_counted() || commitment.taken().any(|taken| card.may_have(taken))
    });
    words.extend(perhaps.map(|commitment| format!("{} (GPU unknown)", commitment.pod)));
    let shares = |(name, offered): (_, Offered)| format!("({name}: {} of {} free)", offered.free, offered.per_gpu);
    words.extend(card.offered().into_iter().map(shares));
    words.join(" ")
}

fn node(ledger: &NodeLedger) -> Value {
    json!({
        "gpus": ledger.cards().iter().map(Card::report).collect::<Vec<_>>(),
        "trouble": trouble(ledger).map(Unfit::as_str),
        "unreadable": unreadable(ledger).map(|c| c.pod.to_string()).collect::<Vec<_>>(),
        "notes": notes(ledger),
    })
}
