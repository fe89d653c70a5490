//! The parts and settings of a cluster.

use crate::control::Scheduling;

/// The parts and settings of a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of nodes.
    pub nodes: usize,
    /// The number of GPUs on each node.
    pub cards: usize,
    /// Whether the API server logs the requests of kerf's accounts.
    pub audit: bool,
    /// Log filter of kerf's programs that are processes.
    pub log: String,
    /// How kerf is installed.
    pub way: Way,
}

/// How kerf is installed.
#[derive(Clone, Debug)]
pub enum Way {
    /// As processes of this machine, which tests can pause and restart: the extender is called by the cluster's own
    /// kube-scheduler, and each node's plugin finds the GPUs of the node's own file.
    Processes,
    /// As pods, by `kubectl apply -k` of this directory of `manifests/`, with images made here; on an older Kubernetes with
    /// what `docs/install.md` says of it. The cluster's own kube-scheduler knows nothing of kerf. [`Options::cards`] is how
    /// many GPUs its plugins find.
    Manifests(&'static str),
}

impl Way {
    /// The default, with simulated GPUs: `manifests/overlays/simulated`, unchanged.
    pub fn simulated() -> Self {
        Self::Manifests("overlays/simulated")
    }

    pub(super) fn scheduling(&self) -> Scheduling {
        match self {
            Self::Processes => Scheduling::Full,
            Self::Manifests(_) => Scheduling::Plain,
        }
    }
}
