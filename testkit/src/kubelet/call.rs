//! A record of a kubelet's actions, in order.

/// One action of a kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A plugin registered and its options were read.
    Registered {
        /// The plugin's resource.
        resource: String,
        /// File name of the plugin's socket.
        endpoint: String,
    },
    /// A plugin's stream ended.
    Disconnected {
        /// The plugin's resource.
        resource: String,
    },
    /// `GetPreferredAllocation`.
    Preferred {
        /// `namespace/name` of the pod; the plugin does not learn it.
        pod: String,
        /// The container that needs the devices.
        container: String,
        /// The resource that the plugin serves.
        resource: String,
        /// Ids from which the plugin chooses.
        available: Vec<String>,
        /// Ids that must be in the answer.
        must_include: Vec<String>,
        /// The number of ids in the answer.
        size: usize,
        /// The ids that the plugin prefers, or its error.
        answer: Result<Vec<String>, String>,
    },
    /// `Allocate`.
    Allocate {
        /// `namespace/name` of the pod; the plugin does not learn it.
        pod: String,
        /// The container that gets the devices.
        container: String,
        /// The resource that the plugin serves.
        resource: String,
        /// The allocated device ids.
        ids: Vec<String>,
        /// The plugin's error, if it refused.
        error: Option<String>,
    },
    /// A pod was not admitted.
    Rejected {
        /// `namespace/name`.
        pod: String,
        /// The message in the pod's status.
        message: String,
    },
    /// `PreStartContainer`.
    PreStart {
        /// `namespace/name` of the pod; the plugin does not learn it.
        pod: String,
        /// The container that is about to start.
        container: String,
        /// The resource that the plugin serves.
        resource: String,
        /// The container's device ids.
        ids: Vec<String>,
        /// The plugin's error, if it refused.
        error: Option<String>,
    },
    /// A container was started.
    Started {
        /// `namespace/name`.
        pod: String,
        /// The container's name.
        container: String,
    },
}
