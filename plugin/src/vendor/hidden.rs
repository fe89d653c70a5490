//! GPUs that a driver finds and that are not passed on.

use std::collections::{BTreeMap, BTreeSet};

use kerf::device::Health;
use kerf::ids::DeviceId;
use parking_lot::Mutex;

use crate::device::backend::{HostDevice, Usage};

/// Those of the last discovery. New ones are passed on until the next.
#[derive(Default)]
pub struct Hidden(Mutex<BTreeSet<DeviceId>>);

impl Hidden {
    pub(super) fn set<'a>(&self, hosts: impl Iterator<Item = &'a HostDevice>) {
        *self.0.lock() = hosts.map(|host| host.device.id.clone()).collect();
    }

    pub(super) fn health(&self, mut health: BTreeMap<DeviceId, Health>) -> BTreeMap<DeviceId, Health> {
        let hidden = self.0.lock();
        health.retain(|id, _| !hidden.contains(id));
        health
    }

    pub(super) fn usage(&self, mut usage: Usage) -> Usage {
        let hidden = self.0.lock();
        usage.gpus.retain(|id, _| !hidden.contains(id));
        usage.processes.retain(|process| !hidden.contains(&process.device));
        usage
    }
}
