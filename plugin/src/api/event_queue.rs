//! Events that are still to be written.

use std::collections::VecDeque;

use kerf::ids::{PodRef, PodUid};

use crate::api::client::{Cluster, ClusterError};
use crate::api::event::NodeEvent;
use crate::base::counters::Counters;

/// Events in the order in which they are written. Where too many wait, the oldest is dropped.
#[derive(Debug)]
pub struct EventQueue {
    pending: VecDeque<Pending>,
    most: usize,
}

#[derive(Debug)]
enum Pending {
    Node { name: String, event: NodeEvent },
    Pod { pod: PodRef, uid: PodUid, reason: &'static str, message: String },
}

impl EventQueue {
    /// For at most `most` events.
    pub fn new(most: usize) -> Self {
        Self { pending: VecDeque::new(), most }
    }

    /// An event about the Node. Its name is the same for every try, so that an event that was written without an
    /// answer is not written twice.
    pub fn push(&mut self, name: String, event: NodeEvent) {
        self.add(Pending::Node { name, event });
    }

    /// A warning for a pod's owner.
    pub fn push_for_pod(&mut self, pod: PodRef, uid: PodUid, reason: &'static str, message: String) {
        self.add(Pending::Pod { pod, uid, reason, message });
    }

    fn add(&mut self, event: Pending) {
        self.pending.push_back(event);
        while self.pending.len() > self.most {
            self.pending.pop_front();
        }
    }

    /// Writes all of them. An event that is refused, or whose pod is gone, is dropped: the log has it as well.
    ///
    /// # Errors
    /// The first other failure; what is left is to be tried again, a pod's event after all others.
    pub async fn send(&mut self, cluster: &Cluster, counters: &Counters) -> Result<(), ClusterError> {
        while let Some(next) = self.pending.front() {
            let about_pod = matches!(next, Pending::Pod { .. });
            let (reason, written) = match next {
                Pending::Node { name, event } => (event.reason, cluster.node_event(name, event).await),
                Pending::Pod { pod, uid, reason, message } => {
                    (*reason, cluster.event(pod, uid, reason, message).await)
                }
            };
            match written {
                Ok(()) => {}
                Err(error) if error.refused() || (about_pod && error.gone()) => {
                    counters.api_errors.with_label_values(&["event"]).inc();
                    tracing::warn!(%error, reason, "event refused");
                }
                Err(error) => {
                    // the events of other pods must not wait for this one's; those about the Node keep their order
                    if about_pod {
                        self.pending.rotate_left(1);
                    }
                    return Err(error);
                }
            }
            self.pending.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
