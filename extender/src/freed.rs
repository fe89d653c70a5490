//! Nodes where cards became free, for pods that were refused before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use kerf::ids::NodeName;
use rustc_hash::FxBuildHasher;
use tokio::time::Instant;

/// How long to wait for kube-scheduler to try again by itself, where the API server shows it the same change.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether kube-scheduler learns of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// From an object of the API server, perhaps before we do.
    Told,
    /// Not at all: only this process knows.
    Silent,
}

/// Nodes on which something became free, each with an increasing number.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    count: AtomicU64,
    /// Every binding marks a node when it ends: bindings must not wait for each other here.
    nodes: DashMap<NodeName, Free, FxBuildHasher>,
}

#[derive(Clone, Copy, Debug)]
struct Free {
    count: u64,
    due: Instant,
}

impl Freed {
    pub fn mark(&self, node: &NodeName, news: News) {
        let now = Instant::now();
        let due = match news {
            News::Told => now + PATIENCE,
            News::Silent => now,
        };
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        // a later mark does not delay an earlier one
        let later = |free: &mut Free| *free = Free { count: free.count.max(count), due: free.due.min(due) };
        self.nodes.entry(node.clone()).and_modify(later).or_insert(Free { count, due });
    }

    /// The number of the latest mark: a mark with a larger number came after this call.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Removes and returns the nodes whose time has come, each with the number of its latest mark.
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
