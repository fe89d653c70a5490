//! What a control plane is for, and where it listens.

use anyhow::Context;

/// How kube-scheduler calls the extender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduling {
    /// Filter, prioritize and bind: `kube-scheduler-configuration.yaml`.
    #[default]
    Full,
    /// `POST /scheduler/predicates` only: `legacy.yaml`.
    Legacy,
    /// Not at all: the scheduler sees nothing but a node's totals.
    Plain,
}

/// What a control plane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To serve nodes.
    Nodes {
        /// Whether the API server writes down what kerf asks it.
        audit: bool,
    },
    /// To measure the scheduler with Nodes that are objects only. As in Kubernetes' own `scheduler_perf`, there is no
    /// controller manager, some admission plugins are off, and clients are not held back.
    Measurement(Scheduling),
}

impl Purpose {
    pub(super) fn scheduling(self) -> Scheduling {
        match self {
            Self::Nodes { .. } => Scheduling::Full,
            Self::Measurement(scheduling) => scheduling,
        }
    }

    pub(super) fn is_measurement(self) -> bool {
        matches!(self, Self::Measurement(_))
    }
}

/// Ports on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// etcd, for clients and for peers.
    pub etcd: [u16; 2],
    /// The API server.
    pub api: u16,
    /// kube-scheduler's metrics.
    pub scheduler: u16,
    /// The controller manager's.
    pub controllers: u16,
    /// kerf's extender.
    pub extender: u16,
}

impl Ports {
    /// How many there are.
    pub(crate) const COUNT: usize = 6;

    /// Takes as many as are needed.
    pub(crate) fn take(free: &mut impl Iterator<Item = u16>) -> anyhow::Result<Self> {
        let mut port = || free.next().context("too few ports");
        Ok(Self {
            etcd: [port()?, port()?],
            api: port()?,
            scheduler: port()?,
            controllers: port()?,
            extender: port()?,
        })
    }
}
