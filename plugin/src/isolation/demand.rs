//! What the kinds of isolation are told of a container, and what they answer.

use std::path::{Path, PathBuf};

use kerf::plan::ContainerGrant;
use kerf::units::Milli;

use crate::allocation::Key;
use crate::device::ids::Ids;

/// One container that is about to get a share: what everything that enforces it is told.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The container that the call is believed to be for.
    pub key: &'a Key,
    /// kubelet's ids of core.
    pub core: &'a Ids,
    pub grant: &'a ContainerGrant,
    /// The ceiling for bursts, where the pod asked for one.
    pub limit: Option<Milli>,
}

/// What a container cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// A file that enforcement needs cannot be written.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    /// Limits that the limiter does not know how to keep.
    #[error("limits cannot be written: {0}")]
    Limits(String),
}

/// Names the file that something failed with.
pub fn at(path: &Path) -> impl FnOnce(std::io::Error) -> IsolationError {
    let path = path.to_owned();
    move |source| IsolationError::Io { path, source }
}
