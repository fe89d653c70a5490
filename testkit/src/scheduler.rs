//! A scheduler that calls an extender exactly as kube-scheduler does.
//!
//! One pod at a time goes through a serial cycle: in-tree checks (unschedulable flag, taints, node selector; cores,
//! memory and extended resources against allocatable, counting assumed pods), the extender's filter, its prioritize
//! if more than one node is left, the choice; then the pod is assumed and bound in a task of its own while the
//! next pod's cycle begins. Failed pods wait for an event in the cluster or for their backoff. Pods that are nominated
//! to a node count there for pods of no higher priority, and are tried there first. Pods of a group wait in Permit
//! until enough of them have a node. Where a pod fits nowhere, pods of lower priority are evicted, by the extender's
//! `preempt`.
//!
//! Absent on purpose: the number of pods, affinity, in-tree scores, volumes, events, leader election, more than one
//! extender or profile; in preemption, the sampling of nodes and the conditions of evicted pods.

mod client;
mod cluster;
mod config;
mod cycle;
mod journal;
mod message;
mod preemption;
mod queue;
pub(crate) mod request;
mod run;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use client::{ExtenderClient, ExtenderError, Filtered};
pub use config::{ExtenderConfig, ManagedResource, SchedulerConfig};
pub use journal::{Attempt, Outcome};
pub use queue::QueueState;
pub use wire::{
    ExtenderArgs, ExtenderBindingArgs, ExtenderBindingResult, ExtenderFilterResult, HostPriority, NodeList,
};

use journal::Journal;
use message::Message;

/// A running scheduler; dropping it stops it.
#[derive(Debug)]
pub struct Scheduler {
    journal: Arc<Journal>,
    state: watch::Receiver<QueueState>,
    messages: mpsc::UnboundedSender<Message>,
    cancel: CancellationToken,
    running: Option<JoinHandle<()>>,
}

impl Scheduler {
    /// Starts scheduling; returns when nodes and pods have been listed once.
    pub async fn start(config: SchedulerConfig) -> anyhow::Result<Self> {
        let journal = Arc::new(Journal::new(config.journal_limit));
        let cancel = CancellationToken::new();
        let (messages, inbox) = mpsc::unbounded_channel();
        let (publish, mut state) = watch::channel(QueueState::default());
        let running = run::start(config, journal.clone(), messages.clone(), inbox, publish, cancel.clone())?;
        // The first state is published when both lists are in.
        state.changed().await.context("the scheduler ended before it had begun")?;
        Ok(Self { journal, state, messages, cancel, running: Some(running) })
    }

    /// The newest attempts, oldest first.
    pub fn journal(&self) -> Vec<Attempt> {
        self.journal.attempts()
    }

    /// The newest attempts for one pod, oldest first.
    pub fn attempts_of(&self, namespace: &str, pod: &str) -> Vec<Attempt> {
        let mut attempts = self.journal();
        attempts.retain(|attempt| attempt.namespace == namespace && attempt.pod == pod);
        attempts
    }

    /// The number of pods in each state.
    pub fn queue(&self) -> QueueState {
        *self.state.borrow()
    }

    /// Waits until `wanted` holds for the queue.
    pub async fn wait_for(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&QueueState) -> bool,
    ) -> anyhow::Result<QueueState> {
        let mut state = self.state.clone();
        let found = tokio::time::timeout(timeout, state.wait_for(|state| wanted(state)))
            .await
            .with_context(|| format!("not seen in {timeout:?}; the queue is {:?}", self.queue()))?
            .context("the scheduler has ended")?;
        Ok(*found)
    }

    /// Waits until no attempt and no bind is due. A pod that was created a moment ago may not have been seen yet.
    pub async fn wait_idle(&self, timeout: Duration) -> anyhow::Result<QueueState> {
        self.wait_for(timeout, QueueState::is_idle).await
    }

    /// Tries all waiting pods again, as kube-scheduler does every few minutes.
    pub fn flush(&self) {
        // If the loop has ended, no pod is tried any more.
        let _ended = self.messages.send(Message::Flush);
    }

    /// Stops and waits for calls in flight.
    pub async fn shutdown(mut self) {
        self.cancel.cancel();
        if let Some(running) = self.running.take() {
            let _ended = running.await;
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
