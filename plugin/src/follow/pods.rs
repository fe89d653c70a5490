//! Follows this node's pods and its Node at the API server.

use k8s_openapi::api::core::v1::Pod;
use kerf_runtime::feed::Feed;
use kerf_runtime::guarded::Guarded;
use kerf_runtime::watching::{self, Event};
use kube::Resource as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{Cluster, NodeShown, pod};
use crate::state::{self, State};

/// Translates every event about pods and drops the object. Ends with the token.
pub async fn follow(cluster: Cluster, state: State, feed: Feed, token: CancellationToken) {
    let selector = cluster.selector();
    watching::follow(cluster.pods(), Some(&selector), feed, token, |event| apply(event, &cluster, &state)).await;
}

fn apply(event: Event<Guarded<Pod>>, cluster: &Cluster, state: &State) {
    match event {
        Event::Init => state.allocations(|allocations| allocations.begin_list()),
        Event::InitDone => {
            state.allocations(|allocations| allocations.end_list());
            // what kubelet listed before the pods were known can be interpreted now
            state.doubt();
        }
        Event::Apply(object) | Event::InitApply(object) => {
            if let Some(seen) = pod::seen(object, cluster.keys()) {
                state.allocations(|allocations| allocations.see(seen));
                mind(state);
            }
        }
        Event::Delete(object) => {
            if let Some(uid) = pod::uid(object.meta()) {
                tracing::debug!(%uid, "pod deleted");
                state.allocations(|allocations| allocations.forget(&uid));
                mind(state);
            }
        }
    }
}

/// A pod that is over is still in kubelet's checkpoint.
fn mind(state: &State) {
    if state.allocations(|allocations| allocations.kubelet.departing()) {
        state.doubt();
    }
}

/// Keeps current what this node's Node shows, the inventory that was written there and an administrator's cordon of its
/// GPUs, until `token` is cancelled: as it was seen last, or `None` where it does not exist, or was not seen yet.
pub async fn follow_node(
    cluster: Cluster,
    feed: Feed,
    latest: watch::Sender<Option<NodeShown>>,
    token: CancellationToken,
) {
    let selector = cluster.own_node();
    watching::follow(cluster.nodes(), Some(&selector), feed, token, |event| match event {
        // a Node that cannot be read counts as it was last known
        Event::InitApply(node) | Event::Apply(node) => {
            if let Some(node) = node.readable() {
                state::set(&latest, Some(NodeShown::of(&node, cluster.keys())));
            }
        }
        Event::Delete(_) => drop(state::set(&latest, None)),
        Event::Init | Event::InitDone => {}
    })
    .await;
}
