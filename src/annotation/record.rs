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

impl Record {
    /// The record for a pod on `node`: a placement on another node is not accepted. The compatibility record has
    /// indices of cards of any node: a pod that was bound to another node by hand has those cards there, as under
    /// gpu-manager.
    #[must_use]
    fn for_node(self, node: &NodeName) -> Self {
        match self {
            Self::Placed(placement) if placement.node != *node && !placement.plan.names_indices_alone() => {
                Self::Unreadable(Unreadable::OtherNode)
            }
            record => record,
        }
    }
}

/// The record of a pod that is bound to `node` and counts as `request` ([`GpuRequest::of_bound`]).
pub fn read_bound(
    annotations: &BTreeMap<String, String>,
    keys: &Keys,
    request: &GpuRequest,
    node: &NodeName,
) -> Record {
    read(annotations, keys, request).for_node(node)
}

/// Reads a pod's placement: `gpu-placement` where present, otherwise the compatibility record.
pub fn read(annotations: &BTreeMap<String, String>, keys: &Keys, request: &GpuRequest) -> Record {
    let result = match annotations.get(&keys.placement) {
        Some(text) => placement::decode(text),
        None => match compat::decode(annotations, keys, request) {
            Ok(None) => return Record::Absent,
            Ok(Some(placement)) => Ok(placement),
            Err(error) => Err(error),
        },
    };
    match result {
        Ok(placement) if placement.plan.serves(request) => Record::Placed(placement),
        Ok(_) => Record::Unreadable(Unreadable::OtherRequest),
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
