//! The placement that is recorded on a pod, and whether it is accepted.

use std::collections::BTreeMap;

use super::keys::Keys;
use super::unreadable::Unreadable;
use super::{compat, placement};
use crate::ids::NodeName;
use crate::plan::Placement;
use crate::request::GpuRequest;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Absent,
    /// A placement that serves the request.
    Placed(Placement),
    /// A record that is not accepted.
    Unreadable(Unreadable),
}

/// The record of a pod that is bound to `node` and counts as `request` ([`GpuRequest::of_bound`]): a placement on
/// another node is not accepted. The compatibility record has indices of cards of any node: a pod that was bound to
/// another node by hand has those cards there, as under gpu-manager.
pub fn read_bound(
    annotations: &BTreeMap<String, String>,
    keys: &Keys,
    request: &GpuRequest,
    node: &NodeName,
) -> Record {
    match read(annotations, keys, request) {
        Record::Placed(placement) if placement.node != *node && !placement.plan.names_indices_alone() => {
            Record::Unreadable(Unreadable::OtherNode)
        }
        record => record,
    }
}

/// Reads a pod's placement: `gpu-placement` where present, otherwise the compatibility record.
pub fn read(annotations: &BTreeMap<String, String>, keys: &Keys, request: &GpuRequest) -> Record {
    let result = match annotations.get(&keys.placement) {
        Some(text) => placement::decode(text).map(Some),
        None => compat::decode(annotations, keys, request),
    };
    match result {
        Ok(None) => Record::Absent,
        Ok(Some(placement)) if placement.plan.serves(request) => Record::Placed(placement),
        Ok(Some(_)) => Record::Unreadable(Unreadable::OtherRequest),
        Err(error) => Record::Unreadable(error),
    }
}

/// Both records of a new placement, for the Binding.
pub fn write(placement: &Placement, keys: &Keys) -> BTreeMap<String, String> {
    let mut annotations = compat::encode(placement, keys);
    annotations.insert(keys.placement.clone(), placement::encode(placement));
    annotations.insert(keys.gpu_assigned.clone(), "false".into());
    annotations
}

/// Whether the node has confirmed the placement.
pub fn confirmed(annotations: &BTreeMap<String, String>, keys: &Keys) -> bool {
    annotations.get(&keys.gpu_assigned).is_some_and(|value| value == "true")
}
