//! Where cards became free, for those that were refused before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use kerf::ids::NodeName;
use rustc_hash::FxBuildHasher;
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
    /// Marked by every end of every binding: they must not wait for each other here.
    nodes: DashMap<NodeName, Free, FxBuildHasher>,
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
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        // nothing that is due is put off by what comes after it
        let later = |free: &mut Free| *free = Free { count: free.count.max(count), due: free.due.min(due) };
        self.nodes.entry(node.clone()).and_modify(later).or_insert(Free { count, due });
    }

    /// How often something became free so far: what was looked at before is older than what gets a larger number.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Takes out the nodes whose time has come, each with the number of its latest mark.
    pub fn due(&self) -> Vec<(NodeName, u64)> {
        let now = Instant::now();
        let mut due = Vec::new();
        self.nodes.retain(|node, free| {
            let comes = free.due <= now;
            if comes {
                due.push((node.clone(), free.count));
            }
            !comes
        });
        due
    }
}
