//! A bounded memory of names.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

use parking_lot::Mutex;

/// Remembers the names that were added last, up to a limit.
#[derive(Debug)]
pub(super) struct Recent<T> {
    most: usize,
    known: Mutex<(HashSet<T>, VecDeque<T>)>,
}

impl<T: Clone + Eq + Hash> Recent<T> {
    pub fn new(most: usize) -> Self {
        Self { most, known: Mutex::default() }
    }

    pub fn add(&self, name: &T) {
        let mut known = self.known.lock();
        let (names, order) = &mut *known;
        if !names.insert(name.clone()) {
            return;
        }
        order.push_back(name.clone());
        if order.len() > self.most
            && let Some(oldest) = order.pop_front()
        {
            names.remove(&oldest);
        }
    }

    pub fn contains(&self, name: &T) -> bool {
        self.known.lock().0.contains(name)
    }

    /// Takes time linear in the number of names: only for what never happens in a healthy cluster.
    pub fn remove(&self, name: &T) {
        let mut known = self.known.lock();
        let (names, order) = &mut *known;
        if names.remove(name) {
            order.retain(|other| other != name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_name_makes_room_for_the_newest() {
        let recent = Recent::new(2);
        for name in ["a", "b", "a", "c"] {
            recent.add(&name);
        }
        assert_eq!(["a", "b", "c"].map(|name| recent.contains(&name)), [false, true, true]);
        recent.remove(&"b");
        recent.add(&"d");
        assert_eq!(["b", "c", "d"].map(|name| recent.contains(&name)), [false, true, true]);
    }
}
