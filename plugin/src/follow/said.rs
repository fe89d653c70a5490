//! What a container's limiter says of its processes. The container can write it as well.

use std::sync::Arc;

use kerf_limiter_contract::state::Snapshot;

use crate::isolation::folder::Folder;
use crate::isolation::limiter;
use crate::state::sample::Sample;

/// As it was read after the measurement; `None`: it cannot be read.
pub fn after(sample: &Sample, folder: &Folder) -> Option<Arc<Snapshot>> {
    sample.said_by(&folder.path, || now(folder))
}

/// `None`: it cannot be read.
pub fn now(folder: &Folder) -> Option<Snapshot> {
    let read = limiter::snapshot(folder).inspect_err(|error| {
        tracing::debug!(folder = %folder.run.display(), %error, "the limiter's state cannot be read");
    });
    read.ok()
}
