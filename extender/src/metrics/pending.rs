//! Pods that ask for GPUs and are not bound, by why they wait.

use std::collections::BTreeMap;

use kerf::unfit::Unfit;
use kerf_runtime::series::GaugeTable;
use prometheus::core::Desc;

use super::cluster::described;
use crate::cluster::Cluster;
use crate::refused::Refused;

const PENDING: [(&str, &str); 1] = [(
    "kerf_extender_pods_pending",
    "Pods that ask for GPUs and are not bound, by why kerf refused them on most nodes when it was last asked; where it is a matter of room, by that. invalid: the request breaks a rule. not-refused: kerf has a node for them, or was not asked, since they fit on no node for other reasons. Only of the replica that is in use",
)];

const FRAGMENTED: [(&str, &str); 1] = [(
    "kerf_extender_pods_pending_fragmented",
    "Pods that fit on no node, although the free compute and memory of the nodes that kerf was asked about would have been enough together. Only of the replica that is in use",
)];

/// Beside the words of [`Unfit`].
const OTHERS: [&str; 2] = ["invalid", "not-refused"];

pub(super) fn descs() -> prometheus::Result<Vec<Desc>> {
    let mut descs = described(&PENDING, &["reason"])?;
    descs.extend(described(&FRAGMENTED, &[])?);
    Ok(descs)
}

/// The series; none where this replica is not in use, since it is not asked about the pods.
#[allow(clippy::cast_precision_loss, reason = "far fewer than 2^53 pods")]
pub(crate) fn pending(
    cluster: &Cluster,
    refused: &Refused,
    in_use: bool,
) -> impl Iterator<Item = String> + Send + use<> {
    let mut pending = GaugeTable::new(PENDING);
    let mut fragmented = GaugeTable::new(FRAGMENTED);
    if in_use {
        let mut counts: BTreeMap<&str, usize> =
            Unfit::ALL.iter().map(|reason| reason.as_str()).chain(OTHERS).map(|reason| (reason, 0)).collect();
        let (mut told, mut scattered) = (0, 0);
        for (why, is_scattered) in refused.reasons(|uid| cluster.is_pending(uid)) {
            *counts.entry(why.as_str()).or_default() += 1;
            told += 1;
            scattered += usize::from(is_scattered);
        }
        let (waiting, broken) = cluster.unbound();
        counts.insert("invalid", broken);
        counts.insert("not-refused", waiting.saturating_sub(told));
        for (reason, count) in counts {
            pending.row([("reason", reason)], [count as f64]);
        }
        fragmented.row([], [scattered as f64]);
    }
    pending.into_text().chain(fragmented.into_text())
}
