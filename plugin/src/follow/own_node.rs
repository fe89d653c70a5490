//! What this node's Node shows: the inventory that was written there, and what an administrator says of its cards.

use k8s_openapi::api::core::v1::Node;
use kerf::annotation::Keys;
use kerf_runtime::feed::Feed;
use kerf_runtime::watching::{self, Event};
use kube::core::PartialObjectMeta;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::client::Cluster;

/// The annotations of the Node that concern the plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// `gpu-inventory`.
    pub inventory: Option<String>,
    /// `gpu-cordon`.
    pub cordon: Option<String>,
}

impl Shown {
    fn of(node: &PartialObjectMeta<Node>, keys: &Keys) -> Self {
        let annotation = |key: &str| node.metadata.annotations.as_ref()?.get(key).cloned();
        Self { inventory: annotation(&keys.inventory), cordon: annotation(&keys.cordon) }
    }
}

/// The Node as it was seen last; `None` where it is not there, or was not seen yet.
pub type Latest = Option<Shown>;

/// Keeps `latest` current until `token` is cancelled.
pub async fn follow(cluster: Cluster, feed: Feed, latest: watch::Sender<Latest>, token: CancellationToken) {
    let set = |new: Latest| {
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
                set(Some(Shown::of(&node, cluster.keys())));
            }
        }
        Event::Delete(_) => set(None),
        Event::Init | Event::InitDone => {}
    })
    .await;
}
