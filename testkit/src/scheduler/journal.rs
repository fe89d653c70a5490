//! The scheduler's questions and answers, attempt by attempt.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A node is chosen and the bind call has no answer yet.
    Binding,
    /// The pod is bound.
    Bound,
    /// The bind call failed; the text says why.
    BindFailed(String),
    /// No node fits; the text is the message of the pod's condition.
    Unschedulable(String),
    /// The attempt itself failed, for example because the extender answered with an error.
    Failed(String),
}

/// One attempt to place one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Counts all attempts of this scheduler from 0.
    pub number: u64,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// Why nodes were refused before the extender was asked; of many nodes only the first hundred.
    pub in_tree: BTreeMap<String, Vec<String>>,
    /// How many nodes were refused for each of these reasons.
    pub in_tree_reasons: BTreeMap<String, usize>,
    /// The nodes that the extender's filter was asked about; empty if it was not asked.
    pub asked: Vec<String>,
    /// Whether it was asked about one node that an earlier equal pod's list suggested.
    pub hinted: bool,
    /// The nodes that filter left.
    pub kept: Vec<String>,
    /// The extender's reasons that evicting pods may remove.
    pub failed: BTreeMap<String, String>,
    /// The extender's reasons that evicting pods does not remove.
    pub unresolvable: BTreeMap<String, String>,
    /// The extender's scores, weighted; empty if it was not asked.
    pub scores: BTreeMap<String, i64>,
    /// The chosen node.
    pub chosen: Option<String>,
    /// The node where pods were evicted for this one.
    pub nominated: Option<String>,
    /// How long filter and prioritize took together.
    pub cycle: Duration,
    /// How long bind took.
    pub bind: Duration,
    /// The result of the attempt.
    pub outcome: Outcome,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: ", self.namespace, self.pod)?;
        match (&self.outcome, &self.chosen) {
            (Outcome::Bound, Some(node)) => write!(f, "bound to {node}")?,
            (Outcome::Binding, Some(node)) => write!(f, "binding to {node}")?,
            (Outcome::BindFailed(why), Some(node)) => write!(f, "bind to {node} failed: {why}")?,
            (Outcome::Unschedulable(why), _) => write!(f, "{why}")?,
            (Outcome::Failed(why) | Outcome::BindFailed(why), _) => write!(f, "failed: {why}")?,
            (Outcome::Bound | Outcome::Binding, None) => write!(f, "no node")?,
        }
        if !self.scores.is_empty() {
            let scores: Vec<String> = self.scores.iter().map(|(node, score)| format!("{node}={score}")).collect();
            write!(f, " (scores {})", scores.join(" "))?;
        }
        Ok(())
    }
}

/// The newest attempts.
#[derive(Debug)]
pub(crate) struct Journal {
    attempts: Mutex<VecDeque<Attempt>>,
    limit: usize,
}

impl Journal {
    pub(crate) fn new(limit: usize) -> Self {
        Self { attempts: Mutex::default(), limit }
    }

    pub(crate) fn push(&self, attempt: Attempt) {
        let mut attempts = self.lock();
        attempts.push_back(attempt);
        while attempts.len() > self.limit {
            attempts.pop_front();
        }
    }

    /// Completes an attempt whose bind call has ended.
    pub(crate) fn bound(&self, number: u64, took: Duration, outcome: Outcome) {
        let mut attempts = self.lock();
        let found = attempts
            .binary_search_by_key(&number, |attempt| attempt.number)
            .ok()
            .and_then(|index| attempts.get_mut(index));
        if let Some(attempt) = found {
            attempt.bind = took;
            attempt.outcome = outcome;
        }
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
