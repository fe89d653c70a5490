//! One pod, one attempt: in-tree checks, extender, choice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value;
use tokio::time::Instant;

use super::client::{ExtenderClient, ExtenderError, Filtered};
use super::cluster::{Ask, Cluster};
use super::journal::{Attempt, Outcome};
use crate::api::object;

/// kube-scheduler's `MaxNodeScore / MaxExtenderPriority`.
const SCALE: i64 = 10;
/// In a smaller cluster all nodes are looked at.
const MIN_FEASIBLE: usize = 100;
/// The most refused nodes that the journal names; the others are only counted.
const NAMED: usize = 100;
/// For how long the sorted list of a pod serves equal pods.
const BATCH_TIME: Duration = Duration::from_millis(500);

/// The sorted node list of a pod, for the next equal one.
#[derive(Debug)]
struct Batch {
    spec: Value,
    last: String,
    rest: VecDeque<String>,
    made: Instant,
}

/// State that attempts share.
#[derive(Debug)]
pub(crate) struct Cycle {
    pub(crate) extender: Option<ExtenderClient>,
    pub(crate) rng: StdRng,
    pub(crate) sample: bool,
    pub(crate) batching: bool,
    start: usize,
    batch: Option<Batch>,
}

impl Cycle {
    pub(crate) fn new(extender: Option<ExtenderClient>, rng: StdRng, sample: bool, batching: bool) -> Self {
        Self { extender, rng, sample, batching, start: 0, batch: None }
    }

    /// Fills in an attempt up to the choice of a node.
    pub(crate) async fn run(&mut self, cluster: &mut Cluster, pod: &Arc<Value>, attempt: &mut Attempt) {
        let started = Instant::now();
        let names = cluster.node_names();
        if let Err(error) = self.choose(cluster, &names, pod, attempt).await {
            attempt.outcome = Outcome::Failed(error.to_string());
            attempt.chosen = None;
        } else if attempt.chosen.is_none() {
            attempt.outcome = Outcome::Unschedulable(message(names.len(), attempt));
        }
        attempt.cycle = started.elapsed();
    }

    async fn choose(
        &mut self,
        cluster: &Cluster,
        names: &[String],
        pod: &Arc<Value>,
        attempt: &mut Attempt,
    ) -> Result<(), ExtenderError> {
        let ask = Ask::new(pod);
        if let Some(hint) = self.hint(cluster, pod, &ask)
            && let Some(node) = cluster.node(&hint).filter(|_| cluster.fits(&ask, &hint))
        {
            attempt.hinted = true;
            let left = self.filter(pod, vec![node], attempt).await?;
            if !left.is_empty() {
                if let Some(batch) = &mut self.batch {
                    batch.last.clone_from(&hint);
                    batch.made = Instant::now();
                }
                attempt.chosen = Some(hint);
                return Ok(());
            }
            attempt.hinted = false;
        }
        self.batch = None;
        // the node where others made room for it, or where it waited, is tried first
        let nominated = cluster.nomination(pod).filter(|node| cluster.fits(&ask, node));
        if let Some(node) = nominated.and_then(|node| cluster.node(node))
            && let [only] = self.filter(pod, vec![node], attempt).await?.as_slice()
        {
            attempt.chosen = Some(object::name(only).to_owned());
            return Ok(());
        }
        let feasible = self.feasible(cluster, names, &ask, attempt);
        if feasible.is_empty() {
            return Ok(());
        }
        let left = self.filter(pod, feasible, attempt).await?;
        match left.as_slice() {
            [] => {}
            [only] => attempt.chosen = Some(object::name(only).to_owned()),
            _ => self.rank(pod, &left, attempt).await,
        }
        Ok(())
    }

    /// The next node of an equal pod's list, if its last choice is full now.
    fn hint(&mut self, cluster: &Cluster, pod: &Value, ask: &Ask<'_>) -> Option<String> {
        let batch = self.batch.as_mut()?;
        let usable = batch.made.elapsed() < BATCH_TIME
            && pod.get("spec") == Some(&batch.spec)
            && !cluster.fits(ask, &batch.last);
        usable.then(|| batch.rest.pop_front()).flatten()
    }

    /// The nodes that pass the in-tree checks, or enough of them.
    fn feasible(
        &mut self,
        cluster: &Cluster,
        names: &[String],
        ask: &Ask<'_>,
        attempt: &mut Attempt,
    ) -> Vec<Arc<Value>> {
        let wanted = if self.sample { sample_size(names.len()) } else { names.len() };
        let Some(start) = names.get(self.start).or(names.first()) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut looked = 0;
        for (name, node, state) in cluster.nodes_from(start) {
            if found.len() == wanted {
                break;
            }
            looked += 1;
            let unfit = cluster.unfit(ask, state);
            if unfit.is_empty() {
                found.push(node.clone());
                continue;
            }
            for reason in &unfit {
                match attempt.in_tree_reasons.get_mut(reason.as_ref()) {
                    Some(count) => *count += 1,
                    None => {
                        attempt.in_tree_reasons.insert(reason.to_string(), 1);
                    }
                }
            }
            if attempt.in_tree.len() < NAMED {
                attempt.in_tree.insert(name.to_owned(), unfit.into_iter().map(Into::into).collect());
            }
        }
        self.start = (self.start + looked) % names.len();
        found
    }

    async fn filter(
        &self,
        pod: &Arc<Value>,
        nodes: Vec<Arc<Value>>,
        attempt: &mut Attempt,
    ) -> Result<Vec<Arc<Value>>, ExtenderError> {
        let Some(extender) = self.extender.as_ref().filter(|extender| extender.is_interested(pod)) else {
            attempt.kept = nodes.iter().map(|node| object::name(node).to_owned()).collect();
            return Ok(nodes);
        };
        attempt.asked = nodes.iter().map(|node| object::name(node).to_owned()).collect();
        let filtered = match extender.filter(pod, &nodes).await {
            Ok(filtered) => filtered,
            Err(error) if extender.config().ignorable => {
                tracing::warn!(%error, "ignorable extender skipped");
                Filtered { nodes: attempt.asked.clone(), ..Filtered::default() }
            }
            Err(error) => return Err(error),
        };
        attempt.kept.clone_from(&filtered.nodes);
        attempt.failed = filtered.failed;
        attempt.unresolvable = filtered.unresolvable;
        let by_name: BTreeMap<&str, &Arc<Value>> = nodes.iter().map(|node| (object::name(node), node)).collect();
        Ok(attempt.kept.iter().filter_map(|name| by_name.get(name.as_str()).copied().cloned()).collect())
    }

    /// Scores the nodes and chooses one of the best at random.
    async fn rank(&mut self, pod: &Arc<Value>, nodes: &[Arc<Value>], attempt: &mut Attempt) {
        let mut scores: BTreeMap<String, i64> =
            nodes.iter().map(|node| (object::name(node).to_owned(), 0)).collect();
        if let Some(extender) = self.extender.as_ref().filter(|extender| extender.is_interested(pod)) {
            let weight = extender.config().weight;
            // kube-scheduler swallows errors of prioritize.
            for priority in extender.prioritize(pod, nodes).await.unwrap_or_default() {
                if let Some(score) = scores.get_mut(&priority.host) {
                    *score += priority.score * weight * SCALE;
                }
            }
            attempt.scores.clone_from(&scores);
        }
        let mut sorted: Vec<(String, i64)> = scores.into_iter().collect();
        sorted.shuffle(&mut self.rng);
        sorted.sort_by_key(|(_, score)| std::cmp::Reverse(*score));
        let mut names: VecDeque<String> = sorted.into_iter().map(|(name, _)| name).collect();
        attempt.chosen = names.pop_front();
        if let (true, Some(last)) = (self.batching, attempt.chosen.clone()) {
            self.batch = Some(Batch {
                spec: pod.get("spec").cloned().unwrap_or_default(),
                last,
                rest: names,
                made: Instant::now(),
            });
        }
    }
}

/// kube-scheduler's adaptive `percentageOfNodesToScore`.
fn sample_size(nodes: usize) -> usize {
    if nodes < MIN_FEASIBLE {
        return nodes;
    }
    let percentage = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percentage / 100).max(MIN_FEASIBLE)
}

/// The text of the pod's condition and of kube-scheduler's event: reasons with the number of nodes.
fn message(total: usize, attempt: &Attempt) -> String {
    if total == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut counts: BTreeMap<&str, usize> =
        attempt.in_tree_reasons.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    // A node in both maps is unresolvable.
    let failed = attempt
        .failed
        .iter()
        .filter(|(node, _)| !attempt.unresolvable.contains_key(*node))
        .map(|(_, reason)| reason);
    for reason in failed.chain(attempt.unresolvable.values()) {
        *counts.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort_unstable();
    format!("0/{total} nodes are available: {}.", reasons.join(", "))
}

#[cfg(test)]
mod tests {
    use super::sample_size;

    #[test]
    fn large_clusters_are_sampled() {
        assert_eq!(sample_size(99), 99);
        assert_eq!(sample_size(100), 100);
        assert_eq!(sample_size(1_000), 420);
        assert_eq!(sample_size(5_000), 500);
        assert_eq!(sample_size(20_000), 1_000);
    }
}
