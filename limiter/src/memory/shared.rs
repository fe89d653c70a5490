//! Memory that several processes of the container have: exported by one, opened by others. It counts once.
//!
//! While its exporter lives and has not freed it, the exporter pays: its own entry holds the bytes, and opening adds
//! nothing. When the exporter ends, or frees it, while others have it open, nobody pays, and the table's entry counts by
//! itself ([`unpaid`]) until the last of them has closed it or has ended. Memory from outside of the container is paid by
//! the first of its processes to open it.
//!
//! Entries are changed by one process at a time ([`super::locks::Turn`]); sums read them at any time. The order of each
//! change is such that memory may count twice for a moment, and never not at all.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering::SeqCst;

use kerf_limiter_contract::state::{MAX_SHARED, Shared, State};

/// An entry of the table, as a process remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    entry: usize,
    key: u64,
}

/// What identifies memory to all processes that have it.
pub fn key(of: impl Hash) -> u64 {
    // the same in every process, since all have the same library
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish() | 1
}

/// Notes memory for which the process of `slot` pays. `None` where the table is full: then others count it as well.
pub fn offer(state: &State, slot: usize, device: usize, key: u64, bytes: u64) -> Option<Ticket> {
    let (entry, free) = state.shared.iter().enumerate().find(|(_, e)| e.key.load(SeqCst) == 0)?;
    free.bytes.store(bytes, SeqCst);
    free.device.store(device as u32, SeqCst);
    free.payer.store(slot as u32 + 1, SeqCst);
    free.users.iter().for_each(|word| word.store(0, SeqCst));
    state.header.high_shared.fetch_max(entry as u64 + 1, SeqCst);
    free.key.store(key, SeqCst);
    Some(Ticket { entry, key })
}

/// An entry that the process already pays for.
pub fn offered(state: &State, slot: usize, key: u64) -> Option<Ticket> {
    let mine = |e: &Shared| e.key.load(SeqCst) == key && e.payer.load(SeqCst) == slot as u32 + 1;
    known(state).enumerate().find(|(_, e)| mine(e)).map(|(entry, _)| Ticket { entry, key })
}

/// Opens memory with this key that the process has not open yet; it counts for somebody else. `None` where the table does
/// not have it.
pub fn open(state: &State, slot: usize, device: usize, key: u64) -> Option<Ticket> {
    let (word, bit) = place(slot);
    let fits = |e: &Shared| {
        let new = e.users.get(word).is_some_and(|w| w.load(SeqCst) & bit == 0);
        e.key.load(SeqCst) == key && e.device.load(SeqCst) as usize == device && new
    };
    let (entry, found) = known(state).enumerate().find(|(_, e)| fits(e))?;
    found.users.get(word)?.fetch_or(bit, SeqCst);
    Some(Ticket { entry, key })
}

/// The process has closed it.
pub fn close(state: &State, slot: usize, ticket: Ticket) {
    let Some(entry) = find(state, ticket) else { return };
    let (word, bit) = place(slot);
    if let Some(users) = entry.users.get(word) {
        users.fetch_and(!bit, SeqCst);
    }
    drop_unused(entry);
}

/// The process does not pay any more, and releases the bytes afterwards: they count by themselves from here on, where
/// others have the memory open.
pub fn leave_to_others(state: &State, slot: usize, ticket: Ticket) {
    let Some(entry) = find(state, ticket) else { return };
    if entry.payer.compare_exchange(slot as u32 + 1, 0, SeqCst, SeqCst).is_ok() {
        drop_unused(entry);
    }
}

/// The process is gone, or about to give back all that it holds.
pub fn leave(state: &State, slot: usize) {
    let (word, bit) = place(slot);
    for entry in known(state).filter(|e| e.key.load(SeqCst) != 0) {
        if let Some(users) = entry.users.get(word) {
            users.fetch_and(!bit, SeqCst);
        }
        let _ = entry.payer.compare_exchange(slot as u32 + 1, 0, SeqCst, SeqCst);
        drop_unused(entry);
    }
}

/// Bytes of a GPU that processes have open and nobody pays for.
pub fn unpaid(state: &State, device: usize) -> u64 {
    let counts = |e: &&Shared| {
        e.key.load(SeqCst) != 0 && e.payer.load(SeqCst) == 0 && e.device.load(SeqCst) as usize == device
    };
    known(state).filter(counts).fold(0, |sum, e| sum.saturating_add(e.bytes.load(SeqCst)))
}

fn known(state: &State) -> impl Iterator<Item = &Shared> {
    let high = (state.header.high_shared.load(SeqCst) as usize).min(MAX_SHARED);
    state.shared.iter().take(high)
}

/// The entry, unless it was given to other memory since.
fn find(state: &State, ticket: Ticket) -> Option<&Shared> {
    state.shared.get(ticket.entry).filter(|e| e.key.load(SeqCst) == ticket.key)
}

fn drop_unused(entry: &Shared) {
    if entry.payer.load(SeqCst) == 0 && entry.users.iter().all(|word| word.load(SeqCst) == 0) {
        entry.bytes.store(0, SeqCst);
        entry.key.store(0, SeqCst);
    }
}

fn place(slot: usize) -> (usize, u64) {
    (slot / 64, 1 << (slot % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::blank::state;

    #[test]
    fn memory_counts_by_itself_while_it_is_open_and_nobody_pays() {
        let (state, key) = (state(), key("handle"));
        let offered = offer(state, 3, 0, key, 100).unwrap();
        assert_eq!(open(state, 70, 1, key), None, "another GPU's");
        let opened = open(state, 70, 0, key).unwrap();
        assert_eq!((opened, open(state, 70, 0, key), unpaid(state, 0)), (offered, None, 0));
        assert!(open(state, 71, 0, key).is_some());
        leave_to_others(state, 3, offered);
        assert_eq!((unpaid(state, 0), unpaid(state, 1)), (100, 0));
        leave(state, 71);
        assert_eq!(unpaid(state, 0), 100);
        close(state, 70, opened);
        assert_eq!((unpaid(state, 0), open(state, 70, 0, key)), (0, None));
    }

    #[test]
    fn a_payer_that_ends_leaves_it_to_those_who_have_it_open_and_a_full_table_offers_nothing() {
        let state = state();
        for i in 0..MAX_SHARED as u64 {
            assert!(offer(state, 1, 0, key(i), 1).is_some());
        }
        assert_eq!(offer(state, 1, 0, key("more"), 1), None);
        assert!(open(state, 2, 0, key(7_u64)).is_some());
        leave(state, 1);
        assert_eq!(unpaid(state, 0), 1);
        assert!(offer(state, 1, 0, key("more"), 1).is_some());
    }
}
