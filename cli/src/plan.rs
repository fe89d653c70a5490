//! `kerf plan`

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use kerf::annotation::Keys;
use kerf::k8s;
use kerf::placement::shape::{HostAmount, Shape};
use kerf::placement::{Planner, Rank, rank, scores};
use kerf::plan::{Form, Grant, Plan, Slice};
use kerf::policy::Policy;
use serde_json::{Value, json};

use super::notes::notes;
use super::snapshot;

/// Says where the pod would go.
pub fn run(
    pod: &Path,
    cluster: &Path,
    keys: &Keys,
    policy: Policy,
    as_json: bool,
    out: &mut String,
) -> anyhow::Result<ExitCode> {
    let parsed = snapshot::pod(pod)?;
    let request = match k8s::request(&parsed, keys) {
        Ok(Some(request)) => request,
        Ok(None) => {
            writeln!(
                out,
                "the pod asks for no {}, {} or GPU shares by count: it may go anywhere",
                keys.core, keys.memory
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            writeln!(out, "refused everywhere: {error}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let policy = request.policy.unwrap_or(policy);
    let (mut plans, mut ranked, mut unfit, mut odd) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let cluster = snapshot::cluster(cluster, keys)?;
    odd.extend(cluster.note(keys));
    let mut survey = cluster.survey;
    let amount = k8s::requested(&parsed);
    let shape = Shape::of(Some(&request), amount.cpu, amount.memory);
    for (node, ledger) in cluster.ledgers {
        odd.extend(notes(&ledger).into_iter().map(|note| format!("{node}: {note}")));
        if let Some(short) = survey.left(node.as_str()).and_then(|left| short(left, amount)) {
            // kube-scheduler's own words
            unfit.push((node, format!("Insufficient {short}")));
            continue;
        }
        let card = if policy.surveys(&request) { survey.card(policy, &shape, node.as_str()) } else { None };
        match Planner::preferring(card).plan(&ledger, &request, policy) {
            Ok(plan) => {
                let rank = match policy.surveys(&request) {
                    true => survey.ranks(policy, &shape, std::iter::once(node.as_str())).first().copied(),
                    false => Some(rank(&ledger, policy)),
                };
                ranked.push((rank.unwrap_or(Rank::LAST), node.clone()));
                plans.push((node, plan));
            }
            Err(why) => unfit.push((node, why.to_string())),
        }
    }
    let scores = scores(ranked);
    let best = scores.first().and_then(|(best, _)| plans.iter().find(|(node, _)| node == best));
    if as_json {
        let best = best.map(|(node, plan)| json!({ "node": node.as_str(), "containers": containers(plan) }));
        let scores: serde_json::Map<String, Value> =
            scores.iter().map(|(node, score)| (node.to_string(), json!(score))).collect();
        let unfit: serde_json::Map<String, Value> =
            unfit.iter().map(|(node, why)| (node.to_string(), json!(why))).collect();
        writeln!(
            out,
            "{}",
            serde_json::to_string_pretty(&json!({ "best": best, "scores": scores, "unfit": unfit, "notes": odd }))?
        )?;
    } else {
        for (node, score) in &scores {
            writeln!(out, "{node}: score {score}")?;
            if let Some((_, plan)) = plans.iter().find(|(planned, _)| planned == node) {
                for grant in &plan.grants {
                    let cards: Vec<String> = grant.slices.iter().map(|slice| card(slice, &grant.form)).collect();
                    writeln!(out, "  {} on GPU {}", grant.container, cards.join(", "))?;
                }
            }
        }
        for (node, why) in &unfit {
            writeln!(out, "{node}: {why}")?;
        }
        for note in &odd {
            writeln!(out, "! {note}")?;
        }
    }
    Ok(if best.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What of its host's resources a node has too little of.
fn short(left: HostAmount, wanted: HostAmount) -> Option<&'static str> {
    let resources = [
        ("cpu", left.cpu < wanted.cpu),
        ("memory", left.memory < wanted.memory),
        ("pods", left.pods < wanted.pods),
    ];
    resources.into_iter().find(|(_, short)| *short).map(|(resource, _)| resource)
}

/// A card, and how many shares by count of it.
fn card(slice: &Slice, form: &Form) -> String {
    let card = format!("{} ({})", slice.index, slice.device);
    match form {
        Form::Counted(resource) => format!("{card}: {} x {resource}", slice.count),
        Form::Share | Form::Whole => card,
    }
}

/// The cards by container; of shares by count once for each.
fn containers(plan: &Plan) -> Value {
    let each = |slice: &Slice| std::iter::repeat_n(json!(slice.device.as_str()), slice.count as usize);
    let cards = |grant: &Grant| grant.slices.iter().flat_map(each).collect::<Vec<_>>();
    plan.grants
        .iter()
        .map(|grant| (grant.container.to_string(), json!(cards(grant))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
