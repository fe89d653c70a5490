//! Keeps the Node's inventory annotation: what the extender reads of this node's GPUs.

use std::collections::BTreeSet;
use std::time::Duration;

use kerf::annotation::inventory;
use kerf_runtime::feed::Feed;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{Cluster, ClusterError, NodeShown};
use crate::base::backoff::Backoff;
use crate::base::level_triggered::{self, Next, Publisher};
use crate::device::scan::Remark;
use crate::publish::node_view::NodeView;
use crate::state::State;

/// How often the Node is read while it cannot be watched, in case the inventory was removed.
const REVIEW: Duration = Duration::from_secs(60);
/// While another client keeps overwriting the inventory, it is written back with growing pauses. After this long
/// without an overwrite, the next one is answered at once.
const PEACE: Duration = Duration::from_secs(120);

/// Keeps the annotation current: where `node` shows another one it is written again. Nothing waits for it. `feed`:
/// the watch of `node`.
pub async fn follow(
    cluster: Cluster,
    state: State,
    node: watch::Receiver<Option<NodeShown>>,
    feed: Feed,
    token: CancellationToken,
) {
    let mut inventory = InventoryAnnotation {
        cluster,
        view: NodeView::new(&state, node),
        feed,
        refusals: BTreeSet::new(),
        written: None,
        at: None,
        contention: Backoff::of_api_server(),
    };
    level_triggered::follow(&mut inventory, &token).await;
}

struct InventoryAnnotation {
    cluster: Cluster,
    view: NodeView,
    feed: Feed,
    /// GPUs already logged as left out.
    refusals: BTreeSet<Remark>,
    /// What the Node was last seen to show, or was written.
    written: Option<String>,
    /// When this process wrote last.
    at: Option<Instant>,
    /// Pauses between writes of the same text.
    contention: Backoff,
}

impl Publisher for InventoryAnnotation {
    type Error = ClusterError;

    async fn publish(&mut self) -> Result<Next, ClusterError> {
        let (roster, shown) = self.view.now();
        for refusal in roster.refusals.difference(&self.refusals) {
            tracing::warn!(%refusal, "not announced on the Node");
        }
        self.refusals.clone_from(&roster.refusals);
        // before the first discovery there is nothing to publish, and an older inventory may still be right
        if !roster.has_gpus() {
            return Ok(Next::within(REVIEW));
        }
        let shown = shown.filter(|_| self.feed.lost().is_none()).map(|shown| shown.inventory);
        Ok(Next::within(self.write(inventory::encode(&roster.inventory()), shown).await?.unwrap_or(REVIEW)))
    }

    async fn changed(&mut self) -> bool {
        self.view.changed().await
    }

    fn failed(&mut self, error: &ClusterError, new: bool, backoff: &mut Backoff) -> Next {
        self.cluster.failed("node");
        if new {
            tracing::warn!(%error, "inventory not published; trying again");
        }
        Next::within(backoff.failed())
    }
}

impl InventoryAnnotation {
    /// Writes `text` where the Node does not show it. `seen`: what it shows, where that is known. Returns when to
    /// check again, where that is before anything changes.
    async fn write(
        &mut self,
        text: String,
        seen: Option<Option<String>>,
    ) -> Result<Option<Duration>, ClusterError> {
        let key = self.cluster.keys().inventory.clone();
        let again = self.written.as_ref() == Some(&text);
        let shown = match seen {
            Some(shown) => shown,
            None if again => self.cluster.node_metadata().await?.annotations.and_then(|mut all| all.remove(&key)),
            None => None,
        };
        if shown.as_ref() == Some(&text) {
            self.written = Some(text);
            return Ok(None);
        }
        let quiet = self.at.map_or(PEACE, |at| at.elapsed());
        if !again || quiet >= PEACE {
            self.contention.reset();
        }
        if again {
            // the watch has not shown the write yet, or another client overwrites it
            let due = self.contention.peek().saturating_sub(quiet);
            if !due.is_zero() {
                return Ok(Some(due));
            }
            self.contention.failed();
            // profiles whose pods are placed, and vcuda, belong in one process
            tracing::warn!(
                removed = shown.is_none(),
                "another client changed this Node's inventory; writing it again"
            );
        }
        self.cluster.annotate_node(&key, &text).await?;
        if !again {
            tracing::info!(bytes = text.len(), "inventory published");
        }
        (self.written, self.at) = (Some(text), Some(Instant::now()));
        Ok(Some(self.contention.peek()))
    }
}
