//! What a kubelet did, in order.

/// One thing that a kubelet did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A plugin registered and its options were read.
    Registered {
        /// What it offers.
        resource: String,
        /// Its socket's file name.
        endpoint: String,
    },
    /// A plugin's stream ended.
    Disconnected {
        /// What it offered.
        resource: String,
    },
    /// `GetPreferredAllocation`.
    Preferred {
        /// `namespace/name` of the pod that it was for; the plugin is not told.
        pod: String,
        /// The container that it was for.
        container: String,
        /// The resource.
        resource: String,
        /// The ids on offer.
        available: Vec<String>,
        /// The ids that are taken in any case.
        must_include: Vec<String>,
        /// How many are wanted.
        size: usize,
        /// What the plugin answered, or its error.
        answer: Result<Vec<String>, String>,
    },
    /// `Allocate`.
    Allocate {
        /// `namespace/name` of the pod that it was for; the plugin is not told.
        pod: String,
        /// The container that it was for.
        container: String,
        /// The resource.
        resource: String,
        /// The ids.
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
        /// `namespace/name` of the pod that it was for; the plugin is not told.
        pod: String,
        /// The container that it was for.
        container: String,
        /// The resource.
        resource: String,
        /// The ids.
        ids: Vec<String>,
        /// The plugin's error, if it refused.
        error: Option<String>,
    },
    /// A container runs.
    Started {
        /// `namespace/name`.
        pod: String,
        /// The container.
        container: String,
    },
}
