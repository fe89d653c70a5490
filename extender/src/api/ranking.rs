//! The order of the candidates.

use std::collections::HashSet;

use kerf::k8s;
use kerf::placement::advise::NodeRank;
use kerf::placement::shape::HostAmount;
use kerf::request::PodRequest;
use rustc_hash::FxBuildHasher;

use super::prepare::Asked;
use crate::app::App;

/// The candidates that fit with their ranks, as if every pod in flight were already placed; and the others. `host`:
/// what the pod takes beside GPUs.
pub(super) fn ranks<'a>(
    app: &App,
    pod: &PodRequest,
    host: HostAmount,
    candidates: impl Iterator<Item = &'a str>,
) -> (Vec<(NodeRank, &'a str)>, Vec<&'a str>) {
    // the pod counts only as the watch shows it: any client may call this
    let asking = app.cluster.asking(pod, app.policy);
    // pods that come before it are already counted on their nodes
    let before = asking.claimants();
    let ahead = app.intents.by_node(|other| *other != pod.uid && !before.contains(other), app.clock.now());
    let (mut ranked, mut unfit) = (Vec::new(), Vec::new());
    for (node, rank) in asking.ranks(candidates, host, &ahead) {
        match rank {
            Some(rank) => ranked.push((rank, node)),
            None => unfit.push(node),
        }
    }
    (ranked, unfit)
}

/// The `count` best of these candidates, all of which fit.
pub(super) fn best<'a, A>(
    app: &App,
    asked: &Asked<A>,
    fitting: impl Iterator<Item = &'a str>,
    count: usize,
) -> HashSet<&'a str, FxBuildHasher> {
    let (mut ranked, _) = ranks(app, &asked.asking, k8s::requested(&asked.pod), fitting);
    if count < ranked.len() {
        ranked.select_nth_unstable(count);
        ranked.truncate(count);
    }
    ranked.into_iter().map(|(_, node)| node).collect()
}
