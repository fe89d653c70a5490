//! Events that are still to be written.

use std::collections::VecDeque;

use crate::api::client::{Cluster, ClusterError};
use crate::api::event::{About, EventText};

/// Events in the order in which they are written. Where too many wait, the oldest is dropped.
#[derive(Debug)]
pub struct EventQueue {
    pending: VecDeque<(About, EventText)>,
    most: usize,
}

impl EventQueue {
    /// For at most `most` events.
    pub fn new(most: usize) -> Self {
        Self { pending: VecDeque::new(), most }
    }

    pub fn push(&mut self, about: About, text: EventText) {
        self.pending.push_back((about, text));
        while self.pending.len() > self.most {
            self.pending.pop_front();
        }
    }

    /// Writes all of them. An event that is refused, or whose pod is gone, is dropped: the log has it as well.
    ///
    /// # Errors
    /// The first other failure; what is left is to be tried again, a pod's event after all others.
    pub async fn send(&mut self, cluster: &Cluster) -> Result<(), ClusterError> {
        while let Some((about, text)) = self.pending.front() {
            let about_pod = matches!(about, About::Pod(..));
            match cluster.event(about, text).await {
                Ok(()) => {}
                Err(error) if error.refused() || (about_pod && error.gone()) => {
                    cluster.failed("event");
                    tracing::warn!(%error, reason = text.reason, "event refused");
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
