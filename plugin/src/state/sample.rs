//! The last measurement, and the last failure of a container that this node is to blame for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use kerf_limiter_contract::state::Snapshot;
use parking_lot::Mutex;
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
    /// What containers' limiters said after the measurement, by directory.
    said: Arc<Mutex<BTreeMap<PathBuf, Said>>>,
}

/// `None` in it: the container's file cannot be read.
type Said = Arc<OnceLock<Option<Arc<Snapshot>>>>;

impl Sample {
    pub fn new(usage: Usage, owners: Vec<Option<Owner>>) -> Self {
        Self { usage, owners, said: Arc::default() }
    }

    /// The state file of the container with this directory. It is some 0.5 MB long, and several loops need it after each
    /// measurement: whoever asks first reads it.
    pub fn said_by(&self, directory: &Path, read: impl FnOnce() -> Option<Snapshot>) -> Option<Arc<Snapshot>> {
        let said = Arc::clone(self.said.lock().entry(directory.to_owned()).or_default());
        said.get_or_init(|| read().map(Arc::new)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_file_is_read_once_for_each_measurement() {
        let mut reads = Vec::new();
        let (first, second) = (Sample::default(), Sample::default());
        for (sample, directory) in [(&first, "/a"), (&first, "/b"), (&first.clone(), "/a"), (&second, "/a")] {
            let said = sample.said_by(Path::new(directory), || {
                reads.push(directory);
                (directory == "/a").then(Snapshot::default)
            });
            assert_eq!(said.is_some(), directory == "/a");
        }
        assert_eq!(reads, ["/a", "/b", "/a"]);
    }
}
