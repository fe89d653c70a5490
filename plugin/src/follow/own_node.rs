//! What this node's Node object shows: the inventory that was written there, and an administrator's cordon of its
//! GPUs.

use kerf_runtime::feed::Feed;
use kerf_runtime::watching::{self, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::client::Cluster;
use crate::api::node::NodeAnnotations;

/// Keeps `latest` current until `token` is cancelled: the Node as it was seen last, or `None` where it does not
/// exist, or was not seen yet.
pub async fn follow(
    cluster: Cluster,
    feed: Feed,
    latest: watch::Sender<Option<NodeAnnotations>>,
    token: CancellationToken,
) {
    let set = |new: Option<NodeAnnotations>| {
        latest.send_if_modified(|known| {
            let changed = *known != new;
            *known = new;
            changed
        });
    };
    let selector = cluster.own_node();
    watching::follow(cluster.nodes(), Some(&selector), feed, token, |event| match event {
        // a Node that cannot be read counts as it was last known
        Event::InitApply(node) | Event::Apply(node) => {
            if let Some(node) = node.readable() {
                set(Some(NodeAnnotations::of(&node, cluster.keys())));
            }
        }
        Event::Delete(_) => set(None),
        Event::Init | Event::InitDone => {}
    })
    .await;
}
