//! What a process' contexts take of the GPU, and what ends with them.

use crate::abi::{Device, OUT_OF_MEMORY, SUCCESS, Status};
use crate::driver;
use crate::memory::allocations::Allocation;
use crate::pace::streams::Key;
use crate::process::Process;
use crate::process::contexts::Context;
use crate::process::leaving::Left;

/// A context that is being destroyed.
pub struct Ending {
    handle: usize,
    context: Option<Context>,
    content: Content,
}

/// What is allocated in a context.
struct Content {
    /// Linear memory, arrays, heaps.
    tables: [Vec<(u64, Allocation)>; 3],
    left: Vec<(Key, Left)>,
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
        let context = Context { device, card: index, primary, bytes, users: 1 };
        if !made.is_some_and(|handle| self.contexts.insert(handle, context)) {
            // not made, or known already
            self.release_context(index, bytes);
        }
    }

    /// Forgets a context that is about to be destroyed, and its allocations. Comes before the driver's call, since right after
    /// it another thread may get the same handle.
    pub fn ending(&self, handle: usize) -> Ending {
        for card in self.cards.all() {
            card.pacer.forget_context(handle);
        }
        Ending { handle, context: self.contexts.remove(handle), content: self.content(handle) }
    }

    /// The driver has destroyed it.
    pub fn ended(&self, Ending { context, content, .. }: Ending) {
        self.emptied(content);
        if let Some(gone) = context {
            self.release_context(gone.card, gone.bytes);
        }
    }

    /// The driver has not destroyed it.
    pub fn stays(&self, Ending { handle, context, content }: Ending) {
        context.map(|context| self.contexts.insert(handle, context));
        for (table, kept) in [&self.pointers, &self.arrays, &self.heaps].into_iter().zip(content.tables) {
            for (key, allocation) in kept {
                table.insert(key, allocation);
            }
        }
        content.left.into_iter().for_each(|(stream, left)| self.leaving.add(stream, left));
    }

    /// A context has one more user.
    pub fn attached(&self, context: usize) {
        self.contexts.attached(context);
    }

    /// A context is about to have one user less: what ends with it, where that is its last.
    pub fn detaching(&self, context: usize) -> Option<Ending> {
        self.contexts.detached(context).then(|| self.ending(context))
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
            Some(context) if inactive => self.ended(self.ending(context)),
            Some(context) if reset => self.emptied(self.content(context)),
            _ => {}
        }
        if let Some(card) = self.cards.of_device(device).filter(|_| inactive || reset) {
            self.pools.reset(self, card);
        }
    }

    fn content(&self, context: usize) -> Content {
        let tables = [&self.pointers, &self.arrays, &self.heaps].map(|table| table.remove_context(context));
        Content { tables, left: self.leaving.of_context(context) }
    }

    fn emptied(&self, Content { tables: [pointers, others @ ..], left }: Content) {
        for (pointer, gone) in pointers {
            self.unshare(pointer);
            self.give_back(&gone);
        }
        for (_, gone) in others.concat() {
            self.give_back(&gone);
        }
        self.left(left);
    }

    fn release_context(&self, card: usize, bytes: u64) {
        if let Some(card) = self.cards.get(card).filter(|_| bytes > 0) {
            card.account.release_context(bytes);
        }
    }
}
