//! Events about the Node.

/// The reason of the condition and of the event while pods of another resource domain hold GPUs.
pub const OTHER_DOMAIN: &str = "OtherResourceDomain";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    /// Of type `Warning`; `Normal` otherwise.
    pub warning: bool,
    /// CamelCase, for programs.
    pub reason: &'static str,
    /// For administrators.
    pub message: String,
}
