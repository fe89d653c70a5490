//! The disruption budgets of the cluster, as the watch shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kerf::disruption::Budget;
use kerf::ids::PodRef;
use parking_lot::RwLock;

/// By namespace and name of the object.
pub(crate) type Listed = BTreeMap<PodRef, Arc<Budget>>;

/// `None` before the first complete list.
#[derive(Debug, Default)]
pub(crate) struct Budgets(RwLock<Option<Listed>>);

impl Budgets {
    /// `None` before the first complete list, so also where the right to list is missing.
    pub fn current(&self) -> Option<Vec<Arc<Budget>>> {
        let listed = self.0.read();
        listed.as_ref().map(|listed| listed.values().cloned().collect())
    }

    /// Takes over a complete list.
    pub fn replace(&self, listed: Listed) {
        *self.0.write() = Some(listed);
    }

    /// A budget was seen; `None`: it was deleted.
    pub fn apply(&self, name: PodRef, budget: Option<Budget>) {
        if let Some(listed) = self.0.write().as_mut() {
            match budget {
                Some(budget) => listed.insert(name, Arc::new(budget)),
                None => listed.remove(&name),
            };
        }
    }
}
