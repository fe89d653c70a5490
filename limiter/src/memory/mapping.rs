//! Physical memory (`cuMemCreate`), which lives until no handle and no mapping refers to it.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::shared::Ticket;

/// The parts of the virtual memory interface that must be remembered.
#[derive(Default)]
pub struct Mappings {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    objects: HashMap<u64, Object>,
    /// By the driver's handle: the object, and how many times it must be released.
    handles: HashMap<u64, (u64, u32)>,
    /// By address: length and object.
    ranges: BTreeMap<u64, (u64, u64)>,
    /// Objects that are exported.
    exported: usize,
}

/// One allocation of physical memory.
#[derive(Default)]
struct Object {
    card: usize,
    bytes: u64,
    handles: u32,
    ranges: u32,
    /// A sparse array may hold it, out of sight. It counts until this process ends.
    escaped: bool,
    /// Made elsewhere: its size is unknown, and it counts as far as it is mapped.
    imported: bool,
    /// Descriptors that it was exported as, which keep it alive while they are open.
    descriptors: Vec<Descriptor>,
    /// Entries of the table of shared memory, for which this process pays.
    offered: Vec<Ticket>,
    /// The entry of another process, which pays for this import.
    opened: Option<Ticket>,
}

/// An open descriptor: its number, device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(RawFd, u64, u64);

impl Descriptor {
    /// What is open under a number.
    pub fn of(descriptor: RawFd) -> Option<Self> {
        // SAFETY: zero bytes are a value of this structure of integers.
        let mut found: libc::stat = unsafe { mem::zeroed() };
        // SAFETY: the structure is a local.
        let open = unsafe { libc::fstat(descriptor, &raw mut found) } == 0;
        open.then_some(Self(descriptor, found.st_dev, found.st_ino))
    }

    /// Whether the same is open under the number, or something that cannot be told from it.
    fn is_open(&self) -> bool {
        Self::of(self.0).as_ref() == Some(self)
    }
}

/// Memory that this process no longer has.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone {
    pub card: usize,
    pub bytes: u64,
    /// Entries for which this process paid.
    pub offered: Vec<Ticket>,
    /// The entry of the process that pays.
    pub opened: Option<Ticket>,
}

pub type Freed = Vec<Gone>;

/// What mapping needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub card: usize,
    /// Bytes to reserve.
    pub more: u64,
    /// It was made elsewhere, and nothing of it was mapped before: somebody else may pay.
    pub first: bool,
}

/// A handle that is being released.
pub struct Releasing {
    handle: u64,
    id: u64,
}

/// Ranges that are being unmapped: address, length and object.
pub struct Unmapping(Vec<(u64, (u64, u64))>);

/// Who pays for an import.
#[derive(Clone, Copy, Debug)]
pub enum Paid {
    /// This process, and the entry that it offers to others.
    Here(Option<Ticket>),
    Elsewhere(Ticket),
}

impl Mappings {
    /// Notes memory that was made here and is counted.
    pub fn created(&self, handle: u64, card: usize, bytes: u64) {
        self.inner().insert(handle, Object { card, bytes, handles: 1, ..Object::default() });
    }

    /// Notes memory that was made elsewhere.
    pub fn imported(&self, handle: u64, card: usize) {
        let mut inner = self.inner();
        if let Some((id, count)) = inner.handles.get_mut(&handle) {
            // the same handle again
            *count += 1;
            let id = *id;
            if let Some(object) = inner.objects.get_mut(&id) {
                object.handles += 1;
            }
            return;
        }
        inner.insert(handle, Object { card, handles: 1, imported: true, ..Object::default() });
    }

    /// Notes another handle of the memory that is mapped at an address.
    pub fn retained(&self, handle: u64, address: u64) {
        let mut inner = self.inner();
        // memory of the host is mapped as well, and not noted
        let found = inner.ranges.range(..=address).next_back().filter(|(at, (bytes, _))| address - **at < *bytes);
        let Some((_, (_, id))) = found else { return };
        let id = *id;
        inner.handles.entry(handle).or_insert((id, 0)).1 += 1;
        if let Some(object) = inner.objects.get_mut(&id) {
            object.handles += 1;
        }
    }

    /// Forgets a handle that is about to be released. Comes before the driver's call, since right after it another thread may
    /// get the same handle.
    pub fn releasing(&self, handle: u64) -> Option<Releasing> {
        let mut inner = self.inner();
        let (id, count) = inner.handles.get_mut(&handle)?;
        let id = *id;
        *count -= 1;
        if *count == 0 {
            inner.handles.remove(&handle);
        }
        Some(Releasing { handle, id })
    }

    /// The driver has released it.
    pub fn released(&self, releasing: Option<Releasing>) -> Freed {
        let mut inner = self.inner();
        let Some(Releasing { id, .. }) = releasing else { return Freed::new() };
        if let Some(object) = inner.objects.get_mut(&id) {
            object.handles = object.handles.saturating_sub(1);
        }
        inner.free(id).into_iter().collect()
    }

    /// The driver has not released it.
    pub fn stays(&self, releasing: Option<Releasing>) {
        if let Some(Releasing { handle, id }) = releasing {
            self.inner().handles.entry(handle).or_insert((id, 0)).1 += 1;
        }
    }

    /// Before mapping: the GPU and the bytes that must be reserved for it. Memory that was made here needs none.
    pub fn wants(&self, handle: u64, bytes: u64) -> Wanted {
        let inner = self.inner();
        let object = inner.handles.get(&handle).and_then(|(id, _)| inner.objects.get(id));
        let Some(object) = object else { return Wanted::default() };
        let pays = object.imported && object.opened.is_none();
        let more = if pays { bytes.saturating_sub(object.bytes) } else { 0 };
        Wanted { card: object.card, more, first: pays && object.bytes == 0 }
    }

    /// Notes a mapping, for which `reserved` bytes were counted here.
    pub fn mapped(&self, handle: u64, address: u64, bytes: u64, reserved: u64) {
        let mut inner = self.inner();
        let Some((id, _)) = inner.handles.get(&handle).copied() else { return };
        inner.ranges.insert(address, (bytes, id));
        if let Some(object) = inner.objects.get_mut(&id) {
            object.ranges += 1;
            object.bytes = object.bytes.saturating_add(reserved);
        }
    }

    /// Notes who pays for memory that was made elsewhere.
    pub fn paid(&self, handle: u64, paid: Paid) {
        self.with(handle, |object| match paid {
            Paid::Here(ticket) => object.offered.extend(ticket),
            Paid::Elsewhere(ticket) => object.opened = Some(ticket),
        });
    }

    /// Forgets what is mapped within a range that is about to be unmapped. Comes before the driver's call, since right after it
    /// another thread may map something else there.
    pub fn unmapping(&self, address: u64, bytes: u64) -> Unmapping {
        let mut inner = self.inner();
        let within = inner.ranges.range(address..address.saturating_add(bytes)).map(|(at, _)| *at);
        let within: Vec<u64> = within.collect();
        Unmapping(within.into_iter().filter_map(|at| Some((at, inner.ranges.remove(&at)?))).collect())
    }

    /// The driver has unmapped it.
    pub fn unmapped(&self, Unmapping(within): Unmapping) -> Freed {
        let mut inner = self.inner();
        let mut freed = Freed::new();
        for (_, (_, id)) in within {
            if let Some(object) = inner.objects.get_mut(&id) {
                object.ranges = object.ranges.saturating_sub(1);
            }
            freed.extend(inner.free(id));
        }
        freed
    }

    /// The driver has not unmapped it.
    pub fn remains(&self, Unmapping(within): Unmapping) {
        self.inner().ranges.extend(within);
    }

    /// The GPU and the bytes of memory that is about to be offered to others.
    pub fn size(&self, handle: u64) -> Option<(usize, u64)> {
        self.with(handle, |object| (object.card, object.bytes))
    }

    /// Whether there is no entry of the table for it yet.
    pub fn unoffered(&self, handle: u64) -> bool {
        self.with(handle, |object| object.offered.is_empty()) == Some(true)
    }

    /// Notes that the memory was exported: it counts until it is gone here and no descriptor of it is open.
    pub fn exported(&self, handle: u64, descriptor: Option<Descriptor>, offered: Option<Ticket>) {
        let first = self.with(handle, |object| {
            let first = object.descriptors.is_empty();
            object.descriptors.extend(descriptor);
            object.offered.extend(offered);
            first && !object.descriptors.is_empty()
        });
        if first == Some(true) {
            self.inner().exported += 1;
        }
    }

    /// Notes that the memory may be held out of sight from now on.
    pub fn escaped(&self, handle: u64) {
        self.with(handle, |object| object.escaped = true);
    }

    /// Memory that only exported descriptors kept, which the program has closed since.
    pub fn sweep(&self) -> Freed {
        let mut inner = self.inner();
        if inner.exported == 0 {
            return Freed::new();
        }
        let kept = |o: &Object| o.handles == 0 && o.ranges == 0;
        let left: Vec<u64> = inner.objects.iter().filter(|(_, o)| kept(o)).map(|(id, _)| *id).collect();
        left.into_iter().filter_map(|id| inner.free(id)).collect()
    }

    fn with<T>(&self, handle: u64, change: impl FnOnce(&mut Object) -> T) -> Option<T> {
        let mut inner = self.inner();
        let (id, _) = inner.handles.get(&handle).copied()?;
        inner.objects.get_mut(&id).map(change)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn insert(&mut self, handle: u64, object: Object) {
        let id = self.next;
        self.next += 1;
        self.objects.insert(id, object);
        self.handles.insert(handle, (id, 1));
    }

    fn free(&mut self, id: u64) -> Option<Gone> {
        let object = self.objects.get(&id)?;
        if object.handles > 0 || object.ranges > 0 || object.escaped {
            return None;
        }
        if object.descriptors.iter().any(Descriptor::is_open) {
            return None;
        }
        let object = self.objects.remove(&id)?;
        self.exported -= usize::from(!object.descriptors.is_empty());
        let Object { card, bytes, offered, opened, .. } = object;
        Some(Gone { card, bytes, offered, opened })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(freed: Freed) -> Vec<(usize, u64)> {
        freed.into_iter().map(|gone| (gone.card, gone.bytes)).collect()
    }

    fn released(m: &Mappings, handle: u64) -> Freed {
        m.released(m.releasing(handle))
    }

    fn unmapped(m: &Mappings, address: u64, bytes: u64) -> Freed {
        m.unmapped(m.unmapping(address, bytes))
    }

    #[test]
    fn memory_counts_until_nothing_holds_or_maps_it() {
        let m = Mappings::default();
        m.created(1, 0, 100);
        m.mapped(1, 4096, 100, 0);
        assert_eq!(released(&m, 1), [], "still mapped");
        m.retained(2, 4100);
        assert_eq!(unmapped(&m, 4096, 100), [], "held again");
        assert_eq!(gone(released(&m, 2)), [(0, 100)]);
        assert_eq!(released(&m, 2), []);
    }

    #[test]
    fn what_was_exported_counts_while_a_descriptor_of_it_is_open() {
        let m = Mappings::default();
        let file = tempfile::tempfile().unwrap();
        m.created(1, 0, 100);
        m.exported(1, Descriptor::of(std::os::fd::AsRawFd::as_raw_fd(&file)), None);
        assert_eq!((released(&m, 1), m.sweep()), (vec![], vec![]));
        drop(file);
        assert_eq!(gone(m.sweep()), [(0, 100)]);
        assert_eq!(m.sweep(), []);
        // a handle without a descriptor
        m.created(1, 0, 100);
        m.exported(1, None, None);
        assert_eq!(gone(released(&m, 1)), [(0, 100)]);
    }

    #[test]
    fn what_a_sparse_array_holds_counts_to_the_end() {
        let m = Mappings::default();
        m.created(1, 0, 100);
        m.escaped(1);
        assert_eq!(released(&m, 1), []);
    }

    #[test]
    fn an_import_counts_as_far_as_it_is_mapped() {
        let m = Mappings::default();
        m.imported(7, 0);
        assert_eq!(m.wants(7, 64), Wanted { card: 0, more: 64, first: true });
        m.mapped(7, 4096, 64, 64);
        assert_eq!(m.wants(7, 64), Wanted::default());
        assert_eq!(m.wants(7, 96).more, 32);
        released(&m, 7);
        assert_eq!(gone(unmapped(&m, 0, 1 << 20)), [(0, 64)]);
    }

    #[test]
    fn several_ranges_are_unmapped_at_once() {
        let m = Mappings::default();
        m.created(1, 0, 10);
        m.created(2, 1, 20);
        m.mapped(1, 0, 10, 0);
        m.mapped(2, 10, 20, 0);
        assert_eq!((released(&m, 1), released(&m, 2)), (vec![], vec![]));
        assert_eq!(gone(unmapped(&m, 0, 30)), [(0, 10), (1, 20)]);
    }

    /// The driver gives a handle or an address to another thread before the first one is back from its call.
    #[test]
    fn what_is_new_under_the_same_handle_and_address_is_its_own() {
        let m = Mappings::default();
        m.created(1, 0, 100);
        let releasing = m.releasing(1);
        m.created(1, 0, 7);
        assert_eq!(gone(m.released(releasing)), [(0, 100)]);
        m.mapped(1, 4096, 7, 0);
        assert_eq!(released(&m, 1), []);
        let unmapping = m.unmapping(4096, 7);
        m.created(2, 0, 9);
        m.mapped(2, 4096, 9, 0);
        assert_eq!(gone(m.unmapped(unmapping)), [(0, 7)]);
        assert_eq!((released(&m, 2), gone(unmapped(&m, 4096, 9))), (vec![], vec![(0, 9)]));
    }

    #[test]
    fn what_the_driver_does_not_release_or_unmap_counts_on() {
        let m = Mappings::default();
        m.created(1, 0, 100);
        m.stays(m.releasing(1));
        m.mapped(1, 4096, 100, 0);
        m.remains(m.unmapping(0, 1 << 20));
        assert_eq!((released(&m, 1), gone(unmapped(&m, 4096, 100))), (vec![], vec![(0, 100)]));
    }

    #[test]
    fn a_handle_of_memory_that_is_not_noted_is_of_nothing() {
        let m = Mappings::default();
        m.created(1, 0, 100);
        m.mapped(1, 4096, 100, 0);
        m.retained(9, 4096 + 100);
        assert_eq!((released(&m, 1), gone(unmapped(&m, 4096, 100))), (vec![], vec![(0, 100)]));
    }
}
