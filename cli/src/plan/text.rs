//! What a plan says, for people and for programs.

use kerf::plan::{CountedDevice, DeviceRef, Grant, Plan};
use serde_json::{Map, Value, json};

use super::planned::{Placed, Planned};
use crate::amounts::{gpus, memory, share};
use crate::place::{Found, Trial};
use crate::print::say;
use crate::table::{Column, Table, terminal_width};
use crate::view::Amount;

/// What is left of a cluster.
struct Left {
    /// Nodes with pods that hold GPUs.
    nodes: usize,
    empty_gpus: usize,
    free: Amount,
    /// On one GPU.
    largest: Amount,
}

impl Left {
    fn of(trial: &Trial) -> Self {
        let cards = || trial.nodes.values().flat_map(|node| node.ledger.cards());
        let free = || cards().map(|card| Amount::from(card.free()));
        Self {
            nodes: trial.nodes.values().filter(|node| !node.ledger.commitments().is_empty()).count(),
            empty_gpus: cards().filter(|card| card.untouched()).count(),
            free: free().sum(),
            largest: free().max_by_key(|free| (free.compute, free.memory_mib)).unwrap_or_default(),
        }
    }
}

pub fn json(plans: &[Planned], notes: &[String]) -> Value {
    let plan = |plan: &Planned| {
        let left = Left::of(&plan.after);
        json!({
            "policy": plan.policy.as_str(),
            "workloads": plan.workloads.iter().map(workload).collect::<Vec<_>>(),
            "left": { "nodes_in_use": left.nodes, "empty_gpus": left.empty_gpus, "free": left.free, "largest_free": left.largest },
        })
    };
    json!({ "plans": plans.iter().map(plan).collect::<Vec<_>>(), "notes": notes })
}

fn workload(placed: &Placed) -> Value {
    let placements = placed
        .placements
        .iter()
        .map(|own| json!({ "pod": own.pod, "node": own.node, "containers": containers(&own.plan) }));
    let Found { fitting, unfit } = &placed.found;
    let scores: Map<String, Value> = fitting.iter().map(|fit| (fit.node.to_string(), json!(fit.score))).collect();
    let unfit: Map<String, Value> =
        unfit.iter().map(|(node, why)| (node.to_string(), json!(why.to_string()))).collect();
    json!({
        "workload": placed.name,
        "pods": placed.pods,
        "fitting": if placed.asks || placed.refused.is_some() { placed.placements.len() as u64 } else { placed.pods },
        "asks_for_gpus": placed.asks,
        "refused": placed.refused,
        "placements": placements.collect::<Vec<_>>(),
        "scores": scores,
        "unfit": unfit,
    })
}

pub fn text(plans: &[Planned], out: &mut String) {
    for plan in plans {
        if plans.len() > 1 {
            say(out, &format!("policy {}:", plan.policy));
        }
        let alone = plan.workloads.len() == 1;
        for placed in &plan.workloads {
            lines(placed, alone, out);
        }
    }
    if plans.len() > 1 {
        let mut table = Table::new([
            Column::new("POLICY"),
            Column::number("PODS THAT FIT"),
            Column::number("NODES IN USE"),
            Column::number("EMPTY GPUS"),
            Column::number("FREE"),
            Column::number("ON ONE GPU AT MOST"),
        ]);
        for plan in plans {
            let left = Left::of(&plan.after);
            let fit: usize = plan.workloads.iter().map(|own| own.placements.len()).sum();
            let all: u64 = plan.workloads.iter().filter(|own| own.asks).map(|own| own.pods).sum();
            table.row([
                plan.policy.to_string(),
                format!("{fit} of {all}"),
                left.nodes.to_string(),
                left.empty_gpus.to_string(),
                format!("{} {}", gpus(left.free.compute), memory(left.free.memory_mib)),
                share(left.largest),
            ]);
        }
        table.render(terminal_width(), out);
    }
}

fn lines(placed: &Placed, alone: bool, out: &mut String) {
    let Placed { name, pods, placements, .. } = placed;
    if let Some(rule) = &placed.refused {
        return say(out, &format!("{name}: refused everywhere: {rule}"));
    }
    if !placed.asks {
        return say(out, &format!("{name}: asks for no GPU: it may go anywhere"));
    }
    if *pods == 1 && alone {
        return every_node(placed, out);
    }
    let verdict = match (placements.len() as u64, *pods) {
        (0, 1) => "fits nowhere".to_owned(),
        (1, 1) => "fits".to_owned(),
        (fit, all) if fit == all => format!("all {all} pods fit"),
        (fit, all) => format!("{fit} of {all} pods fit"),
    };
    say(out, &format!("{name}: {verdict}"));
    for own in placements {
        let grants =
            own.plan.grants.iter().map(|own| format!("{} on GPU {}", own.container, cards(&own.gpus).join(", ")));
        say(out, &format!("  {} on {}: {}", own.pod, own.node, grants.collect::<Vec<_>>().join("; ")));
    }
    if (placements.len() as u64) < *pods {
        for (node, why) in &placed.found.unfit {
            say(out, &format!("  not on {node}: {why}"));
        }
    }
}

/// Of one pod, what each node says.
fn every_node(placed: &Placed, out: &mut String) {
    for fit in &placed.found.fitting {
        say(out, &format!("{}: score {}", fit.node, fit.score));
        for grant in &fit.plan.grants {
            say(out, &format!("  {} on GPU {}", grant.container, cards(&grant.gpus).join(", ")));
        }
    }
    for (node, why) in &placed.found.unfit {
        say(out, &format!("{node}: {why}"));
    }
}

/// The cards, with the number of counted shares of each.
fn cards(gpus: &Grant) -> Vec<String> {
    let card = |device: &DeviceRef| format!("{} ({})", device.index, device.id);
    match gpus {
        Grant::Share { .. } | Grant::Whole(_) => gpus.devices().map(card).collect(),
        Grant::Counted { resource, devices } => {
            devices.iter().map(|one| format!("{}: {} x {resource}", card(&one.device), one.count)).collect()
        }
    }
}

/// The cards by container; a card appears once for each counted share of it.
fn containers(plan: &Plan) -> Value {
    let each = |one: &CountedDevice| std::iter::repeat_n(json!(one.device.id.as_str()), one.count as usize);
    let cards = |gpus: &Grant| -> Vec<Value> {
        match gpus {
            Grant::Share { .. } | Grant::Whole(_) => gpus.ids().map(|id| json!(id.as_str())).collect(),
            Grant::Counted { devices, .. } => devices.iter().flat_map(each).collect(),
        }
    };
    let grants = plan.grants.iter().map(|grant| (grant.container.to_string(), json!(cards(&grant.gpus))));
    grants.collect::<Map<_, _>>().into()
}
