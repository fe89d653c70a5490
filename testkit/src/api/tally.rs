//! Which requests came: counts for benches, a log of writes for tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// One write request as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// `create`, `update`, `patch` or `delete`.
    pub verb: String,
    /// With its subresource: `pods/binding`.
    pub resource: String,
    /// Empty for kinds without namespaces.
    pub namespace: String,
    /// The object's name; for a creation the name that the object got.
    pub name: String,
    /// The HTTP status that was answered, or would have been.
    pub code: u16,
    /// Whether an answer was sent; a dropped connection sends none.
    pub answered: bool,
    /// The client's `User-Agent`; empty if it sent none.
    pub agent: String,
}

/// Counts per verb and resource.
pub type Counts = BTreeMap<(String, String), u64>;

#[derive(Debug, Default)]
struct Books {
    requests: Counts,
    writes: Vec<Write>,
}

/// The counts and the log over all requests.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Books>);

impl Tally {
    pub(crate) fn request(&self, verb: &str, resource: &str) {
        *self.lock().requests.entry((verb.to_owned(), resource.to_owned())).or_default() += 1;
    }

    pub(crate) fn write(&self, write: Write) {
        self.lock().writes.push(write);
    }

    pub(crate) fn requests(&self) -> Counts {
        self.lock().requests.clone()
    }

    pub(crate) fn writes(&self) -> Counts {
        let mut counts = Counts::new();
        for write in &self.lock().writes {
            *counts.entry((write.verb.clone(), write.resource.clone())).or_default() += 1;
        }
        counts
    }

    pub(crate) fn log(&self) -> Vec<Write> {
        self.lock().writes.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
