//! This process' contexts, by the driver's handle.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::abi::Device;

#[derive(Default)]
pub struct Contexts {
    all: Mutex<HashMap<usize, Context>>,
}

#[derive(Clone, Copy)]
pub struct Context {
    pub device: Device,
    pub card: usize,
    pub primary: bool,
    /// Counted for it until the host has measured.
    pub bytes: u64,
    /// Who created it, and those that have attached to it.
    pub users: u32,
}

impl Contexts {
    /// Remembers a context; `false` where it was known.
    pub fn insert(&self, handle: usize, context: Context) -> bool {
        let mut all = self.lock();
        let new = !all.contains_key(&handle);
        all.entry(handle).or_insert(context);
        new
    }

    pub fn remove(&self, handle: usize) -> Option<Context> {
        self.lock().remove(&handle)
    }

    pub fn attached(&self, handle: usize) {
        if let Some(context) = self.lock().get_mut(&handle) {
            context.users = context.users.saturating_add(1);
        }
    }

    /// Whether that is its last user.
    pub fn detached(&self, handle: usize) -> bool {
        self.lock().get_mut(&handle).is_some_and(|context| {
            let last = context.users <= 1;
            context.users = context.users.saturating_sub(1).max(1);
            last && !context.primary
        })
    }

    /// The primary context of a device.
    pub fn primary(&self, device: Device) -> Option<usize> {
        self.lock().iter().find(|(_, c)| c.device == device && c.primary).map(|(context, _)| *context)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Context>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
