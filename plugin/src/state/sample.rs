//! The last measurement, and the last failure of a container that this node is to blame for.

use tokio::time::Instant;

use crate::base::cgroup::Owner;
use crate::device::backend::Usage;

/// A container that failed for reasons of this node.
#[derive(Clone, Debug)]
pub struct Failed {
    pub at: Instant,
    pub reason: String,
}

#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Usage by GPU and process; empty where the driver does not answer.
    pub usage: Usage,
    /// The container of each process, in the order of `usage.processes`.
    pub owners: Vec<Option<Owner>>,
}
