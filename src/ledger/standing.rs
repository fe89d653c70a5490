//! What decides, beside its priority, whether a pod is evicted for another.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::units::Timestamp;

/// The pod as the API server last showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// `status.startTime`, in milliseconds since 1970.
    pub started: Option<Timestamp>,
    /// It is being deleted.
    pub leaving: bool,
    /// `metadata.labels`, which disruption budgets select by.
    pub labels: BTreeMap<String, String>,
}

impl Standing {
    /// For a pod that was not seen yet.
    pub(super) fn unknown() -> Arc<Self> {
        static UNKNOWN: LazyLock<Arc<Standing>> = LazyLock::new(Arc::default);
        UNKNOWN.clone()
    }
}
