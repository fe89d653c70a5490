//! Why a pod waits, or why it is where it is: as a value, for people and for programs.

use kerf::annotation::Keys;
use kerf::ids::PodUid;
use kerf::k8s;
use kerf::placement::advise::Placing;
use kerf::policy::Policy;
use serde::Serialize;

use super::gpus::{self, OfGpu};
use super::help::help;
use crate::amounts::{memory, percent, share};
use crate::cluster::{Cluster, GpuPod, notes};
use crate::place::{Cause, Found, Trial};
use crate::unheeded::unheeded;
use crate::view::{Grant, Pod, PodState, Usage};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    pub pod: Pod,
    /// One sentence.
    pub summary: String,
    /// What would let it be placed; the first thing that would help comes first.
    pub help: Vec<String>,
    /// Nodes with GPUs, and what each says of the pod now; those where it fits first. Empty where no node is asked.
    pub nodes: Vec<OfNode>,
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfNode {
    pub node: String,
    /// Whether the pod is on it.
    pub its_own: bool,
    /// From 0 to 10, where the pod fits now.
    pub score: Option<u8>,
    /// Why it does not fit.
    pub why: Option<String>,
    pub gpus: Vec<OfGpu>,
}

impl Explanation {
    /// Of a pod of the cluster; `policy` is the extender's.
    pub fn of(cluster: &Cluster, pod: &GpuPod, policy: Policy, usage: &Usage) -> Self {
        let shown = Pod::of(pod, cluster, usage);
        let mut notes = own_notes(cluster, &shown);
        let request = match &pod.view.holding {
            Some(holding) => Ok(Some(holding.request.clone())),
            None => pod.view.request.clone(),
        };
        let asked = match request {
            Ok(Some(request)) if shown.state != PodState::Ended => request,
            Ok(_) => {
                let (summary, help) = ended(&shown);
                return Self { summary, help, nodes: Vec::new(), notes, pod: shown };
            }
            Err(rule) => {
                let summary = format!("it is refused everywhere: {rule}");
                let help = vec!["change its request so that it keeps this rule (docs/pods.md)".to_owned()];
                return Self { summary, help, nodes: Vec::new(), notes, pod: shown };
            }
        };
        notes.extend(unheeded(&pod.object));
        let placing = Placing::new(&asked, policy);
        let mut trial = Trial::of(cluster);
        let found = trial.find(&pod.object, placing);
        let nodes = nodes(cluster, &trial, &found, &shown, placing);
        let (summary, help) = match shown.state {
            PodState::Waiting => waits(cluster, pod, &shown, &trial, &found, placing),
            _ => (is_there(&shown), there_help(&shown)),
        };
        Self { summary, help, nodes, notes, pod: shown }
    }
}

fn waits(
    cluster: &Cluster,
    pod: &GpuPod,
    shown: &Pod,
    trial: &Trial,
    found: &Found,
    placing: Placing<'_>,
) -> (String, Vec<String>) {
    let gates = pod.object.spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
    let gates: Vec<&str> = gates.map(|gate| &*gate.name).collect();
    if !gates.is_empty() {
        let help = format!("whoever set {} must remove it from spec.schedulingGates", gates.join(", "));
        return ("it waits for its scheduling gates: no scheduler looks at it".to_owned(), vec![help]);
    }
    if let Some(best) = found.fitting.first() {
        let said = shown.waiting.as_ref().map(|waiting| waiting.message.as_str()).unwrap_or_default();
        let summary = format!("it fits on {} now, and its scheduler has not bound it yet", best.node);
        let help = match said {
            "" => "wait a moment; if it stays, see whether its scheduler runs (kubectl get pods -n kerf-system)"
                .to_owned(),
            said => format!("its scheduler last said: {said}"),
        };
        return (summary, vec![help]);
    }
    let own = k8s::request(&pod.object, &cluster.keys).ok().flatten();
    let asks = own.as_ref().and_then(gpus::hardest).map(|own| asks(&own.ask)).unwrap_or_default();
    let summary = match served(found) {
        0 => format!("it waits: no node has GPUs, and it asks for {asks}"),
        1 => format!("it waits: the one node with GPUs has no room for {asks}"),
        nodes => format!("it waits: none of {nodes} nodes with GPUs has room for {asks}"),
    };
    (summary, help(cluster, trial, found, placing, &pod.view.uid))
}

fn asks(ask: &kerf::request::Ask) -> String {
    use kerf::request::Ask;
    match ask {
        Ask::Share(share) => {
            format!("{} and {} of one GPU", percent(share.compute.0.into()), memory(share.memory.0))
        }
        Ask::Whole { count: 1, .. } => "a whole GPU".to_owned(),
        Ask::Whole { count, .. } => format!("{count} whole GPUs of one node"),
        Ask::Counted(counted) => format!("{} x {}", counted.count, counted.resource),
    }
}

/// Nodes with GPUs among those that were asked.
fn served(found: &Found) -> usize {
    let without =
        |cause: &Cause| matches!(cause, Cause::Gpus(kerf::unfit::Unfit::NoCards | kerf::unfit::Unfit::UnknownNode));
    found.fitting.len() + found.unfit.iter().filter(|(_, cause)| !without(cause)).count()
}

fn is_there(pod: &Pod) -> String {
    let node = pod.node.as_deref().unwrap_or_default();
    let grants: Vec<String> = pod
        .containers
        .iter()
        .flat_map(|own| own.gpus.iter().map(move |grant| format!("{} on GPU {}", own.name, granted(grant))))
        .collect();
    let what = match (pod.counted_by, grants.is_empty()) {
        (Some("record"), false) => grants.join("; "),
        (Some("amounts"), _) => {
            "no record says on which GPU, so its amounts count on every GPU of the node".to_owned()
        }
        (Some("everything"), _) => "its amounts cannot be read, so every GPU of the node counts as full".to_owned(),
        _ => "it holds no GPU".to_owned(),
    };
    let confirmed =
        if pod.confirmed { "the node has given them to it" } else { "the node has not given them to it yet" };
    format!("it is on {node}: {what}; {confirmed}")
}

fn granted(grant: &Grant) -> String {
    let amount = match &grant.shares {
        Some(shares) => format!("{} x {}", shares.count, shares.resource),
        None if grant.whole => "whole".to_owned(),
        None => share(grant.granted),
    };
    format!("{} ({amount}, {})", grant.index, grant.uuid)
}

fn there_help(pod: &Pod) -> Vec<String> {
    match (pod.confirmed, pod.counted_by) {
        (_, Some("amounts" | "everything")) => {
            vec![
                "it was bound without kerf's extender, or its record was changed: make it anew to have it placed"
                    .to_owned(),
            ]
        }
        (false, _) => vec![format!(
            "kubelet of {} has to start it: see kubectl describe pod {} -n {}",
            pod.node.as_deref().unwrap_or_default(),
            pod.name,
            pod.namespace
        )],
        (true, _) => Vec::new(),
    }
}

fn ended(pod: &Pod) -> (String, Vec<String>) {
    if pod.state != PodState::Ended {
        return ("it asks for no GPU: kerf does not choose its node".to_owned(), Vec::new());
    }
    let message = pod.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    let help = match pod.phase.as_str() {
        "Failed" => vec!["it is not started again: its controller makes another pod, or make it anew".to_owned()],
        _ => Vec::new(),
    };
    (format!("it has ended ({}) and holds no GPU{message}", pod.status), help)
}

fn nodes(cluster: &Cluster, trial: &Trial, found: &Found, pod: &Pod, placing: Placing<'_>) -> Vec<OfNode> {
    let own = |name: &str| pod.node.as_deref() == Some(name);
    let uid = PodUid::from(pod.uid.as_str());
    let gpus = |name: &str| {
        trial.nodes.get(name).map(|node| gpus::all(&node.ledger, &uid, placing.request)).unwrap_or_default()
    };
    let fits = found.fitting.iter().map(|fit| OfNode {
        node: fit.node.to_string(),
        its_own: own(fit.node.as_str()),
        score: Some(fit.score),
        why: None,
        gpus: gpus(fit.node.as_str()),
    });
    let with_gpus = |name: &str| cluster.nodes.get(name).is_some_and(|node| !node.ledger.cards().is_empty());
    let others = found.unfit.iter().filter(|(name, _)| with_gpus(name.as_str())).map(|(name, cause)| OfNode {
        node: name.to_string(),
        its_own: own(name.as_str()),
        score: None,
        why: Some(cause.to_string()),
        gpus: gpus(name.as_str()),
    });
    fits.chain(others).collect()
}

/// What is odd about the pod and its node.
fn own_notes(cluster: &Cluster, pod: &Pod) -> Vec<String> {
    let mut notes_of: Vec<String> = cluster.note().into_iter().collect();
    if let Some(message) =
        pod.waiting.as_ref().map(|waiting| &waiting.message).filter(|message| !message.is_empty())
    {
        notes_of.push(format!("its scheduler says: {message}"));
    }
    let node = pod.node.as_deref().and_then(|node| cluster.nodes.get(node));
    if let (Some(node), Some(known)) = (pod.node.as_deref(), node) {
        notes_of.extend(notes(&known.ledger).into_iter().map(|note| format!("{node}: {note}")));
    }
    notes_of
}

/// For messages: names below the domain.
pub fn asks_for(keys: &Keys) -> String {
    format!("{}, {} or GPU shares by count", keys.core, keys.memory)
}
