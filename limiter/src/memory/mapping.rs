//! Physical memory (`cuMemCreate`), which lives until no handle and no mapping refers to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
}

/// One allocation of physical memory.
struct Object {
    card: usize,
    bytes: u64,
    handles: u32,
    ranges: u32,
    /// It may be held out of sight: by another process through an exported handle, or by a sparse array. It counts
    /// until this process ends.
    escaped: bool,
    /// Made elsewhere: its size is unknown, and it counts as far as it is mapped.
    imported: bool,
}

/// The GPU and the bytes to give back, if any.
pub type Freed = Option<(usize, u64)>;

impl Mappings {
    /// Notes memory that was made here and is counted.
    pub fn created(&self, handle: u64, card: usize, bytes: u64) {
        self.inner().insert(handle, Object { card, bytes, handles: 1, ranges: 0, escaped: false, imported: false });
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
        inner.insert(handle, Object { card, bytes: 0, handles: 1, ranges: 0, escaped: false, imported: true });
    }

    /// Notes another handle of the memory that is mapped at an address.
    pub fn retained(&self, handle: u64, address: u64) {
        let mut inner = self.inner();
        let Some((_, (_, id))) = inner.ranges.range(..=address).next_back() else { return };
        let id = *id;
        inner.handles.entry(handle).or_insert((id, 0)).1 += 1;
        if let Some(object) = inner.objects.get_mut(&id) {
            object.handles += 1;
        }
    }

    /// Notes the release of one handle.
    pub fn released(&self, handle: u64) -> Freed {
        let mut inner = self.inner();
        let (id, count) = inner.handles.get_mut(&handle)?;
        let id = *id;
        *count -= 1;
        if *count == 0 {
            inner.handles.remove(&handle);
        }
        let object = inner.objects.get_mut(&id)?;
        object.handles = object.handles.saturating_sub(1);
        inner.free(id)
    }

    /// Before mapping: the GPU and the bytes that must be reserved for it. Memory that was made here needs none.
    pub fn wants(&self, handle: u64, bytes: u64) -> Option<(usize, u64)> {
        let inner = self.inner();
        let object = inner.objects.get(&inner.handles.get(&handle)?.0)?;
        let more = if object.imported { bytes.saturating_sub(object.bytes) } else { 0 };
        Some((object.card, more))
    }

    /// Notes a mapping, for which `reserved` bytes were counted.
    pub fn mapped(&self, handle: u64, address: u64, bytes: u64, reserved: u64) {
        let mut inner = self.inner();
        let Some((id, _)) = inner.handles.get(&handle).copied() else { return };
        inner.ranges.insert(address, (bytes, id));
        if let Some(object) = inner.objects.get_mut(&id) {
            object.ranges += 1;
            object.bytes = object.bytes.saturating_add(reserved);
        }
    }

    /// Notes that everything within the range is unmapped.
    pub fn unmapped(&self, address: u64, bytes: u64) -> Vec<(usize, u64)> {
        let mut inner = self.inner();
        let within: Vec<u64> =
            inner.ranges.range(address..address.saturating_add(bytes)).map(|(at, _)| *at).collect();
        let mut freed = Vec::new();
        for at in within {
            let Some((_, id)) = inner.ranges.remove(&at) else { continue };
            if let Some(object) = inner.objects.get_mut(&id) {
                object.ranges = object.ranges.saturating_sub(1);
            }
            freed.extend(inner.free(id));
        }
        freed
    }

    /// Notes that the memory may be held out of sight from now on.
    pub fn escaped(&self, handle: u64) {
        let mut inner = self.inner();
        if let Some((id, _)) = inner.handles.get(&handle).copied()
            && let Some(object) = inner.objects.get_mut(&id)
        {
            object.escaped = true;
        }
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

    fn free(&mut self, id: u64) -> Freed {
        let object = self.objects.get(&id)?;
        if object.handles > 0 || object.ranges > 0 || object.escaped {
            return None;
        }
        self.objects.remove(&id).map(|o| (o.card, o.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_counts_until_nothing_holds_or_maps_it() {
        let m = Mappings::default();
        m.created(1, 0, 100);
        m.mapped(1, 4096, 100, 0);
        assert_eq!(m.released(1), None, "still mapped");
        m.retained(2, 4100);
        assert_eq!(m.unmapped(4096, 100), [], "held again");
        assert_eq!(m.released(2), Some((0, 100)));
        assert_eq!(m.released(2), None);
    }

    #[test]
    fn what_was_exported_counts_to_the_end() {
        let m = Mappings::default();
        m.created(1, 0, 100);
        m.escaped(1);
        assert_eq!(m.released(1), None);
    }

    #[test]
    fn an_import_counts_as_far_as_it_is_mapped() {
        let m = Mappings::default();
        m.imported(7, 0);
        assert_eq!(m.wants(7, 64), Some((0, 64)));
        m.mapped(7, 4096, 64, 64);
        assert_eq!(m.wants(7, 64), Some((0, 0)));
        assert_eq!(m.wants(7, 96), Some((0, 32)));
        m.released(7);
        assert_eq!(m.unmapped(0, 1 << 20), [(0, 64)]);
    }

    #[test]
    fn several_ranges_are_unmapped_at_once() {
        let m = Mappings::default();
        m.created(1, 0, 10);
        m.created(2, 1, 20);
        m.mapped(1, 0, 10, 0);
        m.mapped(2, 10, 20, 0);
        assert_eq!((m.released(1), m.released(2)), (None, None));
        assert_eq!(m.unmapped(0, 30), [(0, 10), (1, 20)]);
    }
}
