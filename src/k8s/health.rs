//! Conditions of a Node that tell how well it serves pods.

use k8s_openapi::api::core::v1::Node;

/// The condition that kerf's plugin sets to false where containers fail because of the node itself.
pub const ALLOCATIONS_SUCCEED: &str = "KerfAllocationsSucceed";

/// Whether containers fail on the node because of the node itself, as its plugin reports. It still takes pods, but
/// other nodes are better.
pub fn failing(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == ALLOCATIONS_SUCCEED && c.status == "False")
}
