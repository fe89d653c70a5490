//! Events about the Node and its pods.

use kerf::ids::{PodRef, PodUid};

/// The reason of the condition and of the event while pods of another resource domain hold GPUs.
pub const OTHER_DOMAIN: &str = "OtherResourceDomain";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// The Node, by the end of the event's name. It is the same for every try, so that an event that was written
    /// without an answer is not written twice.
    Node(String),
    /// A pod: for its owner.
    Pod(PodRef, PodUid),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventText {
    /// Of type `Warning`; `Normal` otherwise.
    pub warning: bool,
    /// CamelCase, for programs.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl EventText {
    pub fn warning(reason: &'static str, message: String) -> Self {
        Self { warning: true, reason, message }
    }

    pub fn normal(reason: &'static str, message: String) -> Self {
        Self { warning: false, reason, message }
    }
}
