//! What the kinds of isolation need to know of a container, and their errors.

use std::path::{Path, PathBuf};

use kerf::plan::ContainerGrant;
use kerf::units::Milli;

use crate::allocation::Key;
use crate::device::ids::Ids;

/// One container that is about to get a share.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The container that the call was matched to.
    pub key: &'a Key,
    /// kubelet's ids of core.
    pub core: &'a Ids,
    pub grant: &'a ContainerGrant,
    /// The ceiling for bursts, where the pod asked for one.
    pub limit: Option<Milli>,
}

/// Why a container's share cannot be enforced.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// A file that enforcement needs cannot be written.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    /// Containers could not use a file that enforcement needs.
    #[error("{path}: {why}")]
    Unusable { path: PathBuf, why: &'static str },
    /// The limits' file cannot express these limits.
    #[error("limits cannot be written: {0}")]
    Limits(String),
}

/// Names the file for which an operation failed.
pub fn at(path: &Path) -> impl FnOnce(std::io::Error) -> IsolationError {
    let path = path.to_owned();
    move |source| IsolationError::Io { path, source }
}
