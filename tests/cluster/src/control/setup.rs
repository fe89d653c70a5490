//! The purpose of a control plane, and its ports.

use anyhow::Context;

/// How kube-scheduler calls the extender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduling {
    /// Filter, prioritize and bind: `kube-scheduler-configuration.yaml`.
    #[default]
    Full,
    /// The same, of a part of the nodes only: as many as the scheduler looks at by itself.
    Sampled,
    /// Pods that ask for GPUs come to a kube-scheduler of kerf's, as `manifests/base` has it; the cluster's own knows of no extender.
    /// Only when measuring: otherwise the pods of the manifests do this.
    Own,
    /// `POST /scheduler/predicates` only: `legacy.yaml`.
    Legacy,
    /// Not at all: the scheduler sees only a node's totals.
    Plain,
    /// Not at all, and all nodes are looked at.
    PlainAll,
}

/// The purpose of a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run pods on nodes.
    Nodes {
        /// Whether the API server logs the requests of kerf's accounts.
        audit: bool,
        /// How the cluster's own kube-scheduler calls an extender.
        scheduling: Scheduling,
    },
    /// To measure the scheduler with Nodes that are objects only. As in Kubernetes' own `scheduler_perf`, there is no
    /// controller manager, some admission plugins are off, and clients have no rate limit.
    Measurement(Scheduling),
}

impl Scheduling {
    /// Whether kerf has a part in it.
    pub fn is_with_kerf(self) -> bool {
        !matches!(self, Self::Plain | Self::PlainAll)
    }
}

impl Purpose {
    pub(super) fn scheduling(self) -> Scheduling {
        match self {
            Self::Nodes { scheduling, .. } | Self::Measurement(scheduling) => scheduling,
        }
    }

    pub(super) fn is_measurement(self) -> bool {
        matches!(self, Self::Measurement(_))
    }
}

/// Ports on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// etcd's ports, for clients and for peers.
    pub etcd: [u16; 2],
    /// Port of kube-scheduler's metrics.
    pub scheduler: u16,
    /// Port of the metrics of kerf's own kube-scheduler, where it is a process.
    pub own_scheduler: u16,
    /// Port of the controller manager.
    pub controllers: u16,
    /// Port of kerf's extender.
    pub extender: u16,
    /// Port of its metrics and health.
    pub extender_metrics: u16,
    /// Port of its `/debug/state`.
    pub extender_debug: u16,
}

impl Ports {
    pub(crate) const COUNT: usize = 8;

    /// Takes the needed ports from `free`.
    pub(crate) fn take(free: &mut impl Iterator<Item = u16>) -> anyhow::Result<Self> {
        let mut port = || free.next().context("too few ports");
        Ok(Self {
            etcd: [port()?, port()?],
            scheduler: port()?,
            own_scheduler: port()?,
            controllers: port()?,
            extender: port()?,
            extender_metrics: port()?,
            extender_debug: port()?,
        })
    }
}
