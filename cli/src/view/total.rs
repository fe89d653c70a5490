//! Sums over GPUs.

use serde::Serialize;

use super::amount::Amount;
use super::gpu::{Gpu, State};

/// Sums over a node's GPUs or a cluster's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Nodes with GPUs.
    pub nodes: u64,
    pub gpus: u64,
    /// GPUs that take new pods.
    pub usable_gpus: u64,
    pub unhealthy_gpus: u64,
    pub cordoned_gpus: u64,
    /// GPUs that take new pods and have none: a pod may have them whole.
    pub empty_gpus: u64,
    pub capacity: Amount,
    pub granted: Amount,
    /// What new pods may have: nothing of a GPU that takes none.
    pub free: Amount,
    /// The most that one share may have: what is free on the GPU with the most free compute.
    pub largest_free: Amount,
    /// Of the GPUs that are measured; null where none is.
    pub used: Option<Amount>,
    /// GPUs that are measured.
    pub measured_gpus: u64,
    /// Pods that hold GPUs.
    pub holding_pods: u64,
    /// Pods that wait for a node.
    pub waiting_pods: u64,
}

impl Totals {
    /// Adds GPUs.
    #[must_use]
    pub(super) fn with_gpus(mut self, gpus: &[Gpu]) -> Self {
        for gpu in gpus {
            self.gpus += 1;
            self.usable_gpus += u64::from(gpu.usable);
            self.unhealthy_gpus += u64::from(gpu.state == State::Unhealthy);
            self.cordoned_gpus += u64::from(gpu.state == State::Cordoned);
            self.empty_gpus += u64::from(gpu.empty);
            self.capacity += Amount { compute: 1000, memory_mib: gpu.memory_mib };
            self.granted += gpu.granted;
            self.free += gpu.free;
            let key = |amount: Amount| (amount.compute, amount.memory_mib);
            if key(gpu.free) > key(self.largest_free) {
                self.largest_free = gpu.free;
            }
            if let Some(used) = &gpu.used {
                self.measured_gpus += 1;
                let mut sum = self.used.unwrap_or_default();
                sum += Amount {
                    compute: used.compute.unwrap_or_default(),
                    memory_mib: used.memory_mib.unwrap_or_default(),
                };
                self.used = Some(sum);
            }
        }
        self
    }
}
