//! The order of the candidates.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Pod;
use kerf::request::GpuRequest;
use rustc_hash::FxBuildHasher;

use super::uid;
use crate::asking::NodeRank;
use crate::{App, Footprint};

/// The candidates that fit with their ranks, as if every pod in flight were placed already; and the others.
pub(super) fn ranks<'a>(
    app: &App,
    pod: &Pod,
    request: &GpuRequest,
    candidates: impl Iterator<Item = &'a str>,
) -> (Vec<(NodeRank, &'a str)>, Vec<&'a str>) {
    let uid = uid(pod);
    let footprint = Footprint::of(pod);
    // what is counted of the pod is what the watch shows of it: here, anybody asks
    let asking = app.cluster.asking(&uid, request, app.policy);
    // who comes before it is there for it already
    let before = asking.claimants();
    let ahead = app.intents.by_node(|pod| *pod != uid && !before.contains(pod), app.clock.now());
    let (mut ranked, mut unfit) = (Vec::new(), Vec::new());
    for (node, rank) in asking.ranks(candidates, footprint, &ahead) {
        match rank {
            Some(rank) => ranked.push((rank, node)),
            None => unfit.push(node),
        }
    }
    (ranked, unfit)
}

/// The `count` best of these candidates, all of which fit.
pub(super) fn best<'a>(
    app: &App,
    pod: &Pod,
    request: &GpuRequest,
    fitting: impl Iterator<Item = &'a str>,
    count: usize,
) -> HashSet<&'a str, FxBuildHasher> {
    let (mut ranked, _) = ranks(app, pod, request, fitting);
    if count < ranked.len() {
        ranked.select_nth_unstable(count);
        ranked.truncate(count);
    }
    ranked.into_iter().map(|(_, node)| node).collect()
}
