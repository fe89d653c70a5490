//! A bounded memory of names.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

use parking_lot::Mutex;

/// Remembers the `MOST` names that were added last.
#[derive(Debug)]
pub(super) struct Recent<T, const MOST: usize>(Mutex<(HashSet<T>, VecDeque<T>)>);

impl<T, const MOST: usize> Default for Recent<T, MOST> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Eq + Hash, const MOST: usize> Recent<T, MOST> {
    pub fn add(&self, name: &T) {
        let mut known = self.0.lock();
        let (names, order) = &mut *known;
        if !names.insert(name.clone()) {
            return;
        }
        order.push_back(name.clone());
        if order.len() > MOST
            && let Some(oldest) = order.pop_front()
        {
            names.remove(&oldest);
        }
    }

    pub fn contains(&self, name: &T) -> bool {
        self.0.lock().0.contains(name)
    }

    /// Takes time linear in the number of names: only for what never happens in a healthy cluster.
    pub fn remove(&self, name: &T) {
        let mut known = self.0.lock();
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
        let recent = Recent::<_, 2>::default();
        for name in ["a", "b", "a", "c"] {
            recent.add(&name);
        }
        assert_eq!(["a", "b", "c"].map(|name| recent.contains(&name)), [false, true, true]);
        recent.remove(&"b");
        recent.add(&"d");
        assert_eq!(["b", "c", "d"].map(|name| recent.contains(&name)), [false, true, true]);
    }
}
