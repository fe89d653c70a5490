//! What would let a pod that waits be placed: the first thing that would help comes first.

use kerf::device::{Health, Inventory};
use kerf::ids::{NodeName, PodUid};
use kerf::ledger::{NodeLedger, Trial as LedgerTrial};
use kerf::placement::Planner;
use kerf::placement::advise::Placing;
use kerf::request::Ask;
use kerf::units::Share;

use super::gpus::hardest;
use crate::amounts::{count, memory, percent};
use crate::cluster::Cluster;
use crate::place::{Cause, Found, Trial};

/// At most so many of each kind are told.
const TOLD: usize = 3;
/// Nodes on which the departure of several pods is tried: a bound on the work.
const TRIED: usize = 256;

/// Sentences, the most useful first. Empty where nothing is known that would help.
pub fn help(cluster: &Cluster, trial: &Trial, found: &Found, placing: Placing<'_>, own: &PodUid) -> Vec<String> {
    let scene = Scene { cluster, trial, found, placing, own };
    let mut help = scene.closed_nodes();
    help.extend(scene.gpus_out_of_service());
    let one = scene.one_pod_less();
    if one.is_empty() {
        help.extend(scene.several_pods_less());
    }
    help.extend(one);
    if help.is_empty() {
        help.push(
            "no node of the cluster could take it even if it were empty: it must ask for less, or get other nodes"
                .to_owned(),
        );
    }
    help.extend(scene.ask_for_less());
    help
}

struct Scene<'a> {
    cluster: &'a Cluster,
    trial: &'a Trial,
    found: &'a Found,
    placing: Placing<'a>,
    own: &'a PodUid,
}

impl Scene<'_> {
    fn fits(&self, ledger: &NodeLedger) -> bool {
        Planner::default().fit(ledger, self.placing.request, self.placing.policy).is_ok()
    }

    fn unfit(&self, gpus: bool) -> impl Iterator<Item = (&NodeName, &Cause, &NodeLedger)> {
        let nodes = self.found.unfit.iter().filter(move |(_, cause)| matches!(cause, Cause::Gpus(_)) == gpus);
        nodes.filter_map(|(name, cause)| Some((name, cause, &self.trial.nodes.get(name)?.ledger)))
    }

    /// Nodes with room that kube-scheduler leaves out.
    fn closed_nodes(&self) -> Vec<String> {
        let roomy = self.unfit(false).filter(|(_, _, ledger)| self.fits(ledger));
        let told = roomy.map(|(node, cause, _)| match cause {
            Cause::Selector => format!("its GPUs would fit on {node}: drop or change its nodeSelector, or label the node so"),
            Cause::Host(resource) => {
                format!("its GPUs would fit on {node}: ask for less {resource}, or free some there (kubectl describe node {node})")
            }
            Cause::Closed(words) => format!("its GPUs would fit on {node}: {}", opened(words, node)),
            Cause::Gpus(why) => why.to_string(),
        });
        told.take(TOLD).collect()
    }

    /// GPUs that would have room, were they healthy and not cordoned.
    fn gpus_out_of_service(&self) -> Vec<String> {
        let mut told = Vec::new();
        for (node, _, ledger) in self.unfit(true) {
            let cards = || ledger.cards().iter().map(|card| card.device());
            let cordoned: Vec<String> =
                cards().filter(|own| own.cordoned).map(|own| own.index.to_string()).collect();
            let ill: Vec<String> =
                cards().filter(|own| own.health == Health::Unhealthy).map(|own| own.index.to_string()).collect();
            let with = |healed: bool| {
                let mut devices: Vec<_> = cards().cloned().collect();
                for device in &mut devices {
                    device.cordoned = false;
                    if healed {
                        device.health = Health::Healthy;
                    }
                }
                let mut later = ledger.clone();
                later.set_inventory(&Inventory::new(devices));
                self.fits(&later)
            };
            if !cordoned.is_empty() && with(false) {
                let domain = &self.cluster.keys.cordon;
                told.push(format!(
                    "it would fit on {node} if GPU {} were not cordoned: kubectl annotate node {node} {domain}-",
                    cordoned.join(", ")
                ));
            } else if !ill.is_empty() && with(true) {
                told.push(format!(
                    "it would fit on {node} if GPU {} were healthy again: kubectl describe node {node} says what is wrong",
                    ill.join(", ")
                ));
            }
        }
        told.truncate(TOLD);
        told
    }

    /// Pods each of which would leave enough room, those with the least priority and the least GPUs first.
    fn one_pod_less(&self) -> Vec<String> {
        let mut pods = Vec::new();
        for (node, _, ledger) in self.unfit(true) {
            for (uid, known) in ledger.commitments().iter().filter(|(uid, _)| *uid != self.own) {
                if self.fits(&ledger.without(|other| other == uid)) {
                    let taken = known.taken().map(|taken| taken.share()).fold(Share::ZERO, Share::saturating_add);
                    pods.push((known.request.priority, taken.compute, taken.memory, known.pod.to_string(), node));
                }
            }
        }
        pods.sort();
        let told = pods.into_iter().take(TOLD).map(|(_, compute, mib, pod, node)| {
            let held = match mib.0 {
                0 => percent(compute.0.into()),
                mib => format!("{} and {}", percent(compute.0.into()), memory(mib)),
            };
            format!("it would fit on {node} if {pod} went ({held})")
        });
        told.collect()
    }

    /// The fewest pods of one node that would leave enough room.
    fn several_pods_less(&self) -> Option<String> {
        let mut best: Option<(Vec<String>, &NodeName)> = None;
        for (node, _, ledger) in self.unfit(true).take(TRIED) {
            let mut pods: Vec<_> = ledger.commitments().iter().filter(|(uid, _)| *uid != self.own).collect();
            // those that take most stay first
            let taken =
                |known: &kerf::ledger::Commitment| known.taken().map(|own| own.share().compute.0).sum::<u32>();
            pods.sort_by_key(|(_, known)| (known.request.priority, taken(known)));
            let uids: Vec<&PodUid> = pods.iter().map(|(uid, _)| *uid).collect();
            let mut trial = LedgerTrial::without(ledger, &uids);
            if !self.fits(trial.node()) {
                continue;
            }
            let mut gone = Vec::new();
            for (place, (_, known)) in pods.iter().enumerate().rev() {
                trial.set(place, false);
                if !self.fits(trial.node()) {
                    trial.set(place, true);
                    gone.push(known.pod.to_string());
                }
            }
            if best.as_ref().is_none_or(|(fewest, _)| gone.len() < fewest.len()) {
                best = Some((gone, node));
            }
        }
        let (pods, node) = best?;
        let named: Vec<&str> = pods.iter().take(TOLD).map(String::as_str).collect();
        let more = pods.len().saturating_sub(TOLD);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Some(format!(
            "it would fit on {node} if {} went: {}{more}",
            count(pods.len() as u64, "pod"),
            named.join(", ")
        ))
    }

    /// What would fit now.
    fn ask_for_less(&self) -> Option<String> {
        let own = hardest(self.placing.request)?;
        let open = || self.unfit(true).map(|(node, _, ledger)| (node, ledger));
        match &own.ask {
            Ask::Share(_) => {
                let (node, most) = open()
                    .map(|(node, ledger)| (node, ledger.roomiest()))
                    .max_by_key(|(_, most)| (most.compute, most.memory))?;
                (most.compute.0 > 0).then(|| {
                    format!(
                        "a share of at most {} and {} would fit now, on {node}",
                        percent(most.compute.0.into()),
                        memory(most.memory.0)
                    )
                })
            }
            Ask::Whole { .. } => {
                let empty = |ledger: &NodeLedger| ledger.rooms().iter().filter(|room| room.untouched).count();
                let (node, most) =
                    open().map(|(node, ledger)| (node, empty(ledger))).max_by_key(|(_, most)| *most)?;
                (most > 0).then(|| format!("{} of {node} would fit now", count(most as u64, "whole GPU")))
            }
            Ask::Counted(counted) => {
                let name = counted.resource.as_str();
                let free =
                    |ledger: &NodeLedger| ledger.cards().iter().map(|card| card.free_shares(name)).sum::<u32>();
                let (node, most) =
                    open().map(|(node, ledger)| (node, free(ledger))).max_by_key(|(_, most)| *most)?;
                (most > 0 && most < counted.count).then(|| format!("{most} x {name} would fit now, on {node}"))
            }
        }
    }
}

/// How a node that is closed is opened to the pod.
fn opened(words: &str, node: &NodeName) -> String {
    if words.contains("unschedulable") {
        return format!("the node is cordoned: kubectl uncordon {node}");
    }
    format!("{words}: give the pod a toleration for it, or take it from the node")
}
