//! Memory that graphs allocate while they run. It comes from the driver's graph pool of each device, which grows when a
//! graph is first launched or uploaded, and keeps its memory until it is trimmed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::budget::Budget;
use super::pool::{Fit, settle};
use super::size;
use crate::abi::{Device, GRAPH_RESERVED, OUT_OF_MEMORY, SUCCESS, Status};
use crate::driver;

/// The memory of this process' graphs.
#[derive(Default)]
pub struct Graphs {
    inner: Mutex<Inner>,
    /// Counted bytes by GPU. One launch with memory at a time, since each looks at the pool before and after.
    pools: Mutex<HashMap<usize, u64>>,
}

#[derive(Default)]
struct Inner {
    /// Bytes of allocation nodes, by graph.
    graphs: HashMap<usize, u64>,
    /// By handle of the executable graph.
    executables: HashMap<usize, Executable>,
}

#[derive(Clone, Copy)]
struct Executable {
    bytes: u64,
    /// The pool has grown for it since it was trimmed, or since it was found too large.
    backed: bool,
}

impl Graphs {
    /// An allocation node was added or captured.
    pub fn allocates(&self, graph: usize, bytes: u64) {
        let mut inner = self.inner();
        let sum = inner.graphs.entry(graph).or_default();
        *sum = sum.saturating_add(size::linear(bytes));
    }

    /// A graph, or a node of it, includes all of another graph.
    pub fn includes(&self, graph: usize, other: usize) {
        let bytes = self.inner().graphs.get(&other).copied().unwrap_or(0);
        if bytes > 0 {
            self.allocates(graph, bytes);
        }
    }

    /// An executable graph was made or updated from a graph.
    pub fn instantiated(&self, executable: usize, graph: usize) {
        let mut inner = self.inner();
        match inner.graphs.get(&graph).copied() {
            Some(bytes) => drop(inner.executables.insert(executable, Executable { bytes, backed: false })),
            // an earlier executable graph may have had the handle
            None => drop(inner.executables.remove(&executable)),
        }
    }

    pub fn destroyed(&self, graph: usize) {
        self.inner().graphs.remove(&graph);
    }

    pub fn executable_destroyed(&self, executable: usize) {
        self.inner().executables.remove(&executable);
    }

    /// Whether launching it can make the pool grow.
    pub fn has_memory(&self, executable: usize) -> bool {
        self.inner().executables.contains_key(&executable)
    }

    /// Launches or uploads a graph that allocates.
    pub fn launch(&self, budget: &dyn Budget, executable: usize, call: impl FnOnce() -> Status) -> Status {
        let Some(card) = budget.here() else { return OUT_OF_MEMORY };
        let Some(known) = self.inner().executables.get(&executable).copied() else { return call() };
        let mut pools = self.pools();
        let counted = pools.entry(card).or_default();
        if !known.backed {
            let growth = size::pooled(known.bytes);
            if budget.reserve(card, growth).is_err() {
                self.settle_after_trim(budget, card, counted);
                if budget.reserve(card, growth).is_err() {
                    return OUT_OF_MEMORY;
                }
            }
            *counted = counted.saturating_add(growth);
        }
        let status = call();
        let fit = self.settle(budget, card, counted);
        if fit == Fit::Over {
            // graphs that run at the same time do not share memory: none is launched again before there is room
            self.forget_backing();
        }
        drop(pools);
        if status == SUCCESS
            && fit == Fit::Within
            && let Some(executable) = self.inner().executables.get_mut(&executable)
        {
            executable.backed = true;
        }
        status
    }

    /// The program has trimmed the pool.
    pub fn trimmed(&self, budget: &dyn Budget, card: usize) {
        let mut pools = self.pools();
        let counted = pools.entry(card).or_default();
        self.forget_backing();
        self.settle(budget, card, counted);
    }

    /// Makes the driver give back the memory that it keeps for graphs on a GPU; returns whether there is any.
    pub fn trim(&self, budget: &dyn Budget, card: usize) -> bool {
        // a launch that is under way does so itself
        let Ok(mut pools) = self.pools.try_lock() else { return false };
        match pools.get_mut(&card) {
            Some(counted) if *counted > 0 => {
                self.settle_after_trim(budget, card, counted);
                true
            }
            _ => false,
        }
    }

    fn settle_after_trim(&self, budget: &dyn Budget, card: usize, counted: &mut u64) {
        let Some(device) = budget.device_of(card) else { return };
        // SAFETY: the device is the only argument.
        unsafe { driver::cuDeviceGraphMemTrim(device) };
        self.forget_backing();
        self.settle(budget, card, counted);
    }

    fn settle(&self, budget: &dyn Budget, card: usize, counted: &mut u64) -> Fit {
        let Some(device) = budget.device_of(card) else { return Fit::Within };
        let mut reserved = 0;
        // SAFETY: the pointer is to a local of the attribute's type.
        let status =
            unsafe { driver::cuDeviceGetGraphMemAttribute(device as Device, GRAPH_RESERVED, &raw mut reserved) };
        if status == SUCCESS { settle(budget, card, counted, reserved) } else { Fit::Within }
    }

    fn forget_backing(&self) {
        for executable in self.inner().executables.values_mut() {
            executable.backed = false;
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<usize, u64>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
