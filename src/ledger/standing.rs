//! What decides, beside its priority, whether a pod leaves when room is made for another.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::units::Timestamp;

/// A pod as the API server last showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// When its node took it on: `status.startTime`, in milliseconds since 1970.
    pub started: Option<Timestamp>,
    /// Whether it is being deleted.
    pub leaving: bool,
    /// `metadata.labels`, which disruption budgets select by.
    pub labels: BTreeMap<String, String>,
}

impl Standing {
    /// Of a pod that was not seen yet.
    pub(super) fn unknown() -> Arc<Self> {
        static UNKNOWN: LazyLock<Arc<Standing>> = LazyLock::new(Arc::default);
        UNKNOWN.clone()
    }
}
