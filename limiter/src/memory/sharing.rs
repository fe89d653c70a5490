//! Linear memory that this process has exported to other processes, or opened from them (CUDA IPC).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::shared::Ticket;

#[derive(Default)]
pub struct Sharing {
    inner: Mutex<Inner>,
    /// How many pointers are exported and opened, so that most programs need not look.
    exported: AtomicUsize,
    open: AtomicUsize,
}

#[derive(Default)]
struct Inner {
    exported: HashMap<u64, Ticket>,
    opened: HashMap<u64, Opened>,
}

/// Memory of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// `None` where the table of shared memory was full.
    pub ticket: Option<Ticket>,
    /// Whether this process pays for it.
    pub pays: bool,
    /// How often it must be closed.
    pub times: u32,
}

impl Sharing {
    pub fn exported(&self, pointer: u64, ticket: Ticket) {
        let mut inner = self.inner();
        inner.exported.insert(pointer, ticket);
        self.exported.store(inner.exported.len(), Ordering::Release);
    }

    /// Exported memory is freed.
    pub fn freed(&self, pointer: u64) -> Option<Ticket> {
        if self.exported.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut inner = self.inner();
        let ticket = inner.exported.remove(&pointer);
        self.exported.store(inner.exported.len(), Ordering::Release);
        ticket
    }

    /// Memory that this process has open is opened once more: whether it is such.
    pub fn again(&self, pointer: u64) -> bool {
        let mut inner = self.inner();
        let opened = inner.opened.get_mut(&pointer);
        opened.map(|o| o.times = o.times.saturating_add(1)).is_some()
    }

    pub fn opened(&self, pointer: u64, opened: Opened) {
        let mut inner = self.inner();
        inner.opened.insert(pointer, opened);
        self.open.store(inner.opened.len(), Ordering::Release);
    }

    /// Before memory is closed: what was opened, where this is the last time.
    pub fn closing(&self, pointer: u64) -> Option<Opened> {
        let mut inner = self.inner();
        let opened = inner.opened.get_mut(&pointer)?;
        opened.times = opened.times.saturating_sub(1);
        if opened.times > 0 {
            return None;
        }
        let opened = inner.opened.remove(&pointer);
        self.open.store(inner.opened.len(), Ordering::Release);
        opened
    }

    /// Memory is closed, however often it was opened.
    pub fn closed(&self, pointer: u64) -> Option<Opened> {
        if self.open.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut inner = self.inner();
        let opened = inner.opened.remove(&pointer);
        self.open.store(inner.opened.len(), Ordering::Release);
        opened
    }

    /// The driver has not closed it.
    pub fn stays(&self, pointer: u64, opened: Option<Opened>) {
        match opened {
            Some(opened) => self.opened(pointer, Opened { times: 1, ..opened }),
            None => drop(self.again(pointer)),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_closed_as_often_as_it_was_opened() {
        let sharing = Sharing::default();
        let opened = Opened { ticket: None, pays: true, times: 1 };
        assert!(!sharing.again(8));
        sharing.opened(8, opened);
        assert!(sharing.again(8));
        assert_eq!(sharing.closing(8), None);
        sharing.stays(8, None);
        assert_eq!(
            (sharing.closing(8), sharing.closing(8).map(|o| o.pays), sharing.closing(8)),
            (None, Some(true), None)
        );
    }
}
