//! `/debug/state`: every ledger as JSON, for bug reports.

use std::sync::Arc;

use kerf::ledger::{Card, Commitment, Held, NodeLedger};
use kerf::plan::{ContainerGrant, CountedDevice, Grant};
use serde_json::{Value, json};

use crate::app::App;
use crate::cluster::NodeState;

/// In pieces, one for each node.
pub(crate) fn state(app: Arc<App>) -> impl Iterator<Item = String> + Send {
    let (domain, policy) = (json!(app.keys.domain.to_string()), json!(app.policy.as_str()));
    let decisions = json!(app.decisions.latest());
    let head = format!(r#"{{"domain":{domain},"policy":{policy},"decisions":{decisions},"nodes":{{"#);
    let known = app.cluster.names().into_iter();
    let nodes = known.filter_map(move |name| app.cluster.node_state(&name).map(|known| node(&app, &known)));
    let nodes = nodes.enumerate().map(|(at, node)| if at == 0 { node } else { format!(",{node}") });
    std::iter::once(head).chain(nodes).chain(std::iter::once("}}".to_owned()))
}

/// The node's name and its state.
fn node(app: &App, node: &NodeState) -> String {
    let cards: Vec<Value> = node.ledger.cards().iter().map(card).collect();
    let pods: serde_json::Map<String, Value> = node
        .ledger
        .commitments()
        .iter()
        .filter(|(_, commitment)| node.ledger.concerns(commitment))
        .map(|(uid, commitment)| (uid.to_string(), pod(&node.ledger, commitment)))
        .collect();
    let trouble = node.ledger.without_cards().map(kerf::unfit::Unfit::as_str);
    let left = app
        .cluster
        .host_left(node.name.as_str())
        .map(|left| json!({ "cpu_milli": left.cpu, "memory_mib": left.memory.0, "pods": left.pods }));
    let state = json!({ "gpus": cards, "pods": pods, "trouble": trouble, "host_free": left });
    format!("{}:{state}", json!(node.name.as_str()))
}

fn card(card: &Card) -> Value {
    let mut report = card.report();
    report["usable"] = card.usable().into();
    report
}

fn pod(ledger: &NodeLedger, commitment: &Commitment) -> Value {
    let plan = match &commitment.held {
        Held::Plan(plan) => Some(plan),
        Held::Unreadable => None,
    };
    let gpus = |grant: &ContainerGrant| {
        let gpus: Vec<&str> = grant.gpus.ids().map(kerf::ids::DeviceId::as_str).collect();
        (grant.container.to_string(), json!(gpus))
    };
    let containers = plan.map(|plan| plan.grants.iter().map(gpus).collect::<serde_json::Map<_, _>>());
    // for counted shares, the number on each card
    let counted = |grant: &ContainerGrant| match &grant.gpus {
        Grant::Counted { devices, .. } => Some((grant.container.to_string(), counts(devices))),
        Grant::Share { .. } | Grant::Whole(_) => None,
    };
    let counts: serde_json::Map<String, Value> =
        plan.into_iter().flat_map(|plan| plan.grants.iter().filter_map(counted)).collect();
    json!({
        "shares": counts,
        "pod": commitment.pod.to_string(),
        "state": commitment.state.as_str(),
        "confirmed": commitment.confirmed,
        "counted_by": commitment.basis().as_str(),
        "missing_gpus": ledger.missing(commitment).map(|hold| hold.device.id.as_str()).collect::<Vec<_>>(),
        "containers": containers,
    })
}

fn counts(devices: &[CountedDevice]) -> Value {
    let counts = devices.iter().map(|one| (one.device.id.to_string(), json!(one.count)));
    counts.collect::<serde_json::Map<_, _>>().into()
}
