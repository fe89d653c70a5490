//! What a Node's conditions say of it as a place for pods.

use k8s_openapi::api::core::v1::Node;

/// The condition that kerf's plugin writes where containers fail for reasons of the node's own.
pub const ALLOCATIONS_SUCCEED: &str = "KerfAllocationsSucceed";

/// Whether containers fail on the node for reasons of its own, by its plugin's word. Such a node can take pods, but
/// others are better.
pub fn failing(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == ALLOCATIONS_SUCCEED && c.status == "False")
}
