//! What the kinds of isolation are told of a container, and what they answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kerf::plan::Grant;
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
    pub grant: &'a Grant,
    /// The ceiling for bursts, where the pod asked for one.
    pub limit: Option<Milli>,
}

/// A file or directory of the host that a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub host: PathBuf,
    pub container: PathBuf,
    /// Whether the container can only read it.
    pub read_only: bool,
}

/// What enforcement adds to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provision {
    /// Environment. Never a limit that the container could lift by changing it.
    pub envs: BTreeMap<String, String>,
    pub mounts: Vec<Mount>,
}

impl Provision {
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.envs.extend(other.envs);
        self.mounts.extend(other.mounts);
        self
    }
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
