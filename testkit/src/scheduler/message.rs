//! Messages to the scheduler's loop.

use std::time::Duration;

use crate::client::informer::News;

#[derive(Debug)]
pub(crate) enum Message {
    Nodes(News),
    Pods(News),
    Budgets(News),
    /// Any other object that wakes pods that an extender has refused.
    Others(News),
    /// A pod has waited in Permit for its group long enough.
    PermitOver {
        uid: String,
        attempt: u64,
    },
    Bound {
        uid: String,
        attempt: u64,
        took: Duration,
        result: Result<(), String>,
    },
    /// A nomination could not be written.
    NotNominated {
        uid: String,
    },
    Flush,
}
