//! `kerf plan`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use k8s_openapi::api::core::v1::Pod;
use kerf::annotation::Keys;
use kerf::ids::{NodeName, PodUid};
use kerf::k8s;
use kerf::placement::advise::{Circumstances, Placing};
use kerf::placement::shape::{HostAmount, Shape};
use kerf::placement::{Planner, scores};
use kerf::plan::{CountedDevice, DeviceRef, Grant, Plan};
use kerf::policy::Policy;
use serde_json::{Value, json};

use super::notes::notes;
use super::print::say;
use super::snapshot::{self, Cluster};
use super::unheeded::unheeded;

pub fn run(
    pod: &Path,
    cluster: &Path,
    keys: &Keys,
    policy: Policy,
    as_json: bool,
    out: &mut String,
) -> anyhow::Result<ExitCode> {
    let pod = snapshot::pod(pod)?;
    let request = match k8s::request(&pod, keys) {
        Ok(Some(request)) => request,
        Ok(None) => {
            let (core, memory) = (&keys.core, &keys.memory);
            let anywhere =
                format!("the pod asks for no {core}, {memory} or GPU shares by count: it may go anywhere");
            if as_json {
                Found::default().json(None, &[anywhere], out)?
            } else {
                say(out, &anywhere)
            }
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            let refused = error.to_string();
            match as_json {
                true => Found::default().json(Some(&refused), &[], out)?,
                false => say(out, &format!("refused everywhere: {refused}")),
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    let cluster = snapshot::cluster(cluster, keys)?;
    let mut odd: Vec<String> = cluster.note(keys).into_iter().collect();
    odd.extend(unheeded(&pod));
    for (node, known) in &cluster.nodes {
        odd.extend(notes(&known.ledger).into_iter().map(|note| format!("{node}: {note}")));
    }
    let found = Found::new(cluster, &pod, Placing::new(&request, policy));
    if as_json {
        found.json(None, &odd, out)?;
    } else {
        found.text(&odd, out);
    }
    Ok(if found.fitting.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The default: no node was asked.
#[derive(Default)]
struct Found {
    /// Nodes where the pod fits, the best first, with their scores.
    fitting: Vec<(NodeName, u8, Plan)>,
    /// Nodes where it does not, with the reasons.
    unfit: Vec<(NodeName, String)>,
}

impl Found {
    fn new(cluster: Cluster, pod: &Pod, placing: Placing<'_>) -> Self {
        let Cluster { nodes, mut survey, .. } = cluster;
        let uid = PodUid::from(pod.metadata.uid.as_deref().unwrap_or_default());
        let (host, tolerations) = (k8s::requested(pod), k8s::tolerations(pod));
        let shape = Shape::of(Some(placing.request), host.cpu, host.memory);
        let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
        let (mut plans, mut ranked, mut unfit) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (name, node) in &nodes {
            // kube-scheduler does not ask the extender about such a node; the text is kube-scheduler's
            if let Some(short) = survey.left(name.as_str()).and_then(|left| short(left, host)) {
                unfit.push((name.clone(), format!("Insufficient {short}")));
                continue;
            }
            if selector.into_iter().flatten().any(|(key, value)| node.labels.get(key) != Some(value)) {
                unfit.push((name.clone(), "node does not have the labels of the pod's nodeSelector".to_owned()));
                continue;
            }
            if let Some(closed) = node.taints.close(&tolerations) {
                unfit.push((name.clone(), closed.to_string()));
                continue;
            }
            // what the pod holds itself does not block it
            let elsewhere = !node.ledger.commitments().contains_key(&uid);
            let ledger = if elsewhere { node.ledger.clone() } else { node.ledger.without(|other| *other == uid) };
            let mut planner = match placing.surveys() {
                true => placing.planner(&mut survey, &shape, name.as_str()),
                false => Planner::default(),
            };
            match planner.plan(&ledger, placing.request, placing.policy) {
                Ok(plan) => {
                    let circumstances = Circumstances { elsewhere, failing: node.failing };
                    let rank = placing.rank(&mut planner, &ledger, circumstances, &[]);
                    ranked.push((name.as_str(), Some(rank)));
                    plans.insert(name.clone(), plan);
                }
                Err(why) => unfit.push((name.clone(), why.to_string())),
            }
        }
        if placing.surveys() {
            placing.weigh(&mut survey, &shape, &mut ranked, |_| None);
        }
        let mut ranked: Vec<_> = ranked.into_iter().filter_map(|(name, rank)| Some((rank?, name))).collect();
        let fitting = scores(&mut ranked).into_iter().filter_map(|(name, score)| {
            let (name, plan) = plans.remove_entry(name)?;
            Some((name, score, plan))
        });
        Self { fitting: fitting.collect(), unfit }
    }

    fn json(&self, refused: Option<&str>, notes: &[String], out: &mut String) -> anyhow::Result<()> {
        let best = |(node, _, plan): &(NodeName, u8, Plan)| json!({ "node": node.as_str(), "containers": containers(plan) });
        let scores: serde_json::Map<String, Value> =
            self.fitting.iter().map(|(node, score, _)| (node.to_string(), json!(score))).collect();
        let unfit: serde_json::Map<String, Value> =
            self.unfit.iter().map(|(node, why)| (node.to_string(), json!(why))).collect();
        let best = self.fitting.first().map(best);
        let found = json!({ "best": best, "scores": scores, "unfit": unfit, "refused": refused, "notes": notes });
        writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?;
        Ok(())
    }

    fn text(&self, notes: &[String], out: &mut String) {
        for (node, score, plan) in &self.fitting {
            say(out, &format!("{node}: score {score}"));
            for grant in &plan.grants {
                say(out, &format!("  {} on GPU {}", grant.container, cards(&grant.gpus).join(", ")));
            }
        }
        for (node, why) in &self.unfit {
            say(out, &format!("{node}: {why}"));
        }
        for note in notes {
            say(out, &format!("! {note}"));
        }
    }
}

/// The host resource that a node has too little of.
fn short(left: HostAmount, wanted: HostAmount) -> Option<&'static str> {
    let resources = [
        ("cpu", left.cpu < wanted.cpu),
        ("memory", left.memory < wanted.memory),
        ("pods", left.pods < wanted.pods),
    ];
    resources.into_iter().find(|(_, short)| *short).map(|(resource, _)| resource)
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
    plan.grants
        .iter()
        .map(|grant| (grant.container.to_string(), json!(cards(&grant.gpus))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
