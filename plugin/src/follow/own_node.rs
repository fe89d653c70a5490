//! What this node's Node shows: the inventory that was written there, and what an administrator says of its cards.

use kerf_runtime::feed::Feed;
use kerf_runtime::watching::{self, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::client::Cluster;
use crate::api::node::NodeAnnotations;

/// Keeps `latest` current until `token` is cancelled: the Node as it was seen last, and `None` where it is not there, or
/// was not seen yet.
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
        // of one that cannot be read what was known counts
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
