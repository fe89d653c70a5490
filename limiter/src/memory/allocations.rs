//! This process' allocations, by pointer or handle, so that freed memory is given back to the right account.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Parts with a lock each, so that threads seldom wait for each other.
const SHARDS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Position of the GPU in the limits; `None` where the limits do not name it.
    pub device: usize,
    /// Bytes as counted.
    pub bytes: u64,
    /// The context that it ends with; 0 where it outlives contexts.
    pub context: usize,
    /// The pool that it came from; 0 for none.
    pub pool: usize,
}

#[derive(Default)]
pub struct Allocations {
    shards: [Mutex<HashMap<u64, Allocation, BuildHasherDefault<PointerHasher>>>; SHARDS],
}

impl Allocations {
    /// Remembers a new allocation. Returns an older one with the same key, which must be gone.
    pub fn insert(&self, key: u64, allocation: Allocation) -> Option<Allocation> {
        self.shard(key).insert(key, allocation)
    }

    /// Forgets an allocation that is about to be freed. Comes before the driver's call, since right after it another
    /// thread may get the same pointer.
    pub fn remove(&self, key: u64) -> Option<Allocation> {
        self.shard(key).remove(&key)
    }

    /// Forgets all allocations of a context.
    pub fn remove_context(&self, context: usize) -> Vec<(u64, Allocation)> {
        let mut gone = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|key, a| {
                let stays = a.context != context;
                if !stays {
                    gone.push((*key, *a));
                }
                stays
            });
        }
        gone
    }

    pub fn get(&self, key: u64) -> Option<Allocation> {
        self.shard(key).get(&key).copied()
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, HashMap<u64, Allocation, BuildHasherDefault<PointerHasher>>> {
        // the low bits of pointers are zero
        let shard = (key >> 9 ^ key >> 21) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pointers are as good as random but for their low bits: one multiplication spreads them.
#[derive(Default)]
pub struct PointerHasher(u64);

impl Hasher for PointerHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_takes_its_own_with_it() {
        let all = Allocations::default();
        let of = |context| Allocation { device: 0, bytes: 1, context, pool: 0 };
        for key in 0..100_u64 {
            all.insert(key << 9, of(key as usize % 2 + 1));
        }
        assert_eq!(all.remove_context(1).len(), 50);
        assert_eq!(all.remove(0), None);
        assert_eq!(all.remove(1 << 9), Some(of(2)));
    }
}
