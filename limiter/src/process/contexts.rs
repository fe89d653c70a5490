//! This process' contexts: what they are estimated to take, and what ends with them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Process;
use crate::abi::{Device, OUT_OF_MEMORY, SUCCESS, Status};
use crate::driver;

/// By the driver's handle.
#[derive(Default)]
pub struct Contexts {
    all: Mutex<HashMap<usize, Context>>,
}

#[derive(Clone, Copy)]
struct Context {
    device: Device,
    card: usize,
    primary: bool,
    /// Counted for it until the host has measured.
    bytes: u64,
}

impl Contexts {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Context>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn primary(&self, device: Device) -> Option<usize> {
        self.lock().iter().find(|(_, c)| c.device == device && c.primary).map(|(context, _)| *context)
    }
}

impl Process {
    /// Before a context is made on a device: counts what the driver takes for it. Returns how much that is.
    pub fn before_context(&self, device: Device, primary: bool) -> Result<u64, Status> {
        let Some(index) = self.cards.of_device(device) else { return Ok(0) };
        let Some(card) = self.cards.get(index) else { return Ok(0) };
        if card.context_bytes == 0 || (primary && self.contexts.primary(device).is_some()) {
            return Ok(0);
        }
        if self.cards.reserve_context(card).is_ok()
            || (self.make_room(index) && self.cards.reserve_context(card).is_ok())
        {
            return Ok(card.context_bytes);
        }
        self.cards.seen();
        Err(OUT_OF_MEMORY)
    }

    /// After that: remembers the context, or gives back.
    pub fn after_context(&self, device: Device, made: Option<usize>, primary: bool, bytes: u64) {
        let Some(index) = self.cards.of_device(device) else { return };
        let mut contexts = self.contexts.lock();
        match made {
            Some(context) if !contexts.contains_key(&context) => {
                contexts.insert(context, Context { device, card: index, primary, bytes });
            }
            // not made, or known already
            _ => self.release_context(index, bytes),
        }
    }

    /// A context is gone, with its allocations.
    pub fn context_gone(&self, context: usize) {
        self.emptied(context);
        for card in self.cards.all() {
            card.pacer.forget_context(context);
        }
        let gone = self.contexts.lock().remove(&context);
        if let Some(gone) = gone {
            self.release_context(gone.card, gone.bytes);
        }
    }

    /// A device's primary context was reset, or one of its users has released it. What was allocated in it is gone after
    /// a reset, and after the last release.
    pub fn primary_gone(&self, device: Device, reset: bool) {
        let (mut flags, mut active) = (0, 1);
        // SAFETY: the pointers are to locals.
        let status = unsafe { driver::cuDevicePrimaryCtxGetState(device, &raw mut flags, &raw mut active) };
        let inactive = status == SUCCESS && active == 0;
        let primary = self.contexts.primary(device);
        match primary {
            Some(context) if inactive => self.context_gone(context),
            Some(context) if reset => self.emptied(context),
            _ => {}
        }
        if let Some(card) = self.cards.of_device(device).filter(|_| inactive || reset) {
            self.pools.reset(self, card);
        }
    }

    fn emptied(&self, context: usize) {
        for (pointer, gone) in self.pointers.remove_context(context) {
            self.unshare(pointer);
            self.give_back(&gone);
        }
        for (_, gone) in [&self.arrays, &self.heaps].map(|table| table.remove_context(context)).concat() {
            self.give_back(&gone);
        }
    }

    fn release_context(&self, card: usize, bytes: u64) {
        if let Some(card) = self.cards.get(card).filter(|_| bytes > 0) {
            card.account.release_context(bytes);
        }
    }
}
