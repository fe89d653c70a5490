//! Events about pods, for `kubectl describe pod`. They are written beside everything else, since nobody waits for them, at a
//! bounded rate; what is too much is dropped, and is in the log.

use std::time::Duration;

use kerf::ids::{PodRef, PodUid};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api::client::Cluster;
use crate::api::event::{About, EventText};
use crate::api::event_queue::EventQueue;
use crate::base::backoff::Backoff;

/// At most so many events wait. A node runs fewer pods.
const WAITING: usize = 256;
/// Between two events, so that thousands of nodes that all start pods leave the API server time for other work.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes events. Clones write to the same.
#[derive(Clone, Debug)]
pub struct PodEvents(mpsc::Sender<(About, EventText)>);

/// What is still to be written.
#[derive(Debug)]
pub struct Waiting(mpsc::Receiver<(About, EventText)>);

impl PodEvents {
    /// Nothing is written before [`Waiting::follow`].
    pub fn new() -> (Self, Waiting) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), Waiting(receiver))
    }

    /// Has an event about this pod written.
    pub fn tell(&self, pod: &PodRef, uid: &PodUid, text: EventText) {
        let reason = text.reason;
        if self.0.try_send((About::Pod(pod.clone(), uid.clone()), text)).is_err() {
            tracing::debug!(%pod, %uid, reason, "too many events wait: dropped");
        }
    }
}

impl Waiting {
    /// Writes the events, in their order, until `token` is cancelled.
    pub async fn follow(mut self, cluster: Cluster, token: CancellationToken) {
        token.run_until_cancelled(self.write(&cluster)).await;
    }

    async fn write(&mut self, cluster: &Cluster) {
        let mut queue = EventQueue::new(1);
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        while let Some((about, text)) = self.0.recv().await {
            queue.push(about, text);
            while let Err(error) = queue.send(cluster).await {
                cluster.failed("event");
                tracing::warn!(%error, "event not written; trying again");
                sleep(backoff.failed()).await;
            }
            backoff.reset();
            sleep(PAUSE).await;
        }
    }
}
