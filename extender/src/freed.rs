//! Where cards became free, for those that were refused before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kerf::ids::NodeName;
use tokio::time::Instant;

/// How long kube-scheduler has to ask again by itself about what the API server tells it as well.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether kube-scheduler learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// From an object of the API server, perhaps before we do.
    Told,
    /// Not at all.
    Silent,
}

/// Nodes on which something became free, each with a number that grows.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    count: AtomicU64,
    nodes: Mutex<BTreeMap<NodeName, Free>>,
}

#[derive(Clone, Copy, Debug)]
struct Free {
    count: u64,
    due: Instant,
}

impl Freed {
    /// Something became free on the node.
    pub fn mark(&self, node: &NodeName, news: News) {
        let now = Instant::now();
        let due = match news {
            News::Told => now + PATIENCE,
            News::Silent => now,
        };
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        match nodes.get_mut(node) {
            // nothing that is due is put off by what comes after it
            Some(free) => *free = Free { count, due: free.due.min(due) },
            None => {
                nodes.insert(node.clone(), Free { count, due });
            }
        }
    }

    /// How often something became free so far: what was looked at before is older than what gets a larger number.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Takes out the nodes whose time has come, each with the number of its latest mark.
    pub fn due(&self) -> Vec<(NodeName, u64)> {
        let now = Instant::now();
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        nodes.retain(|node, free| {
            let comes = free.due <= now;
            if comes {
                due.push((node.clone(), free.count));
            }
            !comes
        });
        due
    }
}
